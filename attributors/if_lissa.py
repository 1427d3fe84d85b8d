"""IF by LiSSA: influence functions whose inverse Hessian is applied by a stochastic Neumann series.

Koh & Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017 (arXiv 1703.04730), section 3;
the series is that of Agarwal, Bullins & Hazan (arXiv 1602.03943), see `attriboard.toolkit.lissa`:

    τ(z', i) = −⟨∇L(z_i), v_T / s⟩,   v_t = g' + v_{t−1} − (H_S + λI) v_{t−1} / s,   v_0 = g' = ∇f(z'),

T the recursion depth, s the scaling, S a new random batch at every step; averaged over repeats and checkpoints.

Deviations: g' is the gradient of the attributed f instead of the test loss; λ is absolute (dattri's is damping ×
scaling); all test points see the same batches; a batch has no example twice; a series that diverges is a failure with a
reason, not a score. Numbers have the precision of the model's parameters.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from attriboard.contracts.attributor import Attributor, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import GRADIENT_BYTES, count_parameters, per_example_gradients
from attriboard.toolkit.lissa import lissa


class IFLiSSA(Attributor):
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
        knobs.checkpoints(1, "dattri's benchmark: one model trained on all data"),
        knobs.epoch(),
    )

    def fit(
        self,
        context: Context,
        *,
        regularization: float,
        scaling: float,
        recursion_depth: int,
        batch_size: int,
        repeats: int,
        checkpoints: int,
        epoch: int | None,
    ) -> Tensor:
        """Run the series for every test gradient, then take products with all training gradients."""
        total = torch.zeros(len(context.test), len(context.train), device=context.device)
        for stream, checkpoint in enumerate(context.select_checkpoints(checkpoints, epoch=epoch)):
            loss = TrainingLoss(context, checkpoint)
            blocks = per_example_gradients(context, checkpoint, context.target, context.test)
            solved = [
                lissa(
                    loss,
                    block,
                    regularization=regularization,
                    scaling=scaling,
                    depth=recursion_depth,
                    batch_size=batch_size,
                    repeats=repeats,
                    seed=(context.seed, stream),
                )
                for block in blocks
            ]
            total -= torch.cat([loss.slopes(context.loss, context.train, block) for block in solved])
        return total / checkpoints

    def memory_need(self, context: Context, **others: object) -> dict[str, int]:
        """Test gradients before and after, and what the series holds."""
        n_params, n_test = count_parameters(context.checkpoints[0]), len(context.test)
        return {
            "test gradients": 2 * needs.FLOAT * n_test * n_params + needs.gradients(context),
            "terms of the series": 6 * min(GRADIENT_BYTES // 4, needs.FLOAT * n_test * n_params),
            "Hessian products": needs.sweep(context, n_test),
            "scores": 4 * needs.pairs(context),
        }

    def score(self, state: Tensor) -> Tensor:
        """The influences."""
        return state.clone()
