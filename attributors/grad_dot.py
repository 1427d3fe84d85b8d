"""Grad-Dot: inner products of gradients, the first-order effect of one step on a training example.

Charpiat et al., "Input similarity from the neural network perspective", NeurIPS 2019 (arXiv 2102.05262);
TracIn (Pruthi et al., arXiv 2002.08484) at a single epoch.

    τ(z', i) = −⟨∇L(z_i), ∇f(z')⟩,  averaged over checkpoints

A gradient step on z_i moves θ by −η∇L(z_i), and f(z') by η τ(z', i).

Deviations: the test side is the gradient of the attributed f instead of the test loss; gradients are exact,
not projected.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.positions import Direction, mean_target_gradient
from attriboard.toolkit.similarity import gradient_similarity


class GradDot(MeanOfScores):
    """Inner products of training-loss and target gradients."""

    name = "grad_dot"
    paper = "arXiv:2102.05262"
    family = "gradient similarity"
    hyperparameters = knobs.ONE_MODEL
    cosine: ClassVar[bool] = False

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int) -> Tensor:
        """Compare the gradients at one checkpoint."""
        return gradient_similarity(context, checkpoint, cosine=self.cosine).neg_()

    def directions(
        self, context: Context, state: Tensor, tests: Sequence[int], *, checkpoints: int, epoch: int | None
    ) -> list[Direction]:
        """The direction g', divided by the number of checkpoints."""
        if self.cosine:
            return super().directions(context, state, tests)
        chosen = context.select_checkpoints(checkpoints, epoch=epoch)
        return [(one, mean_target_gradient(context, one, tests) / len(chosen)) for one in chosen]

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """Gradients, and inner products."""
        return needs.gradient_similarity(context)
