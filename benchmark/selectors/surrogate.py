"""`surrogate`: the λ at which the mean of ξ over a few test points is closest to one half.

Wang et al., "Taming Hyperparameter Sensitivity in Data Attribution" (NeurIPS 2025, arXiv 2505.24261), Algorithm 1.
With t_k = rᵀ(K/n + λI)⁻ᵏ r,

    ξ(λ) = t₂ / √(t₁ t₃),   pick argmin_λ |mean ξ(λ) − ½|

ξ is a cosine, rises from near 0 to 1 as λ passes through the spectrum, and needs no retraining. The population LDS
rises in λ exactly where ξ < ω, and ω, which does need retraining, tends to lie near one half.

Reading of the paper: the text was not at hand; the form was derived anew from its stated properties, which the tests
check (bounds, limit, the sign equivalence). Where a method has several checkpoints, ξ is averaged over them too.

ξ̄ of a whole spectrum rises all along. Gauss quadrature of a few Lanczos steps does not know the smallest eigenvalues:
below those it knows, its ξ̄ is flat or turns back up, and may pass one half more than once. Only the last time counts.
"""

import math
from collections.abc import Callable, Sequence

import torch

from attriboard.errors import NotApplicableError
from attriboard.selector import Choice, Evidence, Selector
from attriboard.toolkit.spectrum import Spectrum

__all__ = ["Surrogate", "mean_xi", "pick_by_xi"]

TARGET = 0.5


def mean_xi(spectra: Sequence[Spectrum], regularization: float) -> float:
    """ξ̄(λ): mean of ξ over test points and checkpoints; points with r = 0 are left out."""
    return float(torch.cat([spectrum.xi(regularization) for spectrum in spectra]).nanmean())


def pick_by_xi(spectra: Sequence[Spectrum], candidates: Sequence[float]) -> Choice:
    """Algorithm 1 on given spectra.

    Raises:
        NotApplicableError: no candidate, or every test point has r = 0.
    """
    criterion = tuple(mean_xi(spectra, value) for value in candidates)
    if not criterion or any(value != value for value in criterion):
        raise NotApplicableError("ξ needs at least one candidate λ and one test point whose r is not zero")
    objective = tuple(abs(value - TARGET) for value in criterion)
    last_below = max((i for i, value in enumerate(criterion) if value < TARGET), default=0)
    best = min(range(last_below, len(objective)), key=objective.__getitem__)
    return Choice({"regularization": candidates[best]}, criterion, objective)


def interpolated(xi: Callable[[float], float], low: float, high: float, steps: int = 60) -> float:
    """The λ in [low, high] with ξ̄ = ½, by bisection on log λ; an end where ½ is not passed."""
    if not xi(low) < TARGET < xi(high):
        return low if abs(xi(low) - TARGET) <= abs(xi(high) - TARGET) else high
    for _ in range(steps):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if xi(middle) < TARGET else (low, middle)
    return math.sqrt(low * high)


class Surrogate(Selector):
    """Algorithm 1 on the grid.

    Args:
        interpolate: choose λ between grid points, where ξ̄ is exactly one half.
    """

    name = "surrogate"
    source = "Wang et al. 2025 (arXiv:2505.24261), Algorithm 1"

    def __init__(self, interpolate: bool = False) -> None:
        self._interpolate = interpolate

    def select(self, evidence: Evidence) -> Choice:
        """Pick the candidate whose ξ̄ is closest to one half."""
        candidates = evidence.options("regularization")
        choice = pick_by_xi(evidence.spectra, candidates)
        if not self._interpolate:
            return choice
        value = interpolated(lambda λ: mean_xi(evidence.spectra, λ), candidates[0], candidates[-1])
        return Choice({"regularization": value}, choice.criterion, choice.objective)
