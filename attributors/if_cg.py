"""IF by conjugate gradients: influence functions whose inverse Hessian is applied by a few CG iterations.

Koh & Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017 (arXiv 1703.04730), section 3;
Martens, "Deep learning via Hessian-free optimization", ICML 2010:

    τ_λ(z', i) = −⟨∇L(z_i), x⟩,  x the CG iterate of (H + λI) x = ∇f(z'),  averaged over checkpoints

with H the Hessian of the mean training loss over all training examples.

Deviations: g' is the gradient of the attributed f instead of the test loss. Away from a convex loss H + λI need not
be positive definite, where CG has no meaning: the iteration stops before the first direction of non-positive
curvature, and x = g' where that is the first one (the rule of line-search Newton–CG: Nocedal & Wright, "Numerical
Optimization", algorithm 7.1). The iterates come from Lanczos, which is the same method and gives them for every λ
from one Krylov space. Vectors are float64, and so are products with the Hessian of a network of linear layers:
near-zero curvature amplifies rounding, and in float32 the order of the training examples would move scores by percents
(digits_mlp at λ = 0). Products of other networks have their parameters' precision.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfFits
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.factored import working_precision
from attriboard.toolkit.gradients import count_parameters, per_example_gradients
from attriboard.toolkit.krylov import LANCZOS_BYTES, KrylovSolution, lanczos


class IFCG(MeanOfFits):
    """Influence functions by conjugate gradients on the Hessian."""

    name = "if_cg"
    paper = "arXiv:1703.04730"
    family = "influence function"
    curvature = "hessian"
    hyperparameters = (
        replace(
            knobs.regularization(0.0, "dattri 0.3.0 IFAttributorCG: regularization=0.0"),
            description="λ, absolute, added to the Hessian of the mean loss",
        ),
        Hyperparameter(
            "max_iterations",
            10,
            "dattri 0.3.0 IFAttributorCG: max_iter=10",
            minimum=1,
            grid=(1, 2, 5, 10, 20, 50),
            description="CG iterations, each one product with the Hessian",
        ),
        Hyperparameter(
            "tolerance",
            1e-7,
            "dattri 0.3.0 IFAttributorCG: tol=1e-7",
            stage="score",
            minimum=0.0,
            grid=(0.0, 1e-7, 1e-3, 1e-1),
            description="a test point's iteration ends when its residual is that part of its gradient",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *, max_iterations: int) -> KrylovSolution:
        """The Krylov space of every test gradient."""
        loss = TrainingLoss(context, checkpoint, working_precision(context))
        blocks = per_example_gradients(context, checkpoint, context.target, context.test)
        gradients = torch.cat([block.double() for block in blocks])
        return lanczos(loss, gradients, max_iterations)

    def memory_need(
        self, context: Context, *, max_iterations: int, checkpoints: int, epoch: int | None
    ) -> dict[str, int]:
        """Test gradients, Lanczos vectors, and the products of every basis with the training gradients."""
        n_params, n_test = count_parameters(context), len(context.test)
        steps = min(max_iterations, n_params)
        return {
            "test gradients": 2 * needs.DOUBLE * n_test * n_params + needs.gradients(context),
            "Lanczos vectors": min(LANCZOS_BYTES, 3 * needs.DOUBLE * n_test * n_params),
            "bases": (1 + checkpoints) * steps * needs.pairs(context, needs.DOUBLE),
            "Hessian products": needs.sweep(context, n_test),
            "scores": (2 + checkpoints) * needs.pairs(context, needs.DOUBLE),
        }
