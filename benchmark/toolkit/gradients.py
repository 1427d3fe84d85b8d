"""Per-example gradients of loss, margin or target with respect to a checkpoint's parameters.

Flat gradients follow the order of `model.named_parameters()`, each parameter row-major, whatever order a
checkpoint's file had. Examples never interact: the model is in evaluation mode, and results do not depend on
how examples are cut into chunks (beyond the rounding of matrix products).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from attriboard.contracts import BatchFunction, Checkpoint, Context, Examples
from attriboard.errors import NotApplicableError

__all__ = [
    "LayerFactors",
    "count_parameters",
    "evaluate",
    "linear_factors",
    "linear_factors_or_none",
    "linear_layers",
    "per_example_gradients",
]

GRADIENT_BYTES = 512 * 2**20
"""Memory for one block of gradients and the intermediates that it needs."""

FACTOR_ROWS = 1024
"""Examples per forward and backward pass of the factor path."""


@dataclass(frozen=True)
class LayerFactors:
    """One linear layer's per-example gradients, kept as factors: ∇W_i = δ_i a_iᵀ and ∇b_i = δ_i.

    Attributes:
        inputs: a, the layer's inputs (n, d_in), float64.
        deltas: δ, gradients with respect to its outputs (n, d_out), float64.
        bias: whether the layer has one.
    """

    inputs: Tensor
    deltas: Tensor
    bias: bool


def count_parameters(checkpoint: Checkpoint) -> int:
    """n_params: the length of a flat gradient."""
    return sum(parameter.numel() for parameter in checkpoint.parameters.values())


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """Name → module, in the parameters' order, if every parameter is the weight or bias of one nn.Linear.

    Raises:
        NotApplicableError: some parameter belongs to another kind of module, or to two modules.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    owned = {f"{name}.{part}" if name else part for name in layers for part in ("weight", "bias")}
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    foreign = [name for name in names if name not in owned]
    if foreign:
        raise NotApplicableError(f"parameter {foreign[0]!r}: gradient factors need nn.Linear layers only")
    if len(names) != len(list(model.parameters())):
        raise NotApplicableError("a parameter is shared by two layers: its gradient is no single outer product")
    return layers


def linear_factors(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    rows: int = FACTOR_ROWS,
) -> list[LayerFactors]:
    """Gradient factors of every layer, from one batched backward pass.

    Everything runs in float64: 1 − p of a well-fitted example is a difference of nearly equal numbers, and
    the small eigenvalues that a small λ looks at are made of such examples.

    Args:
        context: whose model consists of linear layers, each used once per example.
        checkpoint: the parameters.
        function: `context.loss`, `.margin` or `.target`, or any function of (outputs, targets) → (n,).
        examples: n of them.
        rows: examples per pass; no influence on the result.

    Returns:
        One entry per layer, in the order of the parameters.

    Raises:
        NotApplicableError: the model is not of that kind.
    """
    layers = linear_layers(context.model)
    parameters = {name: _double(value).requires_grad_() for name, value in checkpoint.parameters.items()}
    buffers = {name: _double(value) for name, value in checkpoint.buffers.items()}
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            seen[name].append((inputs[0].detach(), output))
            # A copy goes on, so that an in-place activation leaves the recorded output what it was.
            return output.clone()

        return record

    blocks: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in layers}
    handles = [layer.register_forward_hook(recorder(name)) for name, layer in layers.items()]
    try:
        for start in range(0, len(examples), rows):
            batch = examples[start : start + rows]
            for records in seen.values():
                records.clear()
            outputs = functional_call(context.model, {**buffers, **parameters}, (_double(batch.inputs),))
            total = function(outputs, batch.targets).sum()
            for name, records in seen.items():
                if len(records) != 1 or records[0][0].dim() != 2:
                    raise NotApplicableError(
                        f"layer {name!r} is not applied exactly once to (n, d_in) inputs: no gradient factors"
                    )
            wanted = [seen[name][0][1] for name in layers]
            # The first block also asks for the ordinary gradient, which the factors must reproduce.
            check = list(parameters.values()) if start == 0 else []
            results = torch.autograd.grad(total, [*wanted, *check], materialize_grads=True)
            for name, deltas in zip(layers, results, strict=False):
                blocks[name].append((seen[name][0][0], deltas))
            if check:
                ordinary = dict(zip(parameters, results[len(wanted) :], strict=True))
                _check_factors({name: records[0] for name, records in blocks.items()}, ordinary)
    finally:
        for handle in handles:
            handle.remove()
    return [
        LayerFactors(
            torch.cat([inputs for inputs, _ in blocks[name]]),
            torch.cat([deltas for _, deltas in blocks[name]]),
            bias=layer.bias is not None,
        )
        for name, layer in layers.items()
    ]


def linear_factors_or_none(
    context: Context, checkpoint: Checkpoint, function: BatchFunction, examples: Examples
) -> list[LayerFactors] | None:
    """`linear_factors`, or `None` for models that have none."""
    try:
        return linear_factors(context, checkpoint, function, examples)
    except NotApplicableError:
        return None


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
    names = [name for name, _ in context.model.named_parameters()]
    dtype = checkpoint.parameters[names[0]].dtype
    # One block, its pieces before they are joined, and as much for activations and the caller's transform.
    rows = max(1, memory_bytes // (4 * count_parameters(checkpoint) * dtype.itemsize))
    factors = linear_factors_or_none(context, checkpoint, function, examples)
    if factors is not None:
        for start in range(0, len(examples), rows):
            yield _outer_products(factors, slice(start, start + rows), dtype)
        return

    evaluate_one = context.functional(function)

    def scalar(parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return evaluate_one({**checkpoint.buffers, **parameters}, inputs, targets)

    gradient = vmap(grad(scalar), in_dims=(None, 0, 0))
    for start in range(0, len(examples), rows):
        batch = examples[start : start + rows]
        pieces = gradient(dict(checkpoint.parameters), batch.inputs, batch.targets)
        yield torch.cat([pieces[name].flatten(1) for name in names], dim=1)


@torch.no_grad()
def evaluate(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    rows: int = FACTOR_ROWS,
) -> Tensor:
    """Values (n,) of a function of (outputs, targets), in chunks of `rows` examples."""
    state = {**checkpoint.buffers, **checkpoint.parameters}
    values = []
    for start in range(0, len(examples), rows):
        batch = examples[start : start + rows]
        values.append(function(functional_call(context.model, state, (batch.inputs,)), batch.targets))
    return torch.cat(values)


def _double(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return tensor.double() if tensor.is_floating_point() else tensor


def _outer_products(factors: list[LayerFactors], rows: slice, dtype: torch.dtype) -> Tensor:
    pieces = []
    for layer in factors:
        inputs, deltas = layer.inputs[rows].to(dtype), layer.deltas[rows].to(dtype)
        pieces.append((deltas.unsqueeze(2) * inputs.unsqueeze(1)).flatten(1))
        if layer.bias:
            pieces.append(deltas)
    return torch.cat(pieces, dim=1)


def _check_factors(first: Mapping[str, tuple[Tensor, Tensor]], ordinary: Mapping[str, Tensor]) -> None:
    """Compare Σ_i δ_i a_iᵀ with autograd: a weight that is also used outside its layer shows here."""
    for name, (inputs, deltas) in first.items():
        weight = ordinary[f"{name}.weight" if name else "weight"]
        if not torch.allclose(deltas.T @ inputs, weight, rtol=1e-6, atol=1e-9 * float(weight.abs().max())):
            raise NotApplicableError(f"layer {name!r}: its weight is also used outside the layer")
