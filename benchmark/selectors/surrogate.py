"""`surrogate`: the λ at which the mean of ξ over a few test points is closest to one half.

Wang et al., "Taming Hyperparameter Sensitivity in Data Attribution" (NeurIPS 2025, arXiv 2505.24261), Algorithm 1.
With t_k = rᵀ(K/n + λI)⁻ᵏ r,

    ξ(λ) = t₂ / √(t₁ t₃),   pick argmin_λ |mean ξ(λ) − ½|

ξ is a cosine, rises from near 0 to 1 as λ passes through the spectrum, and needs no retraining. The population LDS
rises in λ exactly where ξ < ω, and ω, which does need retraining, tends to lie near one half.

Reading of the paper: the text was not at hand; the form was derived anew from its stated properties, which the tests
check (bounds, limit, the sign equivalence). Where a method has several checkpoints, ξ is averaged over them too.

ξ̄ need not rise all along: an outlying eigenvalue can make it dip, and Gauss quadrature of a few Lanczos steps, which
does not know the smallest eigenvalues, leaves it flat below those that it knows, or turns it up again. So ξ̄ may pass
one half more than once, and only the last time counts.
"""

from collections.abc import Sequence

import torch

from attriboard.errors import NotApplicableError
from attriboard.selector import Choice, Evidence, Selector
from attriboard.toolkit.spectrum import Spectrum

__all__ = ["HALF", "Surrogate", "last_passage", "mean_xi", "pick_by_xi"]

HALF = 0.5
"""What ξ̄ should be: where ω, which needs retrains, tends to lie."""


def mean_xi(spectra: Sequence[Spectrum], regularization: float) -> float:
    """ξ̄(λ): mean of ξ over test points and checkpoints; points with r = 0 are left out."""
    return float(torch.cat([spectrum.xi(regularization) for spectrum in spectra]).nanmean())


def last_passage(criterion: Sequence[float]) -> int:
    """Where ξ̄, for ascending λ, is closest to one half, at or after the last candidate below it."""
    start = max((at for at, value in enumerate(criterion) if value < HALF), default=0)
    return min(range(start, len(criterion)), key=lambda at: abs(criterion[at] - HALF))


def pick_by_xi(spectra: Sequence[Spectrum], candidates: Sequence[float]) -> Choice:
    """Algorithm 1 on given spectra; of several passages of ξ̄ through one half, the last.

    Args:
        spectra: one per checkpoint.
        candidates: λ, ascending.

    Raises:
        NotApplicableError: no candidate, or every test point has r = 0.
    """
    criterion = tuple(mean_xi(spectra, value) for value in candidates)
    if not criterion or any(value != value for value in criterion):
        raise NotApplicableError("ξ needs at least one candidate λ and one test point whose r is not zero")
    objective = tuple(abs(value - HALF) for value in criterion)
    return Choice({"regularization": candidates[last_passage(criterion)]}, criterion, objective)


class Surrogate(Selector):
    """Algorithm 1 on the grid."""

    name = "surrogate"
    source = "Wang et al. 2025 (arXiv:2505.24261), Algorithm 1"

    def select(self, evidence: Evidence) -> Choice:
        """Pick the candidate whose ξ̄ is closest to one half."""
        return pick_by_xi(evidence.spectra, evidence.options("regularization"))
