"""Grad-Dot: inner products of gradients, the first-order effect of one step on a training example.

Charpiat et al., "Input similarity from the neural network perspective", NeurIPS 2019 (arXiv 2102.05262);
TracIn (Pruthi et al., arXiv 2002.08484) at a single epoch.

    τ(z', i) = −⟨∇L(z_i), ∇f(z')⟩,  averaged over checkpoints

A gradient step on z_i moves θ by −η∇L(z_i), and f(z') by η τ(z', i).

Deviations: the test side is the gradient of the attributed f instead of the test loss; gradients are exact,
not projected.
"""

from __future__ import annotations

from torch import Tensor

from attriboard.contracts.attributor import Attributor, Context
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.similarity import mean_similarity


class GradDot(Attributor):
    """Inner products of training-loss and target gradients."""

    name = "grad_dot"
    paper = "arXiv:2102.05262"
    family = "gradient similarity"
    hyperparameters = (
        knobs.checkpoints(1, "dattri's benchmark: one model trained on all data"),
        knobs.epoch(),
    )

    def fit(self, context: Context, *, checkpoints: int, epoch: int | None) -> Tensor:
        """Average −⟨∇L(z_i), ∇f(z')⟩ over checkpoints."""
        return mean_similarity(context, cosine=False, checkpoints=checkpoints, epoch=epoch)

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """Gradients and inner products."""
        products = 6 * needs.pairs(context, needs.DOUBLE)
        return {
            "gradients": needs.gradients(context),
            "kept gradients": needs.held(context),
            "inner products": products,
        }

    def score(self, state: Tensor) -> Tensor:
        """The inner products."""
        return state.clone()
