"""Kernels too large to decompose: the leading eigenpairs, by randomized subspace iteration and a Nyström step.

K (n, n) is summed up layer by layer from products in float64 and kept in float32, the lower triangle only: 2 n² bytes.
Three passes over it give everything (Halko, Martinsson & Tropp 2011, section 5.5; Tropp, Yurtsever, Udell & Cevher
2017, algorithm 3):

    Q = orth(K Ω)    a basis that holds the leading eigenvectors, Ω Gaussian
    Z = K Q          K ≈ Z (Qᵀ Z)⁻¹ Zᵀ = V diag(n σ) Vᵀ
    K r⊥             what r has outside of V counts with one eigenvalue, its Rayleigh quotient

so that τ_λ ≈ −V (σ + λ)⁻¹ c − r⊥/(tail + λ). The first term is exact but for the rounding of float32 where eigenvalues
stand apart; the second is one step of Lanczos for what they leave. Both are good where λ is not far below the tail.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.held import Stored
from attriboard.toolkit.kernel import BLOCK_ROWS, block_rows, inner_products
from attriboard.toolkit.spectrum import KernelSolution

OVERSAMPLING = 64
"""Directions beyond the rank that is asked for; they make the last eigenpairs as good as the others."""

CHUNK = 4096
"""Columns per float32 sum; sums of chunks are added in float64."""


class TriangularKernel:
    """A symmetric matrix as float32 block rows that end at the diagonal, zero at first.

    Args:
        n: its size.
        device: where it lives.
        rows: of a block.

    Attributes:
        blocks: (rows, end) for consecutive rows; `end` is where the rows end.
        trace: the sum of the diagonal, from float64.
    """

    def __init__(self, n: int, device: str = "cpu", rows: int = BLOCK_ROWS) -> None:
        ends = [min(start + rows, n) for start in range(0, n, rows)]
        self.blocks = [torch.zeros(end - start, end, device=device) for start, end in pairwise([0, *ends])]
        self.trace = 0.0

    def add(self, layer: Stored) -> None:
        """Add the inner products of a layer's gradients with themselves."""
        step, first = block_rows(layer), 0
        for block in self.blocks:
            end = first + len(block)
            for start in range(first, end, step):
                rows = slice(start, min(start + step, end))
                products = inner_products(layer, rows, layer, end)
                self.trace += float(products[:, start:].diagonal().sum())
                block[start - first : rows.stop - first] += products
            first = end

    def product(self, right: Tensor) -> Tensor:
        """K X (n, k), float64, for X (n, k)."""
        single = right.float()
        result = torch.zeros(right.shape, dtype=torch.float64, device=right.device)
        start = 0
        for block in self.blocks:
            rows, end = slice(start, start + len(block)), start + len(block)
            for left in range(0, end, CHUNK):
                columns = slice(left, min(left + CHUNK, end))
                result[rows] += block[:, columns] @ single[columns]
            if start:
                result[:start] += block[:, :start].T @ single[rows]
            start = end
        return result


def low_rank_bytes(n_train: int, n_test: int, rank: int) -> int:
    """The most that `solve_low_rank` holds at once."""
    triangle = 2 * n_train * (n_train + BLOCK_ROWS)
    return triangle + 8 * n_train * (4 * (rank + OVERSAMPLING) + 4 * n_test)


def solve_low_rank(kernel: TriangularKernel, products: Tensor, rank: int, seed: int) -> KernelSolution:
    """The leading eigenpairs of K/n, and what r has beside them.

    Args:
        kernel: K.
        products: r (n, n_test).
        rank: m; how many eigenpairs.
        seed: of the random start; scores differ between seeds far less than from the exact ones.

    Returns:
        A solution whose spectrum has a `tail`.

    Raises:
        NotApplicableError: the kernel is not finite, or zero.
    """
    if not 0 < kernel.trace < float("inf"):
        raise NotApplicableError(f"the gradient kernel has trace {kernel.trace}: a model diverged, or has no gradients")
    n = len(products)
    generator = torch.Generator(products.device).manual_seed(seed)
    size = min(n, rank + OVERSAMPLING)
    start = torch.randn(n, size, dtype=torch.float64, generator=generator, device=products.device)
    basis = torch.linalg.qr(kernel.product(start))[0]
    del start
    image = kernel.product(basis)
    values, vectors = _nystrom(basis, image, rank)
    del basis, image
    r = products.T.double()
    coefficients = r @ vectors
    remainder = r - coefficients @ vectors.T
    # What the rounding of the kernel leaves must not be divided by a small λ.
    rounding = 10 * torch.finfo(torch.float32).eps * r.norm(dim=1, keepdim=True)
    remainder *= remainder.norm(dim=1, keepdim=True) > rounding
    quotient = (remainder.T * kernel.product(remainder.T)).sum() / (n * remainder.square().sum())
    eigenvalues = values / n
    spectrum = Spectrum(
        eigenvalues,
        coefficients,
        n,
        remainder.norm(dim=1),
        tail=max(0.0, float(quotient.nan_to_num())),
        unseen=max(0.0, kernel.trace / n - float(eigenvalues.sum())),
    )
    return KernelSolution(vectors, spectrum, remainder)


def _nystrom(basis: Tensor, image: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues, descending, and eigenvectors (n, m) of Z (Qᵀ Z)⁻¹ Zᵀ; at most `rank`, those above rounding."""
    # A shift of the size of the rounding keeps the small matrix positive definite; it is taken off again at the end.
    shift = torch.finfo(torch.float32).eps * float(torch.linalg.matrix_norm(image))
    image = image + shift * basis
    core = basis.T @ image
    lower = torch.linalg.cholesky((core + core.T) / 2)
    left, singular, _ = torch.linalg.svd(
        torch.linalg.solve_triangular(lower, image.T, upper=False).T, full_matrices=False
    )
    values = singular.square() - shift
    kept = int((values[:rank] > shift).sum())
    if not kept:
        raise NotApplicableError("the gradient kernel is zero: no training example has a gradient")
    return values[:kept], left[:, :kept]
