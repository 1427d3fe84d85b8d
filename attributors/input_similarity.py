"""Similarity of inputs: the control that never looks at the model.

τ(z', i) = cos(x' − x̄, x_i − x̄), with x flattened and x̄ the mean training input. For blocks of tokens, inputs of
whole numbers, x is the bag of tokens: how often each token occurs, whatever its place.

The mean is subtracted from both sides: without it the cosine of two images is mostly the background they
share. Labels play no part. Every similarity control here is centered in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from attriboard.contracts.attributor import Context
from attriboard.toolkit import needs
from attriboard.toolkit.averaging import FixedScores


class InputSimilarity(FixedScores):
    """Centered cosine of the inputs."""

    name = "input_similarity"
    family = "control"

    def fit(self, context: Context) -> Tensor:
        """Compare the inputs."""
        train, test = context.train.inputs.flatten(1), context.test.inputs.flatten(1)
        if not train.is_floating_point():
            both = bags(torch.cat([train, test]))
            train, test = both[: len(train)], both[len(train) :]
        mean = train.double().mean(0)
        train, test = normalize(train.double() - mean), normalize(test.double() - mean)
        return (test @ train.T).float()

    def memory_need(self, context: Context) -> dict[str, int] | None:
        """Both sides in float64, centered and normalized, and the scores."""
        if not context.train.inputs.is_floating_point():
            return None
        n_inputs = context.train.inputs[0].numel()
        inputs = 4 * needs.DOUBLE * n_inputs * (len(context.train) + len(context.test))
        return {"inputs": inputs, "scores": 2 * needs.pairs(context, needs.DOUBLE)}


def bags(tokens: Tensor) -> Tensor:
    """How often each token that occurs is in each block: (n, n_tokens), float64, of tokens (n, T)."""
    vocabulary, columns = torch.unique(tokens, return_inverse=True)
    counts = torch.zeros(len(tokens), len(vocabulary), dtype=torch.float64, device=tokens.device)
    return counts.scatter_add_(1, columns, torch.ones_like(columns, dtype=torch.float64))
