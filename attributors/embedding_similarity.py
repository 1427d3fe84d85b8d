"""Similarity of embeddings: the control that knows what the model sees, and nothing of how it was trained.

    τ(z', i) = cos(h' − h̄, h_i − h̄),  averaged over checkpoints

with h the input of the model's last linear layer and h̄ its mean over the training examples. A sequence's h is the
mean over its positions.

The mean is subtracted from both sides as in `input_similarity`: features behind a ReLU are positive, and without it
their cosines are mostly what all examples share. Labels play no part. Without hidden layers h is the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.memory import affordable_rows

NUMBERS = 64 * 2**20
"""Activations of all examples of a forward pass; no influence on the result."""


class EmbeddingSimilarity(MeanOfScores):
    """Centred cosine of the last hidden features."""

    name = "embedding_similarity"
    family = "control"
    hyperparameters = (
        knobs.checkpoints(1, "one model, as for the methods that it is a control for"),
        knobs.epoch(),
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int) -> Tensor:
        """Compare the features.

        Raises:
            NotApplicableError: no linear layer runs in the model.
        """
        train, test = (_features(context, checkpoint, side) for side in (context.train, context.test))
        mean = train.mean(0)
        return normalize(test - mean) @ normalize(train - mean).T

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """Both sides in float64, centred and normalised, a pass through the model, and the scores."""
        width = max(
            (module.in_features for module in context.model.modules() if isinstance(module, nn.Linear)), default=0
        )
        embeddings = 6 * needs.DOUBLE * width * (len(context.train) + len(context.test))
        scores = 4 * needs.pairs(context, needs.DOUBLE)
        return {"embeddings": embeddings, "a pass through the model": needs.gradients(context), "scores": scores}


@torch.no_grad()
def _features(context: Context, checkpoint: Checkpoint, examples: Examples) -> Tensor:
    """Inputs of the linear layer that runs last, (n, d), float64."""
    seen: list[Tensor] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    state = {**checkpoint.buffers, **checkpoint.parameters}
    rows = affordable_rows(context.model, state, examples.inputs[:1], NUMBERS)
    layers = [module for module in context.model.modules() if isinstance(module, nn.Linear)]
    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    blocks = []
    try:
        for start in range(0, len(examples), rows):
            seen.clear()
            batch = examples[start : start + rows]
            functional_call(context.model, state, (batch.inputs,))
            if not seen:
                raise NotApplicableError("the model has no linear layer, whose input would be the embedding")
            last = seen[-1].double()
            blocks.append(last if last.dim() == 2 else last.flatten(1, -2).mean(1))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(blocks)
