"""IF explicit: influence functions with the Hessian written out.

Koh & Liang, "Understanding Black-box Predictions via Influence Functions", ICML 2017 (arXiv 1703.04730):

    τ_λ(z', i) = −∇L(z_i)ᵀ (H + λI)⁻¹ ∇f(z'),  averaged over checkpoints

with H the Hessian of the mean training loss. One eigendecomposition serves every λ; all numbers are float64.

Deviations: g' is the gradient of the attributed f instead of the test loss. H of a network has zero and negative
eigenvalues. Negative ones are inverted with their sign, as the formula says: where λ is smaller than the size of
one, H + λI is indefinite, and influence along that direction is reversed. Directions along which H + λI vanishes to
rounding (n_params · 2⁻⁵² of the largest eigenvalue) are left out: λ = 0 is the pseudo-inverse.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfFits
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.spectrum import symmetric_eigen

ROWS = 256
"""Rows of the Hessian computed together."""


@dataclass(frozen=True)
class Decomposition:
    """One checkpoint in H's eigenbasis: σ (n_params,), G (n_params, n_train) and g' (n_test, n_params)."""

    eigenvalues: Tensor
    train: Tensor
    test: Tensor

    def scores(self, regularization: float) -> Tensor:
        """−g'ᵀ (H + λI)⁻¹ Gᵀ, (n_test, n_train)."""
        shifted = self.eigenvalues + regularization
        inverse = shifted.reciprocal().where(shifted.abs() > self._floor, torch.zeros_like(shifted))
        return ((self.test * inverse) @ self.train).neg_()

    @property
    def spectrum(self) -> Spectrum:
        """H's eigenvalues above rounding, and g'."""
        above = self.eigenvalues > self._floor
        return Spectrum.of_curvature(self.eigenvalues[above], self.test[:, above].square(), self.train.shape[1])

    @property
    def _floor(self) -> float:
        """At or below it, the size of an eigenvalue is rounding."""
        return float(len(self.eigenvalues) * torch.finfo(self.eigenvalues.dtype).eps * self.eigenvalues.abs().amax())


class IFExplicit(MeanOfFits):
    """Influence functions with the exact Hessian."""

    name = "if_explicit"
    paper = "arXiv:1703.04730"
    family = "influence function"
    curvature = "hessian"
    hyperparameters = (
        knobs.regularization(0.0, "dattri 0.3.0 IFAttributorExplicit: regularization=0.0"),
        *knobs.ONE_MODEL,
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int) -> Decomposition:
        """Decompose the Hessian."""
        loss = TrainingLoss(context, checkpoint, torch.float64)
        n_params = loss.n_params
        hessian = torch.empty(n_params, n_params, dtype=torch.float64)
        train = torch.empty(n_params, len(context.train), dtype=torch.float64)
        test = torch.empty(n_params, len(context.test), dtype=torch.float64)
        for start in range(0, n_params, ROWS):
            rows = slice(start, min(start + ROWS, n_params))
            directions = torch.zeros(rows.stop - start, n_params, dtype=torch.float64, device=loss.device)
            directions[:, rows].fill_diagonal_(1)
            hessian[rows], train[rows] = loss.products(directions)
            test[rows] = loss.slopes(context.target, context.test, directions)
        if not bool(torch.isfinite(hessian).all()):
            raise NotApplicableError("the Hessian is not finite: the model diverged")
        hessian.add_(hessian.T.clone()).div_(2)
        eigenvalues, vectors = symmetric_eigen(hessian)
        del hessian
        return Decomposition(eigenvalues, vectors.T @ train, test.T @ vectors)

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """The Hessian and its eigenvectors, and gradients before and after the rotation."""
        n_params, n = count_parameters(context), len(context.train) + len(context.test)
        return {
            f"the Hessian of {n_params:,} parameters in float64": 8 * n_params**2,
            "its eigenvectors": 8 * n_params**2,
            "room to decompose it": 8 * n_params**2,
            "gradients": 8 * n_params * n * (1 + checkpoints),
            "Hessian products": needs.sweep(context, min(ROWS, n_params)) + 4 * 8 * min(ROWS, n_params) * n_params,
            "scores": (2 + checkpoints) * needs.pairs(context, needs.DOUBLE),
        }
