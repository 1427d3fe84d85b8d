"""Do ground truths that ask different questions rank methods alike?

Methods are graded on the same test points by several ground truths. A resample draws test points, the same for every
ground truth, and masks, others for each; a method's mean LDS under it is that of the drawn points, moved by the
jackknife influences of the drawn masks. Ranks, and Spearman's correlation between the rankings of two ground truths,
have percentile intervals over these resamples. A resample adds noise to noise, so intervals are wide rather than
narrow, and a correlation lies in the upper part of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.differences import GradedLds

N_RESAMPLES = 2000
_STREAM = 2  # second key word of Philox; others are the test points' split and the bootstrap of single LDS


@dataclass(frozen=True, eq=False)
class Ranking:
    """Methods by mean LDS on one ground truth.

    Attributes:
        ranks: (n_methods,) 1 for the best, ties share their mean rank.
        low, high: (n_methods,) ends of the 95 % intervals.
    """

    ranks: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation over methods between two rankings, with its 95 % interval."""

    value: float
    ci95: tuple[float, float]


def resampled_means(
    results: Sequence[GradedLds], truth: int, n_resamples: int = N_RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Mean LDS of methods on one ground truth, as measured and under resamples, (1 + n_resamples, n_methods).

    Args:
        results: one for each method, with the vectors that let records be compared.
        truth: number of the ground truth; others draw other masks and the same test points.
        n_resamples: how many.
        seed: of the draws.

    Raises:
        InputError: a result has no vectors, or methods were graded on other points or masks.
    """
    per_test = [result.per_test for result in results]
    influence = [result.mask_influence for result in results]
    if not results or None in per_test or None in influence:
        raise InputError("results without per_test and mask_influence cannot be resampled; grade them in full")
    points, masks = np.array(per_test, dtype=np.float64), np.array(influence, dtype=np.float64)
    drawn_points = _drawn(points.shape[1], n_resamples, seed, 0)
    drawn_masks = _drawn(masks.shape[1], n_resamples, seed, 1 + truth)
    measured = points.mean(axis=1)[None]
    return np.vstack([measured, drawn_points @ points.T + drawn_masks @ masks.T])


def _drawn(n: int, n_resamples: int, seed: int, stream: int) -> NDArray[np.float64]:
    """How often each of n items is drawn in n draws, divided by n; (n_resamples, n)."""
    generator = np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64), counter=[0, 0, 0, stream])
    words = generator.random_raw(n_resamples * n).reshape(n_resamples, n)
    picks = ((words >> np.uint64(11)) * 2.0**-53 * n).astype(np.int64) + n * np.arange(n_resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=n_resamples * n).reshape(n_resamples, n) / n


def descending_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the last axis, 1 for the largest value; ties share their mean rank."""
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = rankdata(-values, axis=-1)
    return ranks


def ranking(means: NDArray[np.float64]) -> Ranking:
    """Ranks with intervals, from `resampled_means`."""
    ranks = descending_ranks(means)
    low, high = np.percentile(ranks[1:], [2.5, 97.5], axis=0)
    return Ranking(ranks[0], np.minimum(low, ranks[0]), np.maximum(high, ranks[0]))


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> RankCorrelation:
    """How alike two ground truths rank the same methods.

    Args:
        one: from `resampled_means`, (1 + n_resamples, n_methods).
        other: the same of the other ground truth.

    Raises:
        InputError: fewer than three methods, or not the same number.
    """
    if one.shape != other.shape or one.shape[1] < 3:
        raise InputError(f"means {one.shape} and {other.shape}: must be of the same methods, at least three")
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in map(descending_ranks, (one, other)))
    lengths = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    correlations = np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    low, high = np.percentile(correlations[1:], [2.5, 97.5])
    value = float(correlations[0])
    return RankCorrelation(value, (min(float(low), value), max(float(high), value)))


def rank_correlations(means: Mapping[str, NDArray[np.float64]]) -> dict[tuple[str, str], RankCorrelation]:
    """Between every two ground truths by name, each pair once."""
    names = list(means)
    return {(a, b): rank_correlation(means[a], means[b]) for i, a in enumerate(names) for b in names[i + 1 :]}
