"""IF by Arnoldi: influence functions in the space of the Hessian's largest eigenvalues.

Schioppa, Zablotskaia, Vilar & Sokolov, "Scaling Up Influence Functions", AAAI 2022 (arXiv 2112.03052):

    τ_λ(z', i) = −Σ_j ⟨∇L(z_i), u_j⟩ ⟨u_j, ∇f(z')⟩ / (σ_j + λ),  averaged over checkpoints

over the largest Ritz pairs (σ_j, u_j) of H, the Hessian of the mean training loss, in the Krylov space of a random
start. What lies outside their span is left out, as in the paper.

Deviations: g' is the gradient of the attributed f instead of the test loss; the Hessian being symmetric, its
projection is symmetrized, so that Ritz values are real; Ritz values that are negative or zero to rounding are
dropped (the paper ranks by size; at a minimum there would be none, and a negative one lets H + λI be singular); the
whole training set is used. The basis is float64, and so are products with the Hessian of a network of linear layers;
those of other networks have their parameters' precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfFits
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.krylov import krylov_basis, rounding


@dataclass(frozen=True)
class Projected:
    """One checkpoint in Ritz coordinates: σ (m,), of training (m, n_train) and of test gradients (m, n_test)."""

    eigenvalues: Tensor
    train: Tensor
    test: Tensor

    @property
    def spectrum(self) -> Spectrum:
        """The Ritz values that are kept, with g' along their vectors."""
        return Spectrum.of_curvature(self.eigenvalues, self.test.T.square(), self.train.shape[1], whole=False)

    def scores(self, regularization: float) -> Tensor:
        """τ_λ (n_test, n_train)."""
        return ((self.test / (self.eigenvalues + regularization)[:, None]).T @ self.train).neg_()


class IFArnoldi(MeanOfFits):
    """Influence functions in the Hessian's dominant eigenspace."""

    name = "if_arnoldi"
    paper = "arXiv:2112.03052"
    family = "influence function"
    curvature = "hessian"
    hyperparameters = (
        knobs.regularization(0.0, "dattri 0.3.0 IFAttributorArnoldi: regularization=0.0"),
        Hyperparameter(
            "projection_dim",
            100,
            "dattri 0.3.0 IFAttributorArnoldi: proj_dim=100",
            minimum=1,
            grid=(10, 20, 50, 100, 200),
            description="how many of the largest eigenvalues are kept",
        ),
        Hyperparameter(
            "max_iterations",
            100,
            "dattri 0.3.0 IFAttributorArnoldi: max_iter=100",
            minimum=1,
            grid=(25, 50, 100, 200),
            description="dimension of the Krylov space, each one product with the Hessian",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self, context: Context, checkpoint: Checkpoint, stream: int, *, projection_dim: int, max_iterations: int
    ) -> Projected:
        """Find the Ritz pairs, and project both sides."""
        loss = TrainingLoss(context, checkpoint, torch.float64)
        generator = torch.Generator().manual_seed(context.seed + 1_000_003 * stream)
        start = torch.randn(loss.n_params, dtype=torch.float64, generator=generator).to(context.device)
        Q, projected, slopes = krylov_basis(loss, start, max_iterations)
        eigenvalues, rotation = torch.linalg.eigh(projected)
        floor = rounding(loss.n_params, loss.dtype) * eigenvalues.abs().amax()
        if not eigenvalues[-1] > floor:
            raise NotApplicableError("the Hessian has no positive eigenvalue in the Krylov space")
        kept = eigenvalues.argsort(descending=True)[:projection_dim]
        kept = kept[eigenvalues[kept] > floor]
        rotation = rotation[:, kept].T
        test = loss.slopes(context.target, context.test, rotation @ Q)
        return Projected(eigenvalues[kept], rotation @ slopes, test)

    def memory_need(
        self, context: Context, *, projection_dim: int, max_iterations: int, checkpoints: int, epoch: int | None
    ) -> dict[str, int]:
        """The Krylov basis and its products with the Hessian and with all gradients."""
        n_params, n = count_parameters(context), len(context.train) + len(context.test)
        steps = min(max_iterations, n_params)
        return {
            "the Krylov basis": 4 * needs.DOUBLE * steps * n_params,
            "products with gradients": (2 + checkpoints) * needs.DOUBLE * steps * n,
            "Hessian products": needs.sweep(context, steps),
            "scores": (2 + checkpoints) * needs.pairs(context, needs.DOUBLE),
        }
