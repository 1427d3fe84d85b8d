"""Data value embedding: what each step moved, and what later steps left of it.

Wang et al., "Capturing the Temporal Dependence of Training Data Influence", ICLR 2025 (arXiv 2412.09538):

    τ(z', i) = −Σ_{t: i in batch t} (η_t/B_t) g'ᵀ Π_{k>t} (I − η_k H_k) g_{i,t},   averaged over models

with g_{i,t} the gradient of example i at the parameters before update t, g' that of the test point at the end, and H_k
the Fisher matrix (1/B_k) Σ_j g_{j,k} g_{j,k}ᵀ of update k's batch in the place of its Hessian. Here g' goes back
through the run for all test points at once, so that no embedding is stored.

`curvature = none` leaves the product out: what every step moved, as if no other step followed.

Deviations: gradients are exact, not projected; with momentum μ every η counts 1/(1 − μ)-fold, the sum of what a
gradient moves in all later updates. The update of AdamW is not a multiple of the gradient: not applicable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context, Hyperparameter
from attriboard.contracts.run import Run, TrainingState
from attriboard.toolkit import knobs
from attriboard.toolkit.batches import BatchLosses
from attriboard.toolkit.unrolling import Unrolled, batch_at
from attriboard.toolkit.updates import Stack


class DVEmb(Unrolled):
    """Influence along the run, with the Fisher matrix of every batch."""

    name = "dvemb"
    paper = "arXiv:2412.09538"
    family = "unrolled"
    hyperparameters = (
        Hyperparameter(
            "curvature",
            "fisher",
            "arXiv 2412.09538: the Fisher matrix of every step's batch",
            choices=("fisher", "none"),
            grid=("fisher", "none"),
            description="of later steps; none for what each step moved alone",
        ),
        knobs.checkpoints(1, "arXiv 2412.09538: one run"),
        knobs.epoch(),
    )

    def moments(self, run: Run) -> int:
        """None.

        Raises:
            NotApplicableError: the optimizer is not SGD.
        """
        if run.recipe.optimizer != "sgd":
            raise NotApplicableError(f"optimizer {run.recipe.optimizer}: data value embeddings are for SGD")
        return 0

    def follow(
        self,
        context: Context,
        run: Run,
        losses: BatchLosses,
        states: Iterator[TrainingState],
        gradients: Stack,
        scores: Tensor,
        *,
        curvature: Literal["fisher", "none"],
    ) -> None:
        """Take g' back through every update."""
        for state in states:
            batch, rows = batch_at(context, run, losses, state)
            moved = run.rates[state.step] / (1 - run.recipe.momentum) / len(rows)
            slopes = batch.slopes(gradients)
            scores.index_add_(1, rows, slopes.to(scores.dtype), alpha=-moved)
            if curvature == "fisher":
                batch.add_combination(slopes, gradients, -moved)
