"""Jackknife influences of the mean LDS: two short vectors that let two records be compared later.

A record keeps no score matrix, yet differences between methods must be paired: masks and test points on
which every method does badly must cancel. The influence of each mask and each test point on the mean LDS is
enough. For records a and b of the same ground truth

    SE²(a − b) = var_t(a_t − b_t) / n_test + var_k(I_k^a − I_k^b) / n_masks,

where a_t is the Spearman correlation of test point t and I_k = (n_masks − 1)(mean − mean without mask k)
(Efron & Stein 1981, *The Jackknife Estimate of Variance*). Leave-one-out correlations are exact: every item
is ranked anew.

Against the bootstrap this counts the noise of single test points twice rather than once (see
`attriboard.scoring.bootstrap`), so it errs towards "not significant".
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.bootstrap import PairedDifference, difference_interval, t_quantile
from attriboard.scoring.lds import paired_columns
from attriboard.scoring.ranks import sort_rows, weighted_spearman


@dataclass(frozen=True, eq=False)
class Influence:
    """What each mask and each test point contributes to a mean LDS.

    Attributes:
        masks: (n_masks,) (n_masks − 1)(mean − mean without that mask).
        tests: (n_test,) Spearman correlation of that test point; their mean is the mean LDS.
    """

    masks: NDArray[np.float64]
    tests: NDArray[np.float64]


def jackknife(predictions: NDArray[Any], outputs: NDArray[Any]) -> Influence:
    """Exact leave-one-mask-out influences and per-test correlations.

    Args:
        predictions: (n_masks, n_test), from `predict`; n_masks ≥ 3.
        outputs: (n_masks, n_test) or (n_masks, n_repeats, n_test).

    Raises:
        InputError: the shapes do not fit together, an output is not finite, or there are fewer than three
            masks.
    """
    x, y, _ = paired_columns(predictions, outputs)
    n_masks = x.shape[1]
    if n_masks < 3:
        raise InputError(f"predictions {predictions.shape}: leaving one mask out needs at least three")
    weights = np.vstack([np.ones((1, n_masks)), 1.0 - np.eye(n_masks)])
    values = weighted_spearman(sort_rows(x), sort_rows(y), weights)
    tests, means = values[:, 0], values.mean(axis=0)
    return Influence(masks=(n_masks - 1) * (means[0] - means[1:]), tests=tests)


def paired_difference_from_influence(a: Influence, b: Influence) -> PairedDifference:
    """Mean LDS of a minus that of b with a paired 95 % interval.

    Args:
        a: influences of the first method.
        b: those of the second, on the same masks and test points in the same order.

    Raises:
        InputError: the numbers of masks and test points differ, or are below two.
    """
    if a.masks.shape != b.masks.shape or a.tests.shape != b.tests.shape:
        raise InputError(
            f"influences of {a.masks.shape} and {b.masks.shape} masks, {a.tests.shape} and {b.tests.shape} "
            "test points: paired differences need the same ground truth"
        )
    n_masks, n_test = a.masks.size, a.tests.size
    if min(n_masks, n_test) < 2:
        raise InputError(f"influences of {n_masks} masks and {n_test} test points: expected at least two of each")
    by_test, by_mask = a.tests - b.tests, a.masks - b.masks
    variance = by_test.var(ddof=1) / n_test + by_mask.var(ddof=1) / n_masks
    return difference_interval(float(by_test.mean()), float(np.sqrt(variance)), t_quantile(n_masks, n_test))
