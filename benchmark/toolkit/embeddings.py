"""What enters a model's last linear layer: its embeddings of examples, and the features of methods that replace it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import needs
from attriboard.toolkit.reference import few_examples, remembered, tolerance_of
from attriboard.toolkit.running import Forward, forward_of

NUMBERS = 64 * 2**20
"""Activations of all examples of a pass; no influence on the result."""


def embeddings(context: Context, checkpoint: Checkpoint, examples: Examples) -> Tensor:
    """Inputs of the linear layer that runs last, (n, d), float64; of a sequence their mean over positions.

    Raises:
        NotApplicableError: no linear layer runs in the model, or its first axis is not that of the examples.
    """
    inputs = (one.inputs.double() for one in _passes(context, checkpoint, examples))
    return torch.cat([one if one.dim() == 2 else one.flatten(1, -2).mean(1) for one in inputs])


def head_inputs(context: Context, checkpoint: Checkpoint, examples: Examples) -> Tensor:
    """The same for a model that ends with this layer, at one position: with a 1 appended where it has a bias.

    Raises:
        NotApplicableError: the model does not end with a linear layer, or runs it at several positions.
    """
    blocks = []
    for one in _passes(context, checkpoint, examples):
        if one.inputs.dim() != 2 or not one.ends:
            raise NotApplicableError("the model does not end with a linear layer at one position")
        ones = one.inputs.new_ones(len(one.inputs), int(one.layer.bias is not None))
        blocks.append(torch.cat([one.inputs, ones], 1).double())
    return torch.cat(blocks)


def class_labels(context: Context) -> tuple[Tensor, Tensor]:
    """Classes of the training and the test examples.

    Raises:
        NotApplicableError: targets are not one class per example.
    """
    sides = context.train.targets, context.test.targets
    if any(one.dim() != 1 or one.is_floating_point() for one in sides):
        raise NotApplicableError("targets are not one class per example")
    if (lowest := min(int(one.min()) for one in sides)) < 0:
        raise NotApplicableError(f"targets are not one class per example: {lowest} is none")
    return sides


def embeddings_need(context: Context) -> dict[str, int]:
    """Embeddings of both sides in a few copies, and a pass through the model."""
    layers = [module for module in context.model.modules() if isinstance(module, nn.Linear)]
    width = 1 + max((layer.in_features for layer in layers), default=0)
    size = 6 * needs.DOUBLE * width * (len(context.train) + len(context.test))
    return {"embeddings": size, "a pass through the model": needs.gradients(context)}


@dataclass(frozen=True)
class _Pass:
    """Some examples through a model: the linear layer that runs last, its inputs, and whether its outputs are all."""

    layer: nn.Linear
    inputs: Tensor
    ends: bool


def _passes(context: Context, checkpoint: Checkpoint, examples: Examples) -> Iterator[_Pass]:
    """Blocks of examples, a row of inputs for each.

    Raises:
        NotApplicableError: no linear layer runs, or its first axis is not that of the examples.
    """
    forward = forward_of(context, checkpoint)
    by_one = remembered(context, ("embeddings", checkpoint), lambda: _only_alone(context, forward))
    for batch in forward.batches(examples, 1 if by_one else None, numbers=NUMBERS):
        found = _pass(forward, batch)
        _check_rows(found.inputs, len(batch))
        yield found


def _only_alone(context: Context, forward: Forward) -> bool:
    """Whether what enters the layer for a batch is not what enters it for single examples."""
    few = few_examples(context)
    singles = [_pass(forward, few[row : row + 1]).inputs for row in range(len(few))]
    for one in singles:
        _check_rows(one, 1)
    if not forward.batched:
        return True
    together, alone = _pass(forward, few).inputs, torch.cat(singles)
    scale = float(alone.abs().max()) * tolerance_of(context)
    return together.shape != alone.shape or not torch.allclose(together, alone, rtol=0, atol=scale, equal_nan=True)


def _check_rows(inputs: Tensor, n: int) -> None:
    if inputs.dim() < 2 or len(inputs) != n:
        raise NotApplicableError(
            f"the last linear layer sees {tuple(inputs.shape)} for {n} example{'s' * (n > 1)}: its first axis must be "
            "that of the examples, and its input their embedding"
        )


@torch.no_grad()
def _pass(forward: Forward, batch: Examples) -> _Pass:
    last: list[tuple[nn.Linear, Tensor, Tensor]] = []

    def record(module: nn.Linear, inputs: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        # A copy: what follows may work in place.
        last[:] = [(module, next(iter((*inputs, *named.values()))), output.clone())]

    layers = [module for module in forward.model.module.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_hook(record, with_kwargs=True) for layer in layers]
    try:
        outputs = forward.model(batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not last:
        raise NotApplicableError("the model has no linear layer, whose input would be the embedding")
    ((layer, inputs, output),) = last
    return _Pass(layer, inputs, isinstance(outputs, Tensor) and torch.equal(outputs, output))
