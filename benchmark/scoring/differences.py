"""Is one result better than another? The one place where a difference gets its interval and its p-value.

Every comparison is by Student's t: of two methods' mean LDS (on the board, from what records hold; in a selection,
from the bootstrap) and of two ways of removing data (over seeds).

Records keep no score matrix, yet differences between methods must be paired: masks and test points on which every
method does badly must cancel. For records a and b of the same ground truth

    SE²(a − b) = var_t(a_t − b_t) / n_test + var_k(I_k^a − I_k^b) / n_masks,

with the Spearman correlations a_t of test points and the jackknife influences I_k of masks (see
`attriboard.scoring.influence`). Against the bootstrap this counts the noise of single test points twice rather than
once (see `attriboard.scoring.bootstrap`), so it errs toward "not significant".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PairedDifference:
    """Mean of a − b over paired samples.

    Attributes:
        mean: of the differences.
        se: its standard error.
        ci95: 95 % interval by Student's t.
        p: two-sided; of exactly equal differences 1 where they are zero, else 0.
    """

    mean: float
    se: float
    ci95: tuple[float, float]
    p: float

    @property
    def significant(self) -> bool:
        """Whether `ci95` excludes 0."""
        return self.ci95[0] > 0.0 or self.ci95[1] < 0.0


class GradedLds(Protocol):
    """A mean LDS as records hold it; the vectors are (n_test,) and (n_masks,) or missing."""

    mean: float
    ci95: tuple[float, float]
    per_test: tuple[float, ...] | None
    mask_influence: tuple[float, ...] | None


def t_quantile(degrees: float) -> float:
    """97.5 % quantile of Student's t."""
    from scipy.special import stdtrit  # it takes longer to import than a record to grade

    return float(stdtrit(degrees, 0.975))


def student_difference(mean: float, se: float, degrees: float, bias: float = 0.0) -> PairedDifference:
    """(mean − bias) ± t · se, widened where need be to hold the mean.

    Args:
        mean: of the differences.
        se: its standard error.
        degrees: of freedom; infinity for a normal distribution.
        bias: known bias of the mean, which the interval allows for.
    """
    from scipy.special import stdtr

    center, reach = mean - bias, t_quantile(degrees) * se
    p = float(2 * stdtr(degrees, -abs(center) / se)) if se > 0 else float(center == 0)
    return PairedDifference(mean, se, (min(center - reach, mean), max(center + reach, mean)), p)


def lds_difference(a: GradedLds, b: GradedLds) -> PairedDifference:
    """Mean LDS of a minus that of b, on the same ground truth.

    Where one lacks its vectors, or theirs are of other test points or masks, the two intervals are taken as
    independent. That can only widen the interval for methods that err on the same points.
    """
    points, masks = _paired(a.per_test, b.per_test), _paired(a.mask_influence, b.mask_influence)
    if points is not None and masks is not None:
        se = math.sqrt(points.var(ddof=1) / points.size + masks.var(ddof=1) / masks.size)
        return student_difference(a.mean - b.mean, se, min(points.size, masks.size) - 1)
    # Half a 95 % interval is t · se; records do not say how many degrees of freedom t had.
    reach = math.hypot(*((result.ci95[1] - result.ci95[0]) / 2 for result in (a, b)))
    return student_difference(a.mean - b.mean, reach / t_quantile(math.inf), math.inf)


def _paired(a: Sequence[float] | None, b: Sequence[float] | None) -> NDArray[np.float64] | None:
    if a is None or b is None or len(a) != len(b) or len(a) < 2:
        return None
    return np.asarray(a, np.float64) - np.asarray(b, np.float64)
