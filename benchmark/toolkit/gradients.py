"""Per-example gradients of loss, margin or target with respect to a checkpoint's parameters.

One forward and one backward pass over a chunk of examples leave, for every layer, the factors that its per-example
gradients are sums of (`attriboard.toolkit.layers`). A model with a module of another kind, or one that uses a weight
behind its layer's back, is differentiated example by example with `torch.func.vmap` instead; what follows does not
notice.

Flat gradients follow the order of `model.named_parameters()`, each parameter row-major, whatever order a
checkpoint's file had. Examples never interact: the model is in evaluation mode, and results do not depend on
how examples are cut into chunks (beyond the rounding of matrix products).

**Precision.** 1 − p of a well-fitted example is a difference of nearly equal numbers, and the small eigenvalues that a
small λ looks at are made of such examples. So loss and targets are always differentiated in float64. A network of
linear layers runs in float64 altogether; others in their parameters' precision, which costs each gradient a relative
1e-7, whatever its size (a float64 convolution takes five times as long).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit.layers import Kind, LayerGradients, kind_of
from attriboard.toolkit.memory import affordable_rows
from attriboard.toolkit.terms import Dense, Part, Term

GRADIENT_BYTES = 512 * 2**20
"""Memory for one block of gradients and the intermediates that it needs."""

INTERMEDIATES = 8
"""Numbers that a backward pass with the factors of one layer holds at once for each activation of the model, about."""

CHECKED_ROWS = 8
"""Examples whose factors are compared with the ordinary gradient."""

Call = tuple[Tensor, Tensor]
"""What one call of a module left: kept inputs, and its outputs."""


def count_parameters(checkpoint: Checkpoint) -> int:
    """n_params: the length of a flat gradient."""
    return sum(parameter.numel() for parameter in checkpoint.parameters.values())


def layer_parameters(model: nn.Module) -> dict[str, dict[str, tuple[int, ...]]]:
    """Module → its own parameters' names and shapes, in the order of flat gradients; a shared one is its first's."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, parameter in model.named_parameters():
        layers.setdefault(name.rpartition(".")[0], {})[name] = tuple(parameter.shape)
    return layers


def working_precision(context: Context, checkpoint: Checkpoint) -> torch.dtype:
    """Float64 for networks of linear layers; the parameters' own for others, whose float64 operations are slow."""
    owners = (module for module in context.model.modules() if list(module.parameters(recurse=False)))
    linear = all(isinstance(module, nn.Linear) for module in owners)
    return torch.float64 if linear else next(iter(checkpoint.parameters.values())).dtype


@dataclass(frozen=True)
class _Site:
    """A module with parameters: its kind, and its own parameters' names → their names in flat gradients."""

    module: nn.Module
    kind: Kind
    parameters: Mapping[str, str]


class FactoredGradients:
    """Gradient factors of every layer at one checkpoint.

    Args:
        context: the model.
        checkpoint: the parameters.
        function: `context.loss`, `.margin` or `.target`, or any function of (outputs, targets) → (n,).

    Raises:
        NotApplicableError: a module with parameters is of no kind that has factors.
    """

    def __init__(self, context: Context, checkpoint: Checkpoint, function: BatchFunction) -> None:
        self._model, self._function = context.model, function
        self._layers = layer_parameters(context.model)
        self._sites = _sites(context.model)
        self.dtype = working_precision(context, checkpoint)
        self._parameters = {name: self._cast(value).requires_grad_() for name, value in checkpoint.parameters.items()}
        self._buffers = {name: self._cast(value) for name, value in checkpoint.buffers.items()}

    def check(self, examples: Examples) -> None:
        """Compare Σ_i ∇_i with the ordinary gradient of a few examples.

        Raises:
            NotApplicableError: they differ: a parameter is also used outside its layer; or a layer is not used as
                its kind is; or gradients are not finite.
        """
        layers, ordinary = self._pass(examples[:CHECKED_ROWS], set(self._layers), ordinary=True)
        for layer in layers:
            gradients = layer.dense().double()
            wanted = torch.cat([ordinary[name].flatten() for name in self._layers[layer.name]]).double()
            if not bool(torch.isfinite(gradients).all()):
                raise NotApplicableError(f"layer {layer.name!r}: gradients are not finite: the model diverged")
            error = (gradients.sum(0) - wanted).norm()
            if not error <= 10 * torch.finfo(self.dtype).eps ** 0.5 * gradients.norm(dim=1).sum().clamp_min(1e-30):
                raise NotApplicableError(f"layer {layer.name!r}: its weight is also used outside the layer")

    def blocks(
        self, examples: Examples, *, rows: int | None = None, layers: Collection[str] | None = None
    ) -> Iterator[list[LayerGradients]]:
        """Chunks of examples, in order.

        Args:
            examples: n of them.
            rows: examples per pass; as many as fit in memory where `None`. No influence on the result.
            layers: those that are wanted; all where `None`.

        Yields:
            One entry per wanted layer, in the order of the parameters.
        """
        rows = rows or self._affordable_rows(examples)
        for start in track(range(0, len(examples), rows), "gradients"):
            yield self._pass(examples[start : start + rows], set(self._layers if layers is None else layers))[0]

    def _affordable_rows(self, examples: Examples) -> int:
        state = {**self._buffers, **self._parameters}
        inputs = self._cast(examples.inputs[:1])
        return affordable_rows(self._model, state, inputs, GRADIENT_BYTES // (INTERMEDIATES * self.dtype.itemsize))

    def _pass(
        self, batch: Examples, layers: Collection[str], *, ordinary: bool = False
    ) -> tuple[list[LayerGradients], dict[str, Tensor]]:
        """Factors of the layers, and the ordinary gradient of all parameters where it is asked for."""
        parameters = {name for layer in layers for name in self._layers[layer]}
        sites = {name: site for name, site in self._sites.items() if parameters & set(site.parameters.values())}
        total, calls = self._forward(batch, sites)
        outputs = [output for name in sites for _, output in calls[name]]
        extra = self._parameters if ordinary else {}
        results = iter(torch.autograd.grad(total, [*outputs, *extra.values()], materialize_grads=True))
        terms: dict[str, list[Term]] = {name: [] for name in parameters}
        for name, site in sites.items():
            for kept, _ in calls[name]:
                for own, term in site.kind.terms(site.module, kept, next(results)).items():
                    if site.parameters.get(own) in parameters:
                        terms[site.parameters[own]].append(term)
        found = [
            LayerGradients(name, tuple(Part(shape, tuple(terms[one])) for one, shape in self._layers[name].items()))
            for name in self._layers
            if name in layers
        ]
        return found, dict(zip(extra, results, strict=True))

    def _forward(self, batch: Examples, sites: Mapping[str, _Site]) -> tuple[Tensor, dict[str, list[Call]]]:
        """Σ_i φ(z_i), and the calls of every site."""
        calls: dict[str, list[Call]] = {name: [] for name in sites}

        def recorder(name: str, site: _Site) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
            def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
                # What is the same for all examples, such as embedded positions, has each example's own gradient.
                given, output = (_for_each(side, len(batch), name) for side in (inputs[0].detach(), output))
                with torch.no_grad():
                    calls[name].append((site.kind.keep(module, given), output))
                # A copy goes on, so that an in-place activation leaves the recorded output what it was.
                return output.clone()

            return record

        handles = [site.module.register_forward_hook(recorder(name, site)) for name, site in sites.items()]
        try:
            state = {**self._buffers, **self._parameters}
            outputs = functional_call(self._model, state, (self._cast(batch.inputs),))
        finally:
            for handle in handles:
                handle.remove()
        silent = [name for name, found in calls.items() if not found]
        if silent:
            raise NotApplicableError(f"layer {silent[0]!r} takes no part in the model's outputs: no gradient factors")
        return self._function(outputs.double(), batch.targets).sum(), calls

    def _cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def layer_gradients(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    layers: Collection[str] | None = None,
    memory_bytes: int = GRADIENT_BYTES,
) -> Iterator[list[LayerGradients]]:
    """Gradients of chunks of examples, layer by layer: factors, or dense ones for models that have none.

    Args:
        context: model and device.
        checkpoint: the parameters.
        function: function of (outputs, targets) → (n,).
        examples: n of them.
        layers: those that are wanted; all where `None`.
        memory_bytes: bounds a chunk of dense gradients; no influence on the result.

    Yields:
        One entry per wanted layer, in the order of the parameters.
    """
    try:
        factored = FactoredGradients(context, checkpoint, function)
        factored.check(examples)
    except NotApplicableError:
        yield from _dense_blocks(context, checkpoint, function, examples, layers, memory_bytes)
    else:
        yield from factored.blocks(examples, layers=layers)


def per_example_gradients(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    memory_bytes: int = GRADIENT_BYTES,
) -> Iterator[Tensor]:
    """Blocks (b, n_params) of flat gradients, example by example, in the parameters' dtype.

    Args:
        context: model and device.
        checkpoint: the parameters.
        function: function of (outputs, targets) → (n,).
        examples: n of them.
        memory_bytes: bounds a block with its intermediates; decides b and nothing else.

    Yields:
        Blocks whose concatenation is (n, n_params).
    """
    dtype = next(iter(checkpoint.parameters.values())).dtype
    rows = _dense_rows(checkpoint, memory_bytes)
    for chunk in layer_gradients(context, checkpoint, function, examples, memory_bytes=memory_bytes):
        for start in range(0, len(chunk[0]), rows):
            layers = [layer.cut(slice(start, start + rows), dtype) for layer in chunk]
            yield torch.cat([part.gradient() for layer in layers for part in layer.parts], dim=1)


@torch.no_grad()
def evaluate(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    rows: int | None = None,
) -> Tensor:
    """Values (n,) of a function of (outputs, targets), in chunks of `rows` examples; as fit in memory where `None`."""
    state = {**checkpoint.buffers, **checkpoint.parameters}
    if rows is None:
        rows = affordable_rows(context.model, state, examples.inputs[:1], GRADIENT_BYTES // 16)
    values = []
    for start in range(0, len(examples), rows):
        batch = examples[start : start + rows]
        values.append(function(functional_call(context.model, state, (batch.inputs,)), batch.targets))
    return torch.cat(values)


def _sites(model: nn.Module) -> dict[str, _Site]:
    """Every module with parameters of its own.

    Raises:
        NotApplicableError: one of them is of no known kind.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    sites = {}
    for name, module in model.named_modules():
        own = {part: names[id(value)] for part, value in module.named_parameters(recurse=False)}
        if own:
            sites[name] = _Site(module, kind_of(name, module, own), own)
    return sites


def _for_each(tensor: Tensor, n: int, layer: str) -> Tensor:
    """A tensor with one row for each of n examples.

    Raises:
        NotApplicableError: its first axis is not that of the examples.
    """
    if tensor.dim() < 2 or tensor.shape[0] not in (1, n):
        raise NotApplicableError(f"layer {layer!r} sees {tuple(tensor.shape)} for {n} examples: no gradient factors")
    return tensor.expand(n, *tensor.shape[1:])


def _dense_rows(checkpoint: Checkpoint, memory_bytes: int) -> int:
    """One block, its pieces before they are joined, and as much for activations and the caller's transform."""
    itemsize = next(iter(checkpoint.parameters.values())).dtype.itemsize
    return max(1, memory_bytes // (4 * count_parameters(checkpoint) * itemsize))


def _dense_blocks(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    layers: Collection[str] | None,
    memory_bytes: int,
) -> Iterator[list[LayerGradients]]:
    """`layer_gradients` for any model: every example by itself."""
    evaluate_one = context.functional(function)

    def scalar(parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return evaluate_one({**checkpoint.buffers, **parameters}, inputs, targets)

    gradient = vmap(grad(scalar), in_dims=(None, 0, 0))
    rows = _dense_rows(checkpoint, memory_bytes)
    wanted = layer_parameters(context.model)
    for start in range(0, len(examples), rows):
        batch = examples[start : start + rows]
        pieces = gradient(dict(checkpoint.parameters), batch.inputs, batch.targets)
        yield [
            LayerGradients(name, tuple(Part(shape, (Dense(pieces[one]),)) for one, shape in parameters.items()))
            for name, parameters in wanted.items()
            if layers is None or name in layers
        ]
