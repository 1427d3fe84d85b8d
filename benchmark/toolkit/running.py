"""Models run forward: outputs, and values of losses and targets, without gradients.

Before anything is taken from a model, a few examples go through it alone, again, and together: a model that is random,
or whose examples see each other, has no value of an example, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.memory import affordable_rows
from attriboard.toolkit.placed import CopiedModel, FunctionalModel, Runnable, own_precision, values
from attriboard.toolkit.reference import (
    check_independence,
    check_shape,
    few_examples,
    reason_of,
    remembered,
    tolerance_of,
)

NUMBERS = 32 * 2**20
"""Activations of all examples of a pass; no influence on the result."""


@dataclass(frozen=True)
class Forward:
    """A checkpoint's model, as its outputs are made.

    Attributes:
        model: functional where that gives what a copy gives.
        batched: whether it takes several examples at once.
    """

    model: Runnable
    batched: bool

    def batches(self, examples: Examples, rows: int | None = None, *, numbers: int = NUMBERS) -> Iterator[Examples]:
        """Blocks of `rows` examples, or of as many as have this many activations."""
        if not self.batched:
            rows = 1
        elif rows is None:
            rows = affordable_rows(self.model, examples.inputs[:1], numbers)
        for start in range(0, len(examples), rows):
            yield examples[start : start + rows]


def forward_of(context: Context, checkpoint: Checkpoint) -> Forward:
    """The model with a checkpoint's parameters, in their precision.

    Raises:
        NotApplicableError: it does not run, is random, or lets the examples of a batch see each other; or the loss has
            no value for each of them.
    """
    with torch.no_grad():
        functional, batched = remembered(context, ("forward", checkpoint), lambda: _try_few(context, checkpoint))
    return Forward((FunctionalModel if functional else CopiedModel)(context, checkpoint), batched)


@torch.no_grad()
def outputs_of(context: Context, checkpoint: Checkpoint, examples: Examples) -> Tensor:
    """Outputs (n, …) of a few examples.

    Raises:
        NotApplicableError: they are not one tensor; see also `forward_of`.
    """
    forward = forward_of(context, checkpoint)
    found = [forward.model(batch.inputs) for batch in forward.batches(examples)]
    if not all(isinstance(one, Tensor) for one in found):
        raise NotApplicableError(f"the model's output is a {type(found[0]).__name__}: it must be a tensor of logits")
    return torch.cat(found)


@torch.no_grad()
def evaluate(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    *,
    rows: int | None = None,
) -> Tensor:
    """Values (n,) of a function of (outputs, targets), in chunks of `rows` examples, or as many as fit.

    Raises:
        NotApplicableError: see `forward_of`.
    """
    forward = forward_of(context, checkpoint)
    return torch.cat([function(forward.model(one.inputs), one.targets) for one in forward.batches(examples, rows)])


def accepted_precision(function: BatchFunction, outputs: Tensor, targets: Tensor) -> torch.dtype:
    """Float64 where a function takes outputs of it; else that of the outputs."""
    try:
        values(function, outputs.detach(), targets, torch.float64)
    except Exception as error:
        reason_of(error)
        return outputs.dtype
    return torch.float64


def _try_few(context: Context, checkpoint: Checkpoint) -> tuple[bool, bool]:
    """Whether a functional call gives what a copy gives, and whether batches are taken."""
    few = few_examples(context)
    copied = CopiedModel(context, checkpoint)
    singles = [few[row : row + 1] for row in range(len(few))]
    try:
        expected = [copied(one.inputs) for one in singles]
        losses = [values(context.loss, made, one.targets, None) for made, one in zip(expected, singles, strict=True)]
    except Exception as error:
        raise NotApplicableError(
            f"the model or its loss does not run on one example, inputs {tuple(few.inputs[:1].shape)}: "
            f"{reason_of(error)}"
        ) from error
    for loss in losses:
        check_shape(loss, 1)
    alone = torch.cat(losses).double()
    batched = check_independence(copied, context.loss, few, alone, None, tolerance_of(context))
    try:
        functional = FunctionalModel(context, checkpoint)
        inputs = few.inputs if batched else singles[0].inputs
        return _same(functional(inputs), copied(inputs), own_precision(context.model)), batched
    except Exception as error:
        reason_of(error)
        return False, batched


def _same(actual: Any, expected: Any, precision: torch.dtype) -> bool:
    """Outputs of any form, up to rounding."""
    if isinstance(expected, Tensor):
        if not isinstance(actual, Tensor) or actual.shape != expected.shape:
            return False
        if not expected.is_floating_point():
            return torch.equal(actual, expected)
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        tolerance = 10 * torch.finfo(precision).eps ** 0.5
        return torch.allclose(actual, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if isinstance(expected, Mapping):
        return all(_same(actual[name], value, precision) for name, value in expected.items())
    if isinstance(expected, (tuple, list)):
        return all(_same(*pair, precision) for pair in zip(actual, expected, strict=True))
    return True
