"""TRAK: influence in the kernel of randomly projected margin gradients, averaged over models.

Park et al., "TRAK: Attributing Model Behavior at Scale", ICML 2023 (arXiv 2303.14186):

    τ_λ(z', i) = mean_c[ φ_c(z')ᵀ (Φ_cᵀΦ_c/n + λI)⁻¹ φ_c(z_i) ] · mean_c[ 1 − p_c(z_i) ]

with Φ_c (n_train, d_proj) the projected gradients of the margin m = log p/(1 − p) at checkpoint c, one
projection per checkpoint, and 1 − p = sigmoid(−m). In kernel form, with K = ΦΦᵀ and r = Φ φ(z'): (K/n + λI)⁻¹
r · mean(1 − p).

Deviations: φ(z') is the gradient of the attributed f, which is the margin itself on most tasks and a multiple
of its gradient where f is minus the loss; the Gram is divided by n, so that λ means the same as elsewhere (at
λ = 0 this only scales the scores; traker and dattri do not divide); the projection is a randomized Fourier
transform, not Rademacher; λ = 0 is the pseudo-inverse over the numerical rank; scores are not sparsified.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.outputs import kernel_notes
from attriboard.toolkit.running import evaluate
from attriboard.toolkit.solve import solve_checkpoint
from attriboard.toolkit.spectrum import KernelSolution


@dataclass(frozen=True)
class Weighted:
    """One checkpoint: its solved kernel, and 1 − p of the training examples (n_train,)."""

    solution: KernelSolution
    error_probability: Tensor

    @property
    def spectrum(self) -> Spectrum:
        """Of the margin kernel, before the weighting by 1 − p."""
        return self.solution.spectrum

    def scores(self, regularization: float) -> Tensor:
        """−φ(z')ᵀ (ΦᵀΦ/n + λI)⁻¹ φ(z_i)."""
        return self.solution.scores(regularization)


class TRAK(MeanOfFits):
    """Tracing with the randomly projected after kernel."""

    name = "trak"
    paper = "arXiv:2303.14186"
    family = "influence function"
    hyperparameters = (
        knobs.regularization(0.0, "traker 0.3: lambda_reg=0.0"),
        knobs.projection_dim(2048, "traker 0.3: proj_dim=2048"),
        knobs.checkpoints(5, "arXiv 2303.14186 averages over independent models; five is what a task card offers"),
        Hyperparameter(
            "checkpoint_data",
            "half",
            "arXiv 2303.14186 and dattri's benchmark: models trained on random half-subsets",
            choices=("full", "half"),
            grid=("full", "half"),
            description="whether the models were trained on all training examples or on random subsets",
        ),
        knobs.epoch(),
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *, projection_dim: int | None) -> Weighted:
        """Solve one checkpoint's kernel and weigh the training examples."""
        functions = context.margin, context.target
        solution = solve_checkpoint(context, checkpoint, *functions, projection_dim=projection_dim, stream=stream)
        return Weighted(solution, _error(context, checkpoint))

    def memory_need(
        self, context: Context, *, projection_dim: int | None, checkpoints: int, **others: object
    ) -> dict[str, int]:
        """One kernel at work and the solutions of all."""
        return needs.kernels(context, projection_dim, checkpoints)

    def score(self, state: Fits, *, regularization: float) -> Tensor:
        """Average over checkpoints, each factor by itself."""
        weights = torch.stack([one.error_probability for one in state.models]).mean(0).float()
        return self.total(state, regularization=regularization).mul_(weights / -len(state.models))

    def notes(self, state: Fits) -> tuple[str, ...]:
        """What stands for an exact kernel, where nothing is projected."""
        return kernel_notes([one.solution for one in state.models])


def _error(context: Context, model: Checkpoint) -> Tensor:
    """1 − p of every training example (n_train,), or −∂loss/∂margin where the margin is no log-odds."""
    if context.error is None:
        return torch.sigmoid(-evaluate(context, model, context.margin, context.train))
    return evaluate(context, model, context.error, context.train)
