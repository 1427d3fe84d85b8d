"""Gradient factors of layers: one forward and one backward pass over a chunk of examples.

Hooks on the modules keep what each layer's kind needs of its inputs, and the gradients with respect to its outputs.
What comes out is a claim, since a weight may also be used past its module and an axis may not be what it seems: it is
compared, layer by layer and example by example, with ordinary gradients of single examples before it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit.layers import Kind, LayerGradients, kind_of
from attriboard.toolkit.memory import affordable_rows
from attriboard.toolkit.placed import FunctionalModel, own_precision, values
from attriboard.toolkit.reference import Reference, close, lengths, reason_of, reference, remembered
from attriboard.toolkit.terms import Dense, Part, Term

GRADIENT_BYTES = 512 * 2**20
"""Memory for one block of gradients and the intermediates that it needs."""

INTERMEDIATES = 8
"""Numbers that a backward pass with the factors of one layer holds at once for each activation of the model, about."""

Call = tuple[Any, Tensor]
"""What one call of a module left: kept inputs, and its outputs."""

Layers = Mapping[str, Mapping[str, tuple[int, ...]]]
"""Module → names and shapes of its own attributed parameters."""


def layer_parameters(context: Context) -> dict[str, dict[str, tuple[int, ...]]]:
    """Module → names and shapes of its own attributed parameters; a shared one is its first module's."""
    shapes = {name: tuple(value.shape) for name, value in context.model.named_parameters()}
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name in context.attributed:
        layers.setdefault(name.rpartition(".")[0], {})[name] = shapes[name]
    return layers


def working_precision(context: Context) -> torch.dtype:
    """Float64 for networks of linear layers; the parameters' own for others, whose float64 operations are slow."""
    owners = (module for module in context.model.modules() if list(module.parameters(recurse=False)))
    linear = all(isinstance(module, nn.Linear) for module in owners)
    return torch.float64 if linear else own_precision(context.model)


@dataclass(frozen=True)
class Site:
    """A module with parameters: its kind, and its own attributed parameters' names → their names in flat gradients."""

    module: nn.Module
    kind: Kind
    parameters: Mapping[str, str]


@dataclass(frozen=True)
class Factors:
    """Which layers have gradient factors for one function at one checkpoint.

    Attributes:
        reasons: layer → why it has none; `None` where it has.
        dtype: of the model, see `FunctionalModel`.
        precision: of the function, see `attriboard.toolkit.placed.values`.
        broadcast: whether what is the same for all examples was taken for each of them.
        unreached: parameters that no gradient reaches.
    """

    reasons: Mapping[str, str | None]
    dtype: torch.dtype | None
    precision: torch.dtype
    broadcast: bool
    unreached: tuple[str, ...]

    def cover(self, layers: Collection[str]) -> bool:
        """Whether all of these have factors."""
        return all(self.reasons[layer] is None for layer in layers)


def factors_of(context: Context, checkpoint: Checkpoint, function: BatchFunction) -> Factors:
    """Which layers have gradient factors, found once for each checkpoint and function.

    Raises:
        NotApplicableError: single examples have no gradients at all; see `reference`.
    """
    key = ("factors", checkpoint, function)
    return remembered(context, key, lambda: _try_all(context, checkpoint, function))


def _try_all(context: Context, checkpoint: Checkpoint, function: BatchFunction) -> Factors:
    """In the working precision, or the model's own; what all examples share is taken for each, or not at all."""
    found = reference(context, checkpoint, function)
    working, own = working_precision(context), own_precision(context.model)
    best: Factors | None = None
    for dtype in dict.fromkeys((None if working == own else working, None)):
        for broadcast in (True, False):
            trial = _trial(context, checkpoint, function, found, dtype, broadcast)
            if trial.cover(trial.reasons):
                return trial
            if best is None or _n_covered(trial) > _n_covered(best):
                best = trial
    assert best is not None
    return best


def _n_covered(factors: Factors) -> int:
    return sum(reason is None for reason in factors.reasons.values())


def _trial(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    found: Reference,
    dtype: torch.dtype | None,
    broadcast: bool,
) -> Factors:
    """Compare every layer's factors with the reference; layers that spoil the pass for others are left out."""
    layers = layer_parameters(context)
    sites, reasons = _sites(context.model, layers)

    unreached = tuple(name for name in context.attributed if name not in found.reached)

    def result() -> Factors:
        return Factors({name: reasons.get(name) for name in layers}, dtype, found.precision, broadcast, unreached)

    reasons |= {layer: None for layer, own in layers.items() if not found.reached & set(own)}
    if not found.batched:
        reasons = dict.fromkeys(layers, "the model takes one example at a time: no gradient factors")
        return result()
    while True:
        usable = {name for name in layers if reasons.get(name) is None}
        try:
            chunk = FactoredGradients(context, checkpoint, function, result()).chunk(found.examples, usable)
        except _LayerError as error:
            # Also the layers whose weights this one shares.
            reasons |= {full.rpartition(".")[0]: str(error) for full in sites[error.layer].parameters.values()}
            continue
        except Exception as error:
            reasons = dict.fromkeys(layers, f"no gradient factors: {reason_of(error)}")
            return result()
        break
    whole = lengths(found)
    lower = max((own_precision(context.model) if one is None else one for one in (dtype, found.dtype)), key=_eps)
    for layer in chunk:
        if not _agrees(layer, layers[layer.name], found, whole, lower):
            reasons[layer.name] = (
                f"layer {layer.name!r}: its weight is also used outside the layer, or its first axis is not that of "
                "the examples: no gradient factors"
            )
    return result()


def _agrees(
    layer: LayerGradients, names: Iterable[str], found: Reference, whole: Tensor, precision: torch.dtype
) -> bool:
    try:
        gradients = [part.gradient() for part in layer.parts]
    except RuntimeError as error:  # what was kept is not what the kind expects
        reason_of(error)
        return False
    pairs = zip(gradients, names, strict=True)
    return all(close(actual, found.gradients[name].flatten(1), whole, precision) for actual, name in pairs)


def _eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps


class _LayerError(NotApplicableError):
    """One layer has no factors."""

    def __init__(self, layer: str, reason: str) -> None:
        super().__init__(f"layer {layer!r} {reason}: no gradient factors")
        self.layer = layer


class FactoredGradients:
    """Gradient factors of layers at one checkpoint.

    Args:
        context: the model.
        checkpoint: the parameters.
        function: `context.loss`, `.margin` or `.target`, or any function of (outputs, targets) → (n,).
        factors: which layers have them.
    """

    def __init__(
        self, context: Context, checkpoint: Checkpoint, function: BatchFunction, factors: Factors | None = None
    ) -> None:
        self.factors = factors or factors_of(context, checkpoint, function)
        self._function = function
        self._layers = layer_parameters(context)
        self._sites = _sites(context.model, self._layers)[0]
        self._model = FunctionalModel(context, checkpoint, self.factors.dtype)
        self._parameters = {name: value.requires_grad_() for name, value in self._model.parameters.items()}
        self._itemsize = (self.factors.dtype or own_precision(context.model)).itemsize

    def check(self) -> None:
        """Refuse a model of which a layer has no factors.

        Raises:
            NotApplicableError: with the first one's reason.
        """
        for reason in self.factors.reasons.values():
            if reason is not None:
                raise NotApplicableError(reason)

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
        rows = rows or affordable_rows(
            self._model, examples.inputs[:1], GRADIENT_BYTES // (INTERMEDIATES * self._itemsize)
        )
        for start in track(range(0, len(examples), rows), "gradients"):
            yield self.chunk(examples[start : start + rows], set(self._layers if layers is None else layers))

    def chunk(self, batch: Examples, layers: Collection[str]) -> list[LayerGradients]:
        """Factors of the layers, for all examples of a batch at once."""
        parameters = {name for layer in layers for name in self._layers[layer]} - set(self.factors.unreached)
        sites = {name: site for name, site in self._sites.items() if parameters & set(site.parameters.values())}
        total, calls = self._forward(batch, sites)
        reached = [(name, kept, output) for name in sites for kept, output in calls[name] if output.requires_grad]
        outputs = [output for _, _, output in reached]
        deltas = torch.autograd.grad(total, outputs, materialize_grads=True) if outputs else ()
        terms: dict[str, list[Term]] = {name: [] for name in parameters}
        for (name, kept, _), delta in zip(reached, deltas, strict=True):
            site = self._sites[name]
            for own, term in site.kind.terms(site.module, kept, delta).items():
                if site.parameters.get(own) in parameters:
                    terms[site.parameters[own]].append(term)

        def part(name: str, shape: tuple[int, ...]) -> Part:
            zero = Dense(self._parameters[name].detach().new_zeros(1).expand(len(batch), *(shape or (1,))))
            return Part(shape, tuple(terms.get(name, ())) or (zero,))

        return [
            LayerGradients(name, tuple(part(*one) for one in own.items()))
            for name, own in self._layers.items()
            if name in layers
        ]

    def _forward(self, batch: Examples, sites: Mapping[str, Site]) -> tuple[Tensor, dict[str, list[Call]]]:
        """Σ_i φ(z_i), and the calls of every site."""
        calls: dict[str, list[Call]] = {name: [] for name in sites}

        def recorder(name: str, site: Site) -> Callable[..., Any]:
            def record(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
                first = next(iter((*inputs, *named.values())), None)
                if not isinstance(first, Tensor) or not isinstance(output, Tensor):
                    raise _LayerError(name, "is not called with one tensor for another")
                given, mine = (self._for_each(side, len(batch), site, name) for side in (first.detach(), output))
                try:
                    with torch.no_grad():
                        calls[name].append((site.kind.keep(module, given), mine))
                except RuntimeError as error:
                    raise _LayerError(name, f"sees {tuple(first.shape)}: {reason_of(error)}") from error
                # A copy goes on, so that an in-place activation leaves the recorded output what it was.
                return mine.clone() if mine.numel() > output.numel() else mine.clone().view_as(output)

            return record

        handles = [
            site.module.register_forward_hook(recorder(name, site), with_kwargs=True) for name, site in sites.items()
        ]
        try:
            outputs = self._model(batch.inputs, self._parameters)
        finally:
            for handle in handles:
                handle.remove()
        uncalled = [name for name, found in calls.items() if not found]
        if uncalled:
            raise _LayerError(uncalled[0], "takes no part in the model's outputs by itself")
        return values(self._function, outputs, batch.targets, self.factors.precision).sum(), calls

    def _for_each(self, tensor: Tensor, n: int, site: Site, layer: str) -> Tensor:
        """A tensor with a row for each of n examples.

        Also of what is the same for all, such as embedded positions, and of the rows of all examples one after another,
        as OPT's perceptrons see them.
        """
        if tensor.dim() == 2 and tensor.shape[0] > n and tensor.shape[0] % n == 0 and site.kind.last_axis:
            return tensor.reshape(n, -1, tensor.shape[1])
        if tensor.dim() < 2 or tensor.shape[0] not in ((1, n) if self.factors.broadcast else (n,)):
            raise _LayerError(layer, f"sees {tuple(tensor.shape)} for {n} examples")
        return tensor.expand(n, *tensor.shape[1:])


def _sites(model: nn.Module, layers: Layers) -> tuple[dict[str, Site], dict[str, str | None]]:
    """Every module with attributed parameters of a known kind; and why parameters of others have no factors."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    attributed = {name for own in layers.values() for name in own}
    sites: dict[str, Site] = {}
    reasons: dict[str, str | None] = {}
    for name, module in model.named_modules():
        own = {part: names[id(value)] for part, value in module.named_parameters(recurse=False)}
        own = {part: full for part, full in own.items() if full in attributed}
        if not own:
            continue
        try:
            sites[name] = Site(module, kind_of(name, module, own), own)
        except NotApplicableError as error:
            reasons |= {full.rpartition(".")[0]: str(error) for full in own.values()}
    return sites, reasons
