"""IFFIM: influence functions with the empirical Fisher information as curvature.

Koh & Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017 (arXiv 1703.04730), in
the form that Wang et al. study (arXiv 2505.24261):

    τ_λ(z', ·) = −G (F + λI)⁻¹ g' = −(K/n + λI)⁻¹ r,   averaged over checkpoints

with G (n_train, n_params) the gradients of the training loss, F = GᵀG/n, K = GGᵀ, g' the gradient of the
attributed f at z', and r = G g'. One eigendecomposition serves every λ.

Deviations: the Fisher matrix stands for the Hessian, as the name says; g' is the gradient of f, which is the
margin on most tasks, instead of the test loss; by default nothing is projected (the kernel form needs no F);
λ = 0 is the pseudo-inverse over the numerical rank. Where the kernel does not fit in memory, its leading eigenpairs or
projected gradients stand for it, and a note says so (`attriboard.toolkit.plan`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.outputs import average_scores, kernel_notes
from attriboard.toolkit.positions import Direction, mean_target_gradient, weighted_gradient
from attriboard.toolkit.solve import solve_checkpoint
from attriboard.toolkit.spectrum import KernelSolution


class IFFIM(MeanOfFits):
    """Influence functions with the empirical Fisher matrix."""

    name = "iffim"
    paper = "arXiv:1703.04730"
    family = "influence function"
    hyperparameters = (
        knobs.regularization(0.0, "dattri 0.3.0 IFAttributor*: regularization=0.0"),
        knobs.projection_dim(None, "the definition: no projection"),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self, context: Context, checkpoint: Checkpoint, stream: int, *, projection_dim: int | None
    ) -> KernelSolution:
        """Solve one checkpoint's kernel."""
        functions = context.loss, context.target
        return solve_checkpoint(context, checkpoint, *functions, projection_dim=projection_dim, stream=stream)

    def memory_need(
        self, context: Context, *, projection_dim: int | None, checkpoints: int, epoch: int | None
    ) -> dict[str, int]:
        """One kernel at work and the solutions of all."""
        return needs.kernels(context, projection_dim, checkpoints)

    def score(self, state: Fits, *, regularization: float) -> Tensor:
        """Average τ_λ over checkpoints, on disk where it does not fit in memory."""
        return average_scores(state.models, regularization, state.context.memory_bytes)

    def directions(
        self,
        context: Context,
        state: Fits,
        tests: Sequence[int],
        *,
        regularization: float,
        projection_dim: int | None,
        checkpoints: int,
        epoch: int | None,
    ) -> list[Direction]:
        """The direction (F + λI)⁻¹ g' = (g' + Gᵀτ_λ/n)/λ, divided by the number of checkpoints.

        At λ = 0 it is F⁺ g' = Gᵀ V diag(σ)⁻² c/n, see `attriboard.toolkit.spectrum`.
        """
        chosen = context.select_checkpoints(checkpoints, epoch=epoch)
        if any(solution.note for solution in state.models) or (
            projection_dim is not None and projection_dim < count_parameters(context)
        ):
            raise NotApplicableError("tokens have scores with the exact kernel only; leave projection_dim out")
        rows, n = list(tests), len(context.train)
        found = []
        for checkpoint, solution in zip(chosen, state.models, strict=True):
            if regularization:
                weights = solution.double().scores(regularization)[rows].mean(0)
            else:
                coefficients = solution.spectrum.coefficients[rows].mean(0)
                weights = solution.vectors.double() @ (coefficients / solution.spectrum.eigenvalues**2)
            vector = weighted_gradient(context, checkpoint, context.loss, context.train, weights / n)
            if regularization:
                vector = (mean_target_gradient(context, checkpoint, tests) + vector) / regularization
            found.append((checkpoint, vector / len(chosen)))
        return found

    def notes(self, state: Fits) -> tuple[str, ...]:
        """What stands for the exact kernel."""
        return kernel_notes(state.models)
