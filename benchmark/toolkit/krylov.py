"""Krylov spaces of the Hessian: Lanczos from many starts at once, and one orthonormal basis from one start.

Lanczos and conjugate gradients are one method: after m steps from b, with basis Q and tridiagonal T = Qᵀ H Q, the
CG iterate of (H + λI) x = b is x = Q (T + λI)⁻¹ e₁ ‖b‖, and the basis is the same for every λ. Scores need only
G x, so of the basis only G Q is kept, and every λ costs a product with it.

Paige & Saunders 1975; Golub & Van Loan, "Matrix Computations", section 11.3. The eigenvalues θ of T and the squared
first components of its eigenvectors are nodes and weights of a Gauss quadrature: bᵀ φ(H) b ≈ ‖b‖² Σ_j w_j φ(θ_j), exact
for polynomials φ of degree 2m − 1 (Golub & Meurant 2010, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.progress import track
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.curvature import TrainingLoss

LANCZOS_BYTES = 2 * 2**30
"""Memory for three vectors of n_params per start."""


@dataclass(frozen=True)
class KrylovSolution:
    """Every λ's CG iterates for k right-hand sides b.

    Attributes:
        diagonal: of T (k, m), float64.
        off_diagonal: T_{j,j+1} (k, m), float64; the last is the norm of what m steps have not captured.
        norms: ‖b‖ (k,), float64.
        slopes: G Q (k, m, n_train).
        precision: of the products with H.
    """

    diagonal: Tensor
    off_diagonal: Tensor
    norms: Tensor
    slopes: Tensor
    precision: torch.dtype = torch.float64

    def scores(self, regularization: float, tolerance: float) -> Tensor:
        """−G x (k, n_train), x the last CG iterate of (H + λI) x = b.

        The iteration ends for a right-hand side when its residual is at most `tolerance` ‖b‖, or before the first
        direction along which the curvature is not positive; where that is b itself, x = b.

        Args:
            regularization: λ.
            tolerance: relative size of the residual that is small enough.
        """
        k, m = self.diagonal.shape
        pivots, residual = self.diagonal[:, 0] + regularization, torch.ones_like(self.norms)
        running = (self.norms > 0) & (pivots > 0)
        steps = torch.zeros(k, dtype=torch.int64, device=pivots.device)
        for j in range(m):
            steps += running
            # CG's residual shrinks by β_j over the pivot; CG's step lengths are the pivots' reciprocals.
            residual = residual * self.off_diagonal[:, j] / pivots
            if j + 1 < m:
                pivots = self.diagonal[:, j + 1] + regularization - self.off_diagonal[:, j].square() / pivots
                running = running & (residual > tolerance) & (pivots > 0)
                pivots = pivots.where(running, torch.ones_like(pivots))
        return self._combine(regularization, steps).neg_()

    @property
    def spectrum(self) -> Spectrum:
        """H along every b: nodes and weights of the quadrature, (k, m).

        Raises:
            NotApplicableError: H is not finite, or has no positive node.
        """
        from scipy.linalg import eigh_tridiagonal

        if not bool(self.diagonal.isfinite().all() & self.off_diagonal.isfinite().all()):
            raise NotApplicableError("the Hessian is not finite: the model diverged")
        diagonal, off_diagonal = self.diagonal.cpu().numpy(), self.off_diagonal[:, :-1].cpu().numpy()
        solved = [eigh_tridiagonal(d, e) for d, e in zip(diagonal, off_diagonal, strict=True)]
        nodes = torch.from_numpy(np.stack([values for values, _ in solved]))
        weights = torch.from_numpy(np.stack([vectors[0] ** 2 for _, vectors in solved]))
        squares = weights * self.norms.cpu().square()[:, None]
        floor = rounding(nodes.shape[1], self.precision) * nodes.abs().amax(1, keepdim=True)
        nodes = nodes.where(nodes > floor, torch.zeros_like(nodes))
        return Spectrum.of_curvature(nodes, squares, self.slopes.shape[2])

    def _combine(self, regularization: float, steps: Tensor) -> Tensor:
        """Solve the leading `steps` rows of T + λI; the identity stands for the rest."""
        m = self.diagonal.shape[1]
        inside = torch.arange(m, device=steps.device) < steps[:, None]
        diagonal = (self.diagonal + regularization).where(inside, torch.ones_like(self.diagonal))
        coupling = self.off_diagonal[:, :-1] * inside[:, 1:]
        # T = L D Lᵀ by recursion, all right-hand sides at once. Exact for tridiagonal T, and free of batched LAPACK
        # calls, which were seen to return wrong solutions on two threads.
        pivots, z = diagonal.clone(), torch.zeros_like(diagonal)
        z[:, 0] = self.norms  # with no step taken the identity is what is left of T, and x = b
        for j in range(m - 1):
            lower = coupling[:, j] / pivots[:, j]
            pivots[:, j + 1] -= lower * coupling[:, j]
            z[:, j + 1] = -lower * z[:, j]
        x = z / pivots
        for j in range(m - 2, -1, -1):
            x[:, j] -= coupling[:, j] / pivots[:, j] * x[:, j + 1]
        return torch.einsum("km,kmn->kn", x.to(self.slopes.dtype), self.slopes)


def rounding(size: int, precision: torch.dtype) -> float:
    """How large an eigenvalue may be that rounding made, in parts of the largest.

    Args:
        size: of the matrix that was decomposed.
        precision: of products with the Hessian.
    """
    return max(size * torch.finfo(torch.float64).eps, 16 * torch.finfo(precision).eps)


def lanczos(loss: TrainingLoss, starts: Tensor, steps: int, *, memory_bytes: int = LANCZOS_BYTES) -> KrylovSolution:
    """Run Lanczos from every row of `starts`, without reorthogonalization, as CG does.

    Args:
        loss: whose Hessian and training gradients are meant.
        starts: b (k, n_params), in the dtype of `loss` or a longer one.
        steps: m; at most n_params are taken.
        memory_bytes: decides how many starts go together, and nothing else.
    """
    steps = min(steps, loss.n_params)
    rows = max(1, memory_bytes // (3 * loss.n_params * starts.element_size()))
    parts = [
        _lanczos(loss, starts[start : start + rows], steps)
        for start in track(range(0, len(starts), rows), "test points")
    ]
    return KrylovSolution(
        torch.cat([part.diagonal for part in parts]),
        torch.cat([part.off_diagonal for part in parts]),
        torch.cat([part.norms for part in parts]),
        torch.cat([part.slopes for part in parts]),
        loss.dtype,
    )


def _lanczos(loss: TrainingLoss, starts: Tensor, steps: int) -> KrylovSolution:
    norms = starts.norm(dim=1)
    current, previous = starts / norms.clamp_min(torch.finfo(starts.dtype).tiny)[:, None], torch.zeros_like(starts)
    beta = torch.zeros_like(norms)
    scale = torch.zeros_like(norms)
    diagonal, off_diagonal, slopes = [], [], starts.new_empty(len(starts), steps, len(loss.train))
    for j in track(range(steps), "Lanczos steps"):
        following, slopes[:, j] = loss.products(current)
        following.sub_(previous.mul_(beta[:, None]))
        alpha = torch.linalg.vecdot(current, following)
        following.sub_(current * alpha[:, None])
        beta = following.norm(dim=1)
        scale = torch.maximum(scale, alpha.abs() + beta)
        # What is left is rounding: the Krylov space is exhausted, and the residual of this step is zero.
        beta = beta.where(beta > starts.shape[1] ** 0.5 * torch.finfo(loss.dtype).eps * scale, torch.zeros_like(beta))
        diagonal.append(alpha.double())
        off_diagonal.append(beta.double())
        previous, current = current, following.mul_(beta.reciprocal().where(beta > 0, beta)[:, None])
    return KrylovSolution(torch.stack(diagonal, 1), torch.stack(off_diagonal, 1), norms.double(), slopes)


def krylov_basis(loss: TrainingLoss, start: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal basis of the Krylov space of one start, orthogonalized twice against all of itself (Arnoldi).

    Args:
        loss: whose Hessian and training gradients are meant.
        start: (n_params,), in the dtype of `loss` or a longer one.
        steps: m; fewer where the space is exhausted.

    Returns:
        Q (m, n_params), Q H Qᵀ (m, m), Q Gᵀ (m, n_train).
    """
    steps = min(steps, loss.n_params)
    Q, HQ = (start.new_empty(steps, len(start)) for _ in range(2))
    slopes = start.new_empty(steps, len(loss.train))
    candidate = start
    for j in track(range(steps), "Arnoldi steps"):
        Q[j] = candidate / candidate.norm()
        HQ[j : j + 1], slopes[j : j + 1] = loss.products(Q[j : j + 1])
        candidate = HQ[j].clone()
        for _ in range(2):
            candidate -= (Q[: j + 1] @ candidate) @ Q[: j + 1]
        exhausted = candidate.norm() <= len(start) ** 0.5 * torch.finfo(loss.dtype).eps * HQ[: j + 1].norm()
        if exhausted:
            Q, HQ, slopes = Q[: j + 1], HQ[: j + 1], slopes[: j + 1]
            break
    projected = Q @ HQ.T
    return Q, (projected + projected.T) / 2, slopes
