"""Ranks that respect the intervals: methods that cannot be told apart share one.

The difference of two methods' mean LDS is paired, over test points and over masks:
SE² = Var_test(difference per test point) / n_test + Var_jackknife(difference over masks),
with the jackknife variance Σ (I_k − Ī)² / (n_masks (n_masks − 1)) of the influences I_k that records hold.
"""

import math
from collections.abc import Sequence

from attriboard.records.model import LdsResult

Z95 = 1.96


def difference_error(a: LdsResult, b: LdsResult) -> float:
    """Standard error of `a.mean - b.mean`.

    Where a record lacks the vectors, or theirs are of other test points or masks, the two intervals are taken
    as independent, which can only make the error larger for methods that err on the same points.
    """
    points, masks = _paired(a.per_test, b.per_test), _paired(a.mask_influence, b.mask_influence)
    if points is None or masks is None:
        return math.hypot(*((lds.ci95[1] - lds.ci95[0]) / (2 * Z95) for lds in (a, b)))
    return math.sqrt(_variance_of_mean(points) + _variance_of_mean(masks))


def share_ranks(results: Sequence[LdsResult]) -> list[int]:
    """Rank of each result, 1 for the best; ranks after a tie are skipped (1, 1, 3).

    Going down the list, a method joins the current group unless the group's leader is significantly better
    (at 5 %); then it leads the next group.
    """
    ranks = [0] * len(results)
    leader, rank = None, 0
    order = sorted(range(len(results)), key=lambda i: -results[i].mean)
    for position, i in enumerate(order, start=1):
        result = results[i]
        if leader is None or leader.mean - result.mean > Z95 * difference_error(leader, result):
            leader, rank = result, position
        ranks[i] = rank
    return ranks


def _paired(a: tuple[float, ...] | None, b: tuple[float, ...] | None) -> list[float] | None:
    if a is None or b is None or len(a) != len(b) or len(a) < 2:
        return None
    return [x - y for x, y in zip(a, b, strict=True)]


def _variance_of_mean(values: list[float]) -> float:
    n = len(values)
    mean = sum(values) / n
    return sum((value - mean) * (value - mean) for value in values) / (n * (n - 1))
