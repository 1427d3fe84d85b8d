"""Similarity of embeddings: the control that knows what the model sees, and nothing of how it was trained.

    τ(z', i) = cos(h' − h̄, h_i − h̄),  averaged over checkpoints

with h the input of the model's last linear layer and h̄ its mean over the training examples. A sequence's h is the
mean over its positions.

The mean is subtracted from both sides as in `input_similarity`: features behind a ReLU are positive, and without it
their cosines are mostly what all examples share. Labels play no part. Without hidden layers h is the input.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.embeddings import embeddings, embeddings_need


class EmbeddingSimilarity(MeanOfScores):
    """Centered cosine of the last hidden features."""

    name = "embedding_similarity"
    family = "control"
    hyperparameters = knobs.models(1, "one model, as for the methods that it is a control for")

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int) -> Tensor:
        """Compare the features.

        Raises:
            NotApplicableError: no linear layer runs in the model.
        """
        train, test = (embeddings(context, checkpoint, side) for side in (context.train, context.test))
        mean = train.mean(0)
        return normalize(test - mean) @ normalize(train - mean).T

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """Both sides in float64, centered and normalized, a pass through the model, and the scores."""
        return {**embeddings_need(context), "scores": 4 * needs.pairs(context, needs.DOUBLE)}
