"""`deflated_surrogate`: `surrogate` without the leading eigendirections that a gap sets apart from the bulk.

Ours. A few outlying eigenvalues can carry nearly all of |r|²: then ξ describes those directions alone, and the λ that
it picks damps the bulk, where the training examples differ, to nothing. So ξ is computed from the spectrum that is left
when the outliers are removed.

The rule looks at eigenvalues only: among the first ten gaps σ_j/σ_{j+1}, the last one of at least three cuts; what lies
above it is removed. Without such a gap nothing is removed, and the pick is that of `surrogate`.
"""

from attriboard.contracts.selector import Choice, Evidence, Selector
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.regularization import pick_by_xi

MIN_GAP = 3.0  # σ_j/σ_{j+1}; between what ordinary spectra have (under 2) and an outlier's (tens)
MAX_OUTLIERS = 10


def n_outliers(spectrum: Spectrum) -> int:
    """How many leading eigenvalues a gap of at least `MIN_GAP` sets apart; 0 where there is none."""
    leading = spectrum.leading[: MAX_OUTLIERS + 1]
    gaps = (leading[:-1] / leading[1:] >= MIN_GAP).nonzero().flatten()
    return int(gaps[-1]) + 1 if len(gaps) else 0


class DeflatedSurrogate(Selector):
    """Algorithm 1 on the bulk of the spectrum."""

    name = "deflated_surrogate"
    source = "AttriBoard; after Wang et al. 2025 (arXiv:2505.24261), Algorithm 1"

    def select(self, evidence: Evidence) -> Choice:
        """Pick the candidate whose ξ̄ on the deflated spectra is closest to one half."""
        counts = [n_outliers(spectrum) for spectrum in evidence.spectra]
        deflated = [s.without_leading(count) for s, count in zip(evidence.spectra, counts, strict=True)]
        choice = pick_by_xi(deflated, evidence.options("regularization"))
        return Choice(choice.values, choice.criterion, choice.objective, f"removed {counts} leading eigenvalues")
