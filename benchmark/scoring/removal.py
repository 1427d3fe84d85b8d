"""Data selection: which training examples an attribution says to remove, and what removing them did.

Scores are summed over calibration points, s_i = Σ τ(z', i), and the examples with the largest sums are removed first
(`helpful`: it should hurt) or those with the smallest (`harmful`: it should help). Differences between two ways of
removing are paired: both retrain with the same seeds.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.differences import PairedDifference, student_difference

Direction = Literal["helpful", "harmful"]
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


def summed_scores(scores: NDArray[np.float32], points: NDArray[np.int64]) -> tuple[NDArray[np.float64], int]:
    """Scores summed over test points, and the number of points left out for NaN or infinity in their row.

    Args:
        scores: (n_test, n_train), positive = helpful.
        points: positions of test points.

    Returns:
        Sums (n_train,), and how many of the points are not in them.

    Raises:
        InputError: no point has finite scores throughout.
    """
    rows = scores[points].astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.any():
        raise InputError(f"scores of all {len(points)} calibration points have NaN or infinity: nothing to sum")
    return rows[finite].sum(axis=0), int(len(points) - finite.sum())


def removal_order(sums: NDArray[np.float64], direction: Direction) -> NDArray[np.int64]:
    """Training examples, the first to be removed first; of equals the one with the smaller index.

    Args:
        sums: (n_train,), see `summed_scores`.
        direction: what is removed.
    """
    return np.argsort(-sums if direction == "helpful" else sums, kind="stable").astype(np.int64)


def removal_size(rate: float, n_train: int) -> int:
    """How many examples a rate removes: the nearest whole number.

    Raises:
        InputError: none, or all.
    """
    size = round(rate * n_train) if 0 < rate < 1 else 0
    if not 0 < size < n_train:
        raise InputError(f"rate = {rate:g}: must lie in (0, 1) and remove 1 to {n_train - 1} of {n_train} examples")
    return size


def kept_rows(order: NDArray[np.int64], n_removed: int, classes: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Training examples that stay, ascending.

    Args:
        order: (n_train,), the first to be removed first.
        n_removed: how many go.
        classes: (n_train,) class numbers, where every class loses its share: the largest remainders make up the total.
    """
    if classes is None:
        return np.sort(order[n_removed:])
    names, counts = np.unique(classes, return_counts=True)
    shares = n_removed * counts / len(order)
    sizes = np.floor(shares).astype(np.int64)
    # Ties of remainders go to the smaller class number.
    late = np.argsort(-(shares - sizes), kind="stable")[: n_removed - int(sizes.sum())]
    sizes[late] += 1
    return np.sort(
        np.concatenate([order[classes[order] == name][size:] for name, size in zip(names, sizes, strict=True)])
    )


def mean_and_error(values: NDArray[np.float64]) -> tuple[float, float | None]:
    """Mean over seeds, and its standard error; none for a single seed."""
    n = len(values)
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else None


def paired_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> PairedDifference:
    """The mean of a − b with its t-interval, seed by seed.

    Args:
        a: (n_seeds,), n_seeds ≥ 2.
        b: of the same seeds.

    Raises:
        InputError: different lengths, or a single seed.
    """
    if len(a) != len(b) or len(a) < 2:
        raise InputError(f"{len(a)} and {len(b)} seeds: a paired difference needs the same ones, at least two")
    mean, error = mean_and_error(np.asarray(a, np.float64) - np.asarray(b, np.float64))
    assert error is not None
    return student_difference(mean, error, len(a) - 1)
