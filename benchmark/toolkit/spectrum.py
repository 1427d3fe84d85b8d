"""Spectra of gradient kernels: one eigendecomposition gives τ_λ, ξ and the effective dimension for every λ.

With K/n = V diag(σ) Vᵀ and c = Vᵀ r, where r = G g' (see `attriboard.toolkit.kernel`):

    τ_λ    = −(K/n + λI)⁻¹ r = −V diag(1/(σ + λ)) c
    t_k(λ) = rᵀ (K/n + λI)⁻ᵏ r = Σ_j c_j² / (σ_j + λ)ᵏ
    ξ(λ)   = t₂ / √(t₁ t₃)

The feature side, F = GᵀG/n = U diag(σ) Uᵀ, is the same thing: V = G U diag(nσ)^(−½) and c = diag(nσ)^(½) Uᵀ
g', hence t_k = n g'ᵀ F (F + λI)⁻ᵏ g'. So whichever matrix is smaller is decomposed, and one form serves both.

**Numerical rank.** Eigenvalues at or below the floor, size · 2⁻⁵² · σ_max with `size` the side of the
decomposed matrix, are rounding noise around zero. On the kernel side c is far more precise there than σ (it
falls like √σ), so what r has along all those directions together, its *remainder* r⊥, counts with σ = 0: τ_λ
gets −r⊥/λ, t_k gets ‖r⊥‖²/λᵏ. A λ at or below the floor, λ = 0 above all, cannot tell these directions from
noise and leaves them out: λ = 0 is the pseudo-inverse. On the feature side they are always left out.

Where only the leading eigenpairs are known (`attriboard.toolkit.lowrank`), r⊥ counts with one eigenvalue, the *tail*.

**Other curvatures.** A method that inverts a matrix C ≠ F has its own spectrum: with (h, U) the positive eigenpairs of
C, t_k = n g'ᵀ C₊ (C + λI)⁻ᵏ g', so c = diag(nh)^(½) Uᵀ g' as on the feature side (`Spectrum.of_curvature`). A negative
h is left out: it matters only where λ is not well above its size, and there C + λI is indefinite or nearly singular.
Where only products with C are known, Lanczos from g' gives t_k by Gauss quadrature, with eigenvalues of each test
point's own (Golub & Meurant, "Matrices, Moments and Quadrature", 2010, chapter 6).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.spectrum import Spectrum


@dataclass(frozen=True)
class KernelSolution:
    """A fitted kernel: everything that any λ needs.

    Attributes:
        vectors: V (n_train, m), eigenvectors of K/n above the floor.
        spectrum: σ and c.
        remainder: r⊥ (n_test, n_train), r outside their span; `None` for nothing.
        note: what readers of the scores must know.
    """

    vectors: Tensor
    spectrum: Spectrum
    remainder: Tensor | None = None
    note: str | None = None

    def scores(self, regularization: float, rows: slice = slice(None)) -> Tensor:
        """τ_λ = −V diag(1/(σ + λ)) c − r⊥/(tail + λ), in the dtype of V.

        Args:
            regularization: λ.
            rows: which test points.

        Returns:
            (n_test, n_train), or so many rows of it.
        """
        weights = -self.spectrum.coefficients[rows] / self.spectrum.shifted(regularization)
        scores = weights.to(self.vectors.dtype) @ self.vectors.T
        tail = self.spectrum.shifted_tail(regularization)
        if self.remainder is not None and tail is not None:
            scores.sub_(self.remainder[rows], alpha=1 / tail)
        return scores

    def single(self) -> KernelSolution:
        """The same with float32 vectors: half the memory, twice the speed; σ and c stay float64."""
        return self._with(torch.float32)

    def double(self) -> KernelSolution:
        """The same with float64 vectors."""
        return self._with(torch.float64)

    def _with(self, dtype: torch.dtype) -> KernelSolution:
        remainder = None if self.remainder is None else self.remainder.to(dtype)
        return KernelSolution(self.vectors.to(dtype), self.spectrum, remainder)


def solve_kernel(kernel: Tensor, products: Tensor) -> KernelSolution:
    """Decompose K/n.

    Args:
        kernel: K (n, n), symmetric; overwritten.
        products: r (n, n_test).

    Raises:
        NotApplicableError: the matrix is not finite, or zero.
    """
    n = len(kernel)
    eigenvalues, vectors, floor = _eigh(kernel.div_(n))
    r = products.T.to(vectors.dtype)
    coefficients = r @ vectors
    remainder = r - coefficients @ vectors.T
    # What rounding alone leaves must not be divided by a small λ.
    rounding = 10 * n * torch.finfo(torch.float64).eps * r.norm(dim=1, keepdim=True)
    remainder *= remainder.norm(dim=1, keepdim=True) > rounding
    spectrum = Spectrum(eigenvalues, coefficients, n, remainder.norm(dim=1), floor)
    return KernelSolution(vectors, spectrum, remainder)


def solve_features(train: Tensor, test: Tensor) -> KernelSolution:
    """Decompose the smaller of GᵀG/n and GGᵀ/n.

    Args:
        train: G (n_train, d).
        test: g'ᵀ (n_test, d).

    Raises:
        NotApplicableError: the features are not finite, or zero.
    """
    train, test = train.double(), test.double()
    n, d = train.shape
    if d >= n:
        return solve_kernel(train @ train.T, train @ test.T)
    eigenvalues, vectors, _ = _eigh(train.T @ train / n)
    lengths = (n * eigenvalues).sqrt()
    return KernelSolution(train @ vectors / lengths, Spectrum(eigenvalues, test @ vectors * lengths, n))


def symmetric_eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric float64 matrix, which is overwritten.

    On a CPU, LAPACK's MRRR driver as SciPy ships it. 5,000 × 5,000 on two idle cores: 12 s, like divide and
    conquer, against 19 s for torch.linalg.eigh. On two busy cores at 2,500: 8 s against 19 s and 23 s.
    Its vectors are orthogonal to 1e-12 only, but scores agree with the others' to 1e-7 at λ = 1e-9.
    """
    if matrix.is_cuda:
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors
    import scipy.linalg

    # The transpose of a symmetric matrix is itself, and is what Fortran overwrites without a copy.
    found = scipy.linalg.eigh(matrix.numpy().T, driver="evr", overwrite_a=True, check_finite=False)
    values, vectors = (torch.from_numpy(array) for array in found)
    return values, vectors


def _eigh(matrix: Tensor) -> tuple[Tensor, Tensor, float]:
    """Eigenvalues above the floor, descending; their eigenvectors (size, m); the floor. Overwrites the matrix."""
    if not bool(torch.isfinite(matrix).all()):
        raise NotApplicableError("the gradient kernel is not finite: a model diverged, or its loss has a kink")
    values, vectors = symmetric_eigen(matrix)
    floor = len(matrix) * torch.finfo(torch.float64).eps * float(values[-1])
    first = int((values <= floor).sum())
    if first == len(values):
        raise NotApplicableError("the gradient kernel is zero: no training example has a gradient")
    return values[first:].flip(0), vectors[:, first:].flip(1), floor
