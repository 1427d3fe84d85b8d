"""What selectors may know of a fitted method: the spectrum of the matrix that it adds λ to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attriboard.base.errors import HyperparameterError, NotApplicableError


@dataclass(frozen=True)
class Spectrum:
    """What selectors may know of a fitted method.

    Attributes:
        eigenvalues: σ (m,), float64, descending: those of K/n above the floor; or (n_test, m), each test point's own in
            any order, where only quadratic forms are known.
        coefficients: c (n_test, m), float64: r of each test point in the eigenbasis.
        n_train: n of K/n.
        remainder: ‖r⊥‖ (n_test,): what r has outside the eigenbasis; `None` for nothing.
        floor: the remainder counts for λ above it.
        tail: the eigenvalue that the remainder counts with; where it is above 0, the remainder counts for every λ.
        unseen: the sum of the eigenvalues of K/n outside the eigenbasis.
        whole: whether all eigenvalues are there, or counted in `unseen`.
        gram: whether the matrix is a kernel of the training examples, K/n or F, and not another curvature.
    """

    eigenvalues: Tensor
    coefficients: Tensor
    n_train: int
    remainder: Tensor | None = None
    floor: float = 0.0
    tail: float = 0.0
    unseen: float = 0.0
    whole: bool = True
    gram: bool = True

    @classmethod
    def of_curvature(cls, eigenvalues: Tensor, squares: Tensor, n_train: int, *, whole: bool = True) -> Spectrum:
        """Spectrum of a method that inverts a matrix C of its own.

        Args:
            eigenvalues: h (m,), or (n_test, m), in any order; what is not positive is left out.
            squares: (u_jᵀ g')² of each test point along each eigenvector, (n_test, m), float64.
            n_train: n.
            whole: whether these are all eigenvalues of C.

        Raises:
            NotApplicableError: no h is positive, or not all are finite.
        """
        if not bool(eigenvalues.isfinite().all()):
            raise NotApplicableError("the curvature is not finite: the model diverged")
        positive = eigenvalues > 0
        if not bool(positive.any()):
            raise NotApplicableError("the curvature has no positive eigenvalue")
        coefficients = (n_train * eigenvalues.clamp_min(0) * squares).sqrt()
        if eigenvalues.dim() == 1:
            kept = eigenvalues.argsort(descending=True)[: int(positive.sum())]
            return cls(eigenvalues[kept], coefficients[:, kept], n_train, whole=whole, gram=False)
        # Rows keep their length: what is left out has no coefficient, and an eigenvalue that does no harm.
        largest = eigenvalues.amax(1, keepdim=True)
        harmless = largest.where(largest > 0, torch.ones_like(largest))
        return cls(eigenvalues.where(positive, harmless), coefficients, n_train, whole=False, gram=False)

    @property
    def leading(self) -> Tensor:
        """The eigenvalues (m,), for what asks about the largest ones of the matrix.

        Raises:
            NotApplicableError: every test point has its own.
        """
        if self.eigenvalues.dim() > 1:
            raise NotApplicableError(
                "the method knows its curvature along each test gradient only, not its eigenvalues"
            )
        return self.eigenvalues

    @property
    def all_eigenvalues(self) -> Tensor:
        """The eigenvalues (m,), for what asks about the trace or the rank.

        Raises:
            NotApplicableError: they are not all there.
        """
        if not self.whole:
            raise NotApplicableError("the method knows a part of its curvature only, not its trace")
        return self.eigenvalues

    def moment(self, order: int, regularization: float) -> Tensor:
        """t_k(λ) = Σ_j c_j² / (σ_j + λ)ᵏ, (n_test,)."""
        shifted, coefficients = self._visible(regularization)
        return (coefficients.square() / shifted**order).sum(1)

    def xi(self, regularization: float) -> Tensor:
        """ξ(λ) = t₂ / √(t₁ t₃) of each test point, (n_test,), in [0, 1]; NaN where r = 0.

        ξ does not change when c or σ + λ is scaled, so both are brought to at most 1: no power overflows.
        """
        shifted, coefficients = self._visible(regularization)
        weights = (coefficients / coefficients.abs().amax(1, keepdim=True)).square()
        inverse = shifted.amin(-1, keepdim=True) / shifted
        t1, t2, t3 = ((inverse**order * weights).sum(1) for order in (1, 2, 3))
        return (t2 / t1.sqrt() / t3.sqrt()).clamp(0, 1)

    def effective_dimension(self, regularization: float) -> float:
        """Σ_j σ_j / (σ_j + λ): how many directions λ leaves in play; unseen eigenvalues count as equal ones."""
        seen = float((self.all_eigenvalues / self.shifted(regularization)).sum())
        if not self.unseen:
            return seen
        each = self.unseen / (self.n_train - len(self.eigenvalues))
        return seen + self.unseen / (each + regularization)

    def shifted(self, regularization: float) -> Tensor:
        """σ + λ, (m,) or (n_test, m).

        Raises:
            HyperparameterError: λ < 0.
        """
        if not regularization >= 0:
            raise HyperparameterError(f"regularization = {regularization}: must be at least 0")
        return self.eigenvalues + regularization

    def at(self, points: Tensor) -> Spectrum:
        """The same kernel with the coefficients of some test points only."""
        eigenvalues = self.eigenvalues if self.eigenvalues.dim() == 1 else self.eigenvalues[points]
        remainder = None if self.remainder is None else self.remainder[points]
        return replace(self, eigenvalues=eigenvalues, coefficients=self.coefficients[points], remainder=remainder)

    def without_leading(self, count: int) -> Spectrum:
        """The spectrum without its `count` largest eigenvalues."""
        return replace(self, eigenvalues=self.leading[count:], coefficients=self.coefficients[:, count:])

    def shifted_tail(self, regularization: float) -> float | None:
        """What the remainder is divided by; `None` where it does not count."""
        if self.remainder is None or (not self.tail and regularization <= self.floor):
            return None
        return self.tail + regularization

    def _visible(self, regularization: float) -> tuple[Tensor, Tensor]:
        """σ + λ and c, with the remainder as one more direction where λ lets it count."""
        shifted, tail = self.shifted(regularization), self.shifted_tail(regularization)
        if self.remainder is None or tail is None:
            return shifted, self.coefficients
        last = shifted.new_tensor([tail])
        return torch.cat([shifted, last]), torch.cat([self.coefficients, self.remainder[:, None]], dim=1)
