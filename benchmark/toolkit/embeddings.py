"""What enters a model's last linear layer: its embeddings of examples, and the features of methods that replace it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import needs
from attriboard.toolkit.memory import affordable_rows
from attriboard.toolkit.reference import runnable

NUMBERS = 64 * 2**20
"""Activations of all examples of a forward pass; no influence on the result."""


def embeddings(context: Context, checkpoint: Checkpoint, examples: Examples) -> Tensor:
    """Inputs of the linear layer that runs last, (n, d), float64; of a sequence their mean over positions.

    Raises:
        NotApplicableError: no linear layer runs in the model.
    """
    inputs = (inputs.double() for _, inputs, _ in _passes(context, checkpoint, examples))
    return torch.cat([one if one.dim() == 2 else one.flatten(1, -2).mean(1) for one in inputs])


def head_inputs(context: Context, checkpoint: Checkpoint, examples: Examples) -> Tensor:
    """The same for a model that ends with this layer, at one position: with a 1 appended where it has a bias.

    Raises:
        NotApplicableError: the model does not end with a linear layer, or runs it at several positions.
    """
    blocks = []
    for layer, inputs, outputs in _passes(context, checkpoint, examples):
        if inputs.dim() != 2 or layer.out_features != outputs.shape[-1] or outputs.dim() != 2:
            raise NotApplicableError("the model does not end with a linear layer at one position")
        ones = inputs.new_ones(len(inputs), int(layer.bias is not None))
        blocks.append(torch.cat([inputs, ones], 1).double())
    return torch.cat(blocks)


def class_labels(context: Context) -> tuple[Tensor, Tensor]:
    """Classes of the training and the test examples.

    Raises:
        NotApplicableError: targets are not one class per example.
    """
    sides = context.train.targets, context.test.targets
    if any(one.dim() != 1 or one.is_floating_point() for one in sides):
        raise NotApplicableError("targets are not one class per example")
    return sides


def embeddings_need(context: Context) -> dict[str, int]:
    """Embeddings of both sides in a few copies, and a pass through the model."""
    layers = [module for module in context.model.modules() if isinstance(module, nn.Linear)]
    width = 1 + max((layer.in_features for layer in layers), default=0)
    size = 6 * needs.DOUBLE * width * (len(context.train) + len(context.test))
    return {"embeddings": size, "a pass through the model": needs.gradients(context)}


@torch.no_grad()
def _passes(context: Context, checkpoint: Checkpoint, examples: Examples) -> Iterator[tuple[nn.Linear, Tensor, Tensor]]:
    """Blocks of examples: the linear layer that runs last, its inputs, and the model's outputs."""
    seen: list[tuple[nn.Linear, Tensor]] = []

    def record(module: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
        seen.append((module, inputs[0]))

    model = runnable(context, checkpoint)
    rows = affordable_rows(model, examples.inputs[:1], NUMBERS)
    layers = [module for module in model.module.modules() if isinstance(module, nn.Linear)]
    for start in range(0, len(examples), rows):
        handles = [layer.register_forward_pre_hook(record) for layer in layers]
        try:
            outputs = model(examples[start : start + rows].inputs)
        finally:
            for handle in handles:
                handle.remove()
        if not seen:
            raise NotApplicableError("the model has no linear layer, whose input would be the embedding")
        yield (*seen[-1], outputs)
        seen.clear()
