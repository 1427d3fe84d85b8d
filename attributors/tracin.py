"""TracIn: inner products of gradients, summed over the epochs of a run.

Pruthi et al., "Estimating Training Data Influence by Tracing Gradient Descent", NeurIPS 2020 (arXiv 2002.08484),
TracInCP:

    τ(z', i) = −Σ_t η_t ⟨∇L(z_i; θ_t), ∇f(z'; θ_t)⟩,  averaged over runs

over the checkpoints θ_t that were kept of a run, up to `epoch`, with η_t the learning rate of the last update before
it.

Deviations: η_t is relative to the recipe's largest, and 1 for models of which no run is known; the test side is the
gradient of the attributed f instead of the test loss; with `normalize`, which the paper does not have, gradients
are divided by their lengths; the optional projection is a randomized Fourier transform.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.positions import Direction, mean_target_gradient
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
        kept = _kept(context, run)
        total = torch.zeros(len(context.test), len(context.train), dtype=torch.float64, device=context.device)
        for checkpoint in kept:
            seed = (context.seed, checkpoint.seed, checkpoint.epoch)
            found = gradient_similarity(context, checkpoint, cosine=normalize, projection_dim=projection_dim, seed=seed)
            total.sub_(found, alpha=relative_rate(context, checkpoint))
        return total

    def directions(
        self,
        context: Context,
        state: Tensor,
        tests: Sequence[int],
        *,
        normalize: bool,
        projection_dim: int | None,
        checkpoints: int,
        epoch: int | None,
    ) -> list[Direction]:
        """The direction η g' at each kept epoch, divided by the number of runs."""
        if normalize or projection_dim is not None:
            raise NotApplicableError("tokens have scores without normalize and projection_dim only")
        runs = context.select_checkpoints(checkpoints, epoch=epoch)
        kept = [one for run in runs for one in _kept(context, run)]
        rates = [relative_rate(context, one) / len(runs) for one in kept]
        return [(one, mean_target_gradient(context, one, tests) * rate) for one, rate in zip(kept, rates, strict=True)]

    def memory_need(self, context: Context, *, projection_dim: int | None, **others: object) -> dict[str, int]:
        """Gradients, and inner products of two models at a time."""
        return needs.gradient_similarity(context, projection_dim)


def _kept(context: Context, run: Checkpoint) -> list[Checkpoint]:
    """The epochs of a run that were kept, up to that of the checkpoint."""
    own = [one for one in context.checkpoints if one.indices is None and one.seed == run.seed]
    return [one for one in own if one.epoch <= run.epoch]


def relative_rate(context: Context, checkpoint: Checkpoint) -> float:
    """The learning rate of the last update before a checkpoint, relative to its run's largest; 1 without a run."""
    try:
        run = context.run_of(checkpoint)
    except NotApplicableError:
        return 1.0
    return run.rates[checkpoint.epoch * run.steps_per_epoch - 1] / run.recipe.learning_rate
