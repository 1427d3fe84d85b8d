"""TracIn: inner products of gradients, summed over the epochs of a run.

Pruthi et al., "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020 (arXiv 2002.08484),
TracInCP:

    τ(z', i) = −Σ_t η_t ⟨∇L(z_i; θ_t), ∇f(z'; θ_t)⟩,  averaged over runs

over the checkpoints θ_t that were kept of a run, up to `epoch`.

Deviations: η_t = 1, since tasks train at a constant learning rate, which only scales the scores; the test side is
the gradient of the attributed f instead of the test loss; with `normalize`, which the paper does not have, gradients
are divided by their lengths; the optional projection is a randomized Fourier transform.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.similarity import gradient_similarity


class TracIn(MeanOfScores):
    """Tracing gradient descent over the epochs of a run."""

    name = "tracin"
    paper = "arXiv:2002.08484"
    family = "gradient similarity"
    hyperparameters = (
        Hyperparameter(
            "normalize",
            False,
            "arXiv 2002.08484: inner products",
            grid=(False, True),
            description="whether gradients are divided by their lengths",
        ),
        knobs.projection_dim(None, "arXiv 2002.08484: whole gradients (random projections are an option there)"),
        knobs.checkpoints(1, "arXiv 2002.08484: the checkpoints of one run"),
        knobs.epoch(),
    )

    def fit_one(
        self, context: Context, run: Checkpoint, stream: int, *, normalize: bool, projection_dim: int | None
    ) -> Tensor:
        """Sum over a run's kept epochs, up to that of the checkpoint that was chosen."""
        kept = [one for one in context.checkpoints if one.indices is None and one.seed == run.seed]
        total = torch.zeros(len(context.test), len(context.train), dtype=torch.float64, device=context.device)
        for checkpoint in kept:
            if checkpoint.epoch <= run.epoch:
                seed = (context.seed, checkpoint.seed, checkpoint.epoch)
                total -= gradient_similarity(
                    context, checkpoint, cosine=normalize, projection_dim=projection_dim, seed=seed
                )
        return total

    def memory_need(self, context: Context, *, projection_dim: int | None, **others: object) -> dict[str, int]:
        """Gradients, and inner products of two models at a time."""
        return needs.gradient_similarity(context, projection_dim)
