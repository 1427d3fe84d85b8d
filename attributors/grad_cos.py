"""Grad-Cos: cosines of gradients.

Charpiat et al., "Input similarity from the neural network perspective", NeurIPS 2019 (arXiv 2102.05262), whose
symmetric similarity divides by both lengths:

    τ(z', i) = −⟨∇L(z_i), ∇f(z')⟩ / (‖∇L(z_i)‖ ‖∇f(z')‖),  averaged over checkpoints

Unlike inner products, cosines are not led by the few training examples with large gradients.

Deviations: the test side is the gradient of the attributed f instead of the network's output; gradients are
exact, not projected; an example without a gradient scores 0.
"""

from __future__ import annotations

from torch import Tensor

from attriboard.contracts.attributor import Attributor, Context
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.similarity import mean_similarity


class GradCos(Attributor):
    """Cosines of training-loss and target gradients."""

    name = "grad_cos"
    paper = "arXiv:2102.05262"
    family = "gradient similarity"
    hyperparameters = (
        knobs.checkpoints(1, "dattri's benchmark: one model trained on all data"),
        knobs.epoch(),
    )

    def fit(self, context: Context, *, checkpoints: int, epoch: int | None) -> Tensor:
        """Average the cosines over checkpoints."""
        return mean_similarity(context, cosine=True, checkpoints=checkpoints, epoch=epoch)

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """Gradients and cosines."""
        products = (6 + checkpoints) * needs.pairs(context, needs.DOUBLE)
        return {
            "gradients": needs.gradients(context),
            "kept gradients": needs.held(context),
            "inner products": products,
        }

    def score(self, state: Tensor) -> Tensor:
        """The cosines."""
        return state.clone()
