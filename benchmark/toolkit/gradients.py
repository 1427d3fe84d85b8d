"""Per-example gradients of loss, margin or target with respect to a checkpoint's parameters.

Three ways, each slower than the one before: the factors that one backward pass leaves for a chunk of examples
(`attriboard.toolkit.factored`); `torch.func.vmap` over examples; one ordinary backward pass for each example. The first
whose values agree, example by example, with the last on a few training examples is taken; what follows does not notice.
A remark on the context says which, where it is not the first.

Flat gradients follow the order of `Context.attributed`, each parameter row-major, whatever order a checkpoint's file
had. Examples never interact: the model is in evaluation mode, and results do not depend on how examples are cut into
chunks (beyond the rounding of matrix products).

**Precision.** 1 − p of a well-fitted example is a difference of nearly equal numbers, and the small eigenvalues that a
small λ looks at are made of such examples. So loss and targets are differentiated in float64, unless they do not take
it. Factors of a network of linear layers are made in float64 altogether, those of others in their parameters'
precision, which costs each gradient a relative 1e-7, whatever its size (a float64 convolution takes five times as
long). Both other ways run in float64 altogether, unless the model does not take it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.func import grad, vmap

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit.factored import GRADIENT_BYTES, FactoredGradients, factors_of, layer_parameters
from attriboard.toolkit.layers import LayerGradients
from attriboard.toolkit.placed import CopiedModel, FunctionalModel, own_precision, values
from attriboard.toolkit.reference import (
    Reference,
    close,
    count,
    lengths,
    one_gradient,
    reason_of,
    reference,
    remembered,
    with_axis,
)
from attriboard.toolkit.terms import Dense, Part

Gradients = Callable[[Examples], dict[str, Tensor]]
"""Examples → attributed parameter → gradients (n, *shape)."""


def count_parameters(context: Context) -> int:
    """n_params: the length of a flat gradient."""
    return count(context)


def attributed_shapes(context: Context) -> dict[str, torch.Size]:
    """Attributed parameter → its shape, in the order of flat gradients."""
    shapes = {name: value.shape for name, value in context.model.named_parameters()}
    return {name: shapes[name] for name in context.attributed}


def by_parameter(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Views (…, *shape) of flat gradients (…, n_params), by name."""
    pieces = torch.split(flat, [shape.numel() for shape in shapes.values()], dim=-1)
    named = zip(shapes.items(), pieces, strict=True)
    return {name: piece.view(*flat.shape[:-1], *shape) for (name, shape), piece in named}


@dataclass(frozen=True)
class _Dense:
    """How gradients are made where a layer has no factors; see `FunctionalModel` and `values`."""

    way: Literal["vmap", "loop"]
    dtype: torch.dtype | None
    precision: torch.dtype

    def open(self, context: Context, checkpoint: Checkpoint, function: BatchFunction) -> Gradients:
        """Ready to make them."""
        make = _by_vmap if self.way == "vmap" else _one_by_one
        return make(context, checkpoint, function, self.dtype, self.precision)


def layer_gradients(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    layers: Collection[str] | None = None,
    beside: Collection[BatchFunction] = (),
    memory_bytes: int = GRADIENT_BYTES,
) -> Iterator[list[LayerGradients]]:
    """Gradients of chunks of examples, layer by layer: factors, or dense ones where a wanted layer has none.

    Args:
        context: model and device.
        checkpoint: the parameters.
        function: function of (outputs, targets) → (n,).
        examples: n of them.
        layers: those that are wanted; all where `None`.
        beside: functions whose gradients are multiplied with these, and must have the same form.
        memory_bytes: bounds a chunk of dense gradients; no influence on the result.

    Yields:
        One entry per wanted layer, in the order of the parameters.

    Raises:
        NotApplicableError: single examples have no gradients; see `attriboard.toolkit.reference`.
    """
    factors = factors_of(context, checkpoint, function)
    wanted = layer_parameters(context)
    if layers is not None:
        wanted = {name: own for name, own in wanted.items() if name in layers}
    _remark(context, checkpoint, function)
    if all(factors_of(context, checkpoint, one).cover(wanted) for one in (function, *beside)):
        yield from FactoredGradients(context, checkpoint, function, factors).blocks(examples, layers=layers)
        return
    dense = remembered(context, ("dense", checkpoint, function), lambda: _choose(context, checkpoint, function))
    gradients = dense.open(context, checkpoint, function)
    rows = _dense_rows(context, memory_bytes, torch.float64 if dense.dtype else own_precision(context.model))
    for start in track(range(0, len(examples), rows), "gradients"):
        try:
            pieces = gradients(examples[start : start + rows])
        except Exception as error:
            raise NotApplicableError(
                f"the model cannot be differentiated for examples {start} to {start + rows}: {reason_of(error)}"
            ) from error
        yield [
            LayerGradients(name, tuple(Part(shape, (Dense(with_axis(pieces[one])),)) for one, shape in own.items()))
            for name, own in wanted.items()
        ]


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

    Raises:
        NotApplicableError: see `layer_gradients`.
    """
    dtype = checkpoint.parameters[context.attributed[0]].dtype
    rows = _dense_rows(context, memory_bytes, dtype)
    for chunk in layer_gradients(context, checkpoint, function, examples, memory_bytes=memory_bytes):
        for start in range(0, len(chunk[0]), rows):
            layers = [layer.cut(slice(start, start + rows), dtype) for layer in chunk]
            yield torch.cat([part.gradient() for layer in layers for part in layer.parts], dim=1)


def _dense_rows(context: Context, memory_bytes: int, dtype: torch.dtype) -> int:
    """One block, its pieces before they are joined, and as much for activations and the caller's transform."""
    return max(1, memory_bytes // (4 * count_parameters(context) * dtype.itemsize))


def _choose(context: Context, checkpoint: Checkpoint, function: BatchFunction) -> _Dense:
    """`vmap` where it runs and agrees with the reference, in float64 if possible; one by one otherwise."""
    found = reference(context, checkpoint, function)
    for dtype in dict.fromkeys((found.dtype, None)):
        choice = _Dense("vmap", dtype, found.precision)
        try:
            pieces = choice.open(context, checkpoint, function)(found.examples)
        except Exception as error:
            reason_of(error)
            continue
        if _agree(context, pieces, found, dtype):
            break
    else:
        choice = _Dense("loop", found.dtype, found.precision)
    how = "torch.func.vmap" if choice.way == "vmap" else "one backward pass for each example"
    factors = factors_of(context, checkpoint, function)
    why = next((reason for reason in factors.reasons.values() if reason is not None), "loss or target: no factors")
    context.remark(f"makes gradients by {how}, slower: {why}")
    return choice


def _agree(context: Context, pieces: Mapping[str, Tensor], found: Reference, dtype: torch.dtype | None) -> bool:
    own, whole = own_precision(context.model), lengths(found)
    lower = torch.float64 if dtype == found.dtype == torch.float64 else own
    return all(close(with_axis(pieces[name]), expected, whole, lower) for name, expected in found.gradients.items())


def _remark(context: Context, checkpoint: Checkpoint, function: BatchFunction) -> None:
    """What readers must know of the parameters and the precision."""
    factors = factors_of(context, checkpoint, function)
    sizes = {name: value.numel() for name, value in context.model.named_parameters()}
    total, mine = sum(sizes.values()), count_parameters(context)
    if mine < total:
        context.remark(f"attributes {mine:,} of {total:,} parameters: {_some(context.attributed)}")
    if factors.unreached:
        share = sum(sizes[name] for name in factors.unreached)
        context.remark(f"no gradient reaches {share:,} of {mine:,} parameters: {_some(factors.unreached)}")
    if factors.precision != torch.float64:
        context.remark("differentiates the loss in the model's precision: it does not take float64 outputs")


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:6]) + f" and {len(names) - 6} more" * (len(names) > 6)


def _by_vmap(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    dtype: torch.dtype | None,
    precision: torch.dtype,
) -> Gradients:
    """Every example by itself, all together."""
    model = FunctionalModel(context, checkpoint, dtype)

    def scalar(parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        outputs = model(inputs.unsqueeze(0), parameters)
        return values(function, outputs, targets.unsqueeze(0), precision).squeeze(0)

    gradient = vmap(grad(scalar), in_dims=(None, 0, 0))

    def make(examples: Examples) -> dict[str, Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on operations without a batching rule, which only take longer
            found: dict[str, Tensor] = gradient(model.parameters, model.cast(examples.inputs), examples.targets)
        return found

    return make


def _one_by_one(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    dtype: torch.dtype | None,
    precision: torch.dtype,
) -> Gradients:
    """One ordinary backward pass for each example."""
    model = CopiedModel(context, checkpoint, dtype)

    def make(examples: Examples) -> dict[str, Tensor]:
        found = {name: value.new_zeros(len(examples), *value.shape) for name, value in model.parameters.items()}
        for row in range(len(examples)):
            one = examples[row : row + 1]
            value = values(function, model(one.inputs), one.targets, precision)
            for name, gradient in one_gradient(model, value).items():
                if gradient is not None:
                    found[name][row] = gradient.to_dense() if gradient.is_sparse else gradient
        return found

    return make
