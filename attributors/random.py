"""Random scores: the control that every method must beat.

τ(z', i) ~ N(0, 1), independent, from the context's seed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attriboard.contracts.attributor import Context
from attriboard.toolkit import needs
from attriboard.toolkit.averaging import FixedScores


class Random(FixedScores):
    """Independent normal scores."""

    name = "random"
    family = "control"
    blind = True

    def fit(self, context: Context) -> Tensor:
        """Draw the scores."""
        generator = torch.Generator().manual_seed(context.seed)
        scores = torch.randn(len(context.test), len(context.train), generator=generator)
        return scores.to(context.device)

    def memory_need(self, context: Context) -> dict[str, int]:
        """The scores, twice."""
        return {"scores": 2 * needs.pairs(context)}
