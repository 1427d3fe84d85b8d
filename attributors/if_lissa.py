"""IF by LiSSA: influence functions whose inverse Hessian is applied by a stochastic Neumann series.

Koh & Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017 (arXiv 1703.04730), section 3;
the series is that of Agarwal, Bullins & Hazan, "Second-Order Stochastic Optimization for Machine Learning in Linear
Time", JMLR 2017 (arXiv 1602.03943):

    τ(z', i) = −⟨∇L(z_i), v_T / s⟩,   v_t = g' + v_{t−1} − (H_S + λI) v_{t−1} / s,   v_0 = g' = ∇f(z'),

T the recursion depth, s the scaling, S a new random batch at every step; averaged over repeats and checkpoints. In
expectation the fixed point is exact. The series converges where every |1 − (σ + λ)/s| < 1.

Deviations: g' is the gradient of the attributed f instead of the test loss; λ is absolute (dattri's is damping ×
scaling); all test points see the same batches; a batch has no example twice; a series that diverges is a failure with a
reason, not a score. Numbers have the precision of the model's parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.factored import GRADIENT_BYTES
from attriboard.toolkit.gradients import count_parameters, per_example_gradients

CACHE_BYTES = 28 * 2**20
"""Of directions that take all steps together: a step hardly computes, it reads and writes them a few times."""

EXCESS = 10.0
"""How far beyond the bound of a contraction ‖v‖ may go: single batches may expand a little where the mean does not."""


@dataclass(frozen=True)
class Series:
    """The Neumann series of one checkpoint.

    Attributes:
        loss: whose Hessian is meant.
        regularization, scaling, depth: λ, s, T.
        batch_size: examples per batch, drawn without replacement; n_train or more is the full Hessian.
        repeats: independent series, averaged.
        seed: of the batches.
    """

    loss: TrainingLoss
    regularization: float
    scaling: float
    depth: int
    batch_size: int
    repeats: int
    seed: tuple[int, ...]

    def solve(self, vectors: Tensor) -> Tensor:
        """v_T / s, about (H + λI)⁻¹ b, of every row b of `vectors` (k, n_params); all rows see the same batches.

        Raises:
            NotApplicableError: the series diverged: ‖v‖ left what terms that do not grow can sum to.
        """
        total = torch.zeros_like(vectors)
        together = max(1, CACHE_BYTES // (vectors.element_size() * vectors.shape[1]))
        for sums, rows in zip(torch.split(total, together), torch.split(vectors, together), strict=True):
            norms = rows.norm(dim=1)
            for repeat in track(range(self.repeats), "repeats"):
                random = np.random.default_rng((*self.seed, repeat))
                estimate = rows.clone()
                for step in track(range(1, self.depth + 1), "steps"):
                    change, _ = self.loss.products(estimate, self._batch(random))
                    estimate.mul_(1 - self.regularization / self.scaling).add_(rows).sub_(
                        change, alpha=1 / self.scaling
                    )
                    if step % 16 == 0 or step == self.depth:
                        self._check(estimate, norms, step)
                sums += estimate
        return total.div_(self.repeats * self.scaling)

    def _batch(self, random: np.random.Generator) -> Examples | None:
        """Without replacement; `None`, all examples, where there are no more."""
        n = len(self.loss.train)
        if self.batch_size >= n:
            return None
        rows = random.choice(n, self.batch_size, replace=False, shuffle=False)
        return self.loss.train[torch.from_numpy(rows).to(self.loss.device)]

    def _check(self, estimate: Tensor, norms: Tensor, step: int) -> None:
        """If no factor I − (H_S + λI)/s lengthens a vector, ‖v‖ ≤ (step + 1) ‖b‖."""
        growth = float((estimate.norm(dim=1) / norms.clamp_min(torch.finfo(norms.dtype).tiny)).max())
        if not growth <= EXCESS * (step + 1):
            raise NotApplicableError(
                f"diverged: scaling = {self.scaling:g}: after {step} of {self.depth} steps ‖v‖ is {growth:.3g} times "
                "that of the gradient; raise scaling or regularization, or the batch size"
            )


class IFLiSSA(MeanOfScores):
    """Influence functions by stochastic Neumann series."""

    name = "if_lissa"
    paper = "arXiv:1703.04730"
    family = "influence function"
    curvature = "hessian"
    hyperparameters = (
        replace(
            knobs.regularization(0.0, "dattri 0.3.0 IFAttributorLiSSA: damping=0.0"),
            stage="fit",
            description="λ, absolute, added to the Hessian of the mean loss",
        ),
        Hyperparameter(
            "scaling",
            50.0,
            "dattri 0.3.0 IFAttributorLiSSA: scaling=50.0",
            minimum=1e-6,
            grid=(5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0),
            description="s, which must exceed half the largest eigenvalue for the series to converge",
        ),
        Hyperparameter(
            "recursion_depth",
            5000,
            "dattri 0.3.0 IFAttributorLiSSA: recursion_depth=5000",
            minimum=1,
            grid=(100, 300, 1000, 3000, 5000, 10000),
            description="terms of the series",
        ),
        Hyperparameter(
            "batch_size",
            1,
            "dattri 0.3.0 IFAttributorLiSSA: batch_size=1",
            minimum=1,
            grid=(1, 4, 16, 64),
            description="training examples per term; the size of the training set or more gives the full Hessian",
        ),
        Hyperparameter(
            "repeats",
            1,
            "dattri 0.3.0 IFAttributorLiSSA: num_repeat=1",
            minimum=1,
            grid=(1, 3, 10),
            description="independent series that are averaged",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self,
        context: Context,
        checkpoint: Checkpoint,
        stream: int,
        *,
        regularization: float,
        scaling: float,
        recursion_depth: int,
        batch_size: int,
        repeats: int,
    ) -> Tensor:
        """Run the series for every test gradient, then take products with all training gradients."""
        loss = TrainingLoss(context, checkpoint)
        series = Series(loss, regularization, scaling, recursion_depth, batch_size, repeats, (context.seed, stream))
        blocks = per_example_gradients(context, checkpoint, context.target, context.test)
        solved = [series.solve(block) for block in blocks]
        return 0 - torch.cat([loss.slopes(context.loss, context.train, block) for block in solved])  # no negative zeros

    def memory_need(self, context: Context, **others: object) -> dict[str, int]:
        """Test gradients before and after, and what the series holds."""
        n_params, n_test = count_parameters(context), len(context.test)
        return {
            "test gradients": 2 * needs.FLOAT * n_test * n_params + needs.gradients(context),
            "terms of the series": 6 * min(GRADIENT_BYTES // 4, needs.FLOAT * n_test * n_params),
            "Hessian products": needs.sweep(context, n_test),
            "scores": 4 * needs.pairs(context),
        }
