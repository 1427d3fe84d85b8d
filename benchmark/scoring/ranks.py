"""Ranks of many rows at once, with exact average ranks for ties.

One sort per row serves everything: plain average ranks, and Spearman correlations under any multiplicities
of the items (bootstrap resamples, leave-one-out), for which nothing is sorted again.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_KEPT_BYTES = 400_000_000  # of rows ranked under weightings: 250 rows × 200 items × 1,001 weightings are 200 MB


@dataclass(frozen=True, eq=False)
class SortedRows:
    """The sort orders of `n_rows` rows of `n_items` finite values.

    Attributes:
        order: (n_rows, n_items) item at each sorted position.
        position: (n_rows, n_items) sorted position of each item, the inverse of `order`.
        first, last: (n_rows, n_items) for each sorted position, the first and last position of its tie group.
        tied: (n_rows,) whether a row has ties at all.
    """

    order: NDArray[np.intp]
    position: NDArray[np.intp]
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    tied: NDArray[np.bool_]


def sort_rows(values: NDArray[np.float64]) -> SortedRows:
    """Sort each row of `values` (n_rows, n_items) and find its ties."""
    order = np.argsort(values, axis=1)
    position = np.empty_like(order)
    straight = np.arange(values.shape[1])
    np.put_along_axis(position, order, straight[None, :], axis=1)
    first = np.tile(straight, (values.shape[0], 1))
    last = first.copy()
    ascending = np.take_along_axis(values, order, axis=1)
    new_group = ascending[:, 1:] != ascending[:, :-1]
    tied = ~new_group.all(axis=1)
    if tied.any():
        edge = np.ones((int(tied.sum()), 1), dtype=bool)
        starts = np.hstack([edge, new_group[tied]])
        ends = np.hstack([new_group[tied], edge])
        first[tied] = np.maximum.accumulate(np.where(starts, straight, 0), axis=1)
        backwards = np.where(ends, straight, straight[-1])[:, ::-1]
        last[tied] = np.minimum.accumulate(backwards, axis=1)[:, ::-1]
    return SortedRows(order, position, first, last, tied)


def average_ranks(rows: SortedRows) -> NDArray[np.float64]:
    """Rank of each item within its row, 1 to n_items, ties sharing their mean rank; (n_rows, n_items)."""
    by_position = ((rows.first + rows.last) / 2 + 1).astype(np.float64, copy=False)
    return np.take_along_axis(by_position, rows.position, axis=1)


class WeightedRanks:
    """Rows ranked under many weightings of their items, ready to be correlated with other rows.

    With multiplicities w and n = Σw, an item whose tie group begins after weight C₋ and ends at weight C₊ has
    the average rank (C₋ + C₊ + 1)/2, that is D/2 when centered, with D = C₋ + C₊ − n. Hence, in integers,

        ρ = Σ w Dˣ Dʸ / √(Vˣ Vʸ),    V = Σ w D² = (n³ − Σ_groups (C₊ − C₋)³) / 3,

    exactly what repeating the items and ranking anew would give (the tie correction of Kendall, *Rank
    Correlation Methods*, ch. 3). Since Σ w Dʸ = 0, the numerator is Σ (w Dʸ)(C₋ˣ + C₊ˣ): what depends on y is
    computed once for any number of x. No sum exceeds n³, so up to n = 256 single precision holds all of them.

    Args:
        rows: n_rows rows of n_items items.
        weights: (n_weightings, n_items) multiplicities, whole numbers ≥ 0.
        keep: remember what depends on `rows` alone, as far as there is room, for further calls of `spearman`.
    """

    def __init__(self, rows: SortedRows, weights: NDArray[np.float64], *, keep: bool = True) -> None:
        self._room = _KEPT_BYTES if keep else 0
        self._rows = rows
        self._total = weights.sum(axis=1)
        self._untied_spread = self._total**3 - (weights**3).sum(axis=1)
        largest = self._total.max(initial=0.0)
        self._weights = np.ascontiguousarray(weights.T, dtype=np.int16 if 2 * largest < 2**15 else np.int32)
        self._products = np.dtype(np.float32 if largest <= 256 else np.float64)
        self._kept: dict[int, tuple[NDArray[np.floating], NDArray[np.float64]]] = {}

    def spearman(self, others: SortedRows) -> NDArray[np.float64]:
        """Spearman correlation of each row of `others` with the row of the same number, under each weighting.

        Args:
            others: as many rows of as many items.

        Returns:
            (n_rows, n_weightings); 0 where a side has a single distinct value.
        """
        n_rows, (n_items, n_weightings) = len(others.order), self._weights.shape
        result = np.zeros((n_rows, n_weightings))
        buffers = _Buffers(n_items, n_weightings, self._weights.dtype)
        gathered, factor = (np.empty(self._weights.shape, self._products) for _ in range(2))
        for row in range(n_rows):
            centered, spread = self._centered(row, buffers)
            sums, other_spread = self._sums(others, row, buffers)
            np.take(centered, others.order[row], axis=0, out=gathered, mode="clip")
            np.copyto(factor, sums)
            covariance = 3.0 * np.einsum("ik,ik->k", gathered, factor).astype(np.float64)
            spread = spread * other_spread
            np.divide(covariance, np.sqrt(spread), out=result[row], where=spread > 0)
        return result

    def _centered(self, row: int, buffers: "_Buffers") -> tuple[NDArray[np.floating], NDArray[np.float64]]:
        """W Dʸ by item, and 3 Vʸ; kept for the next call as long as there is room."""
        if row in self._kept:
            return self._kept[row]
        sums, spread = self._sums(self._rows, row, buffers)
        centered = sums[self._rows.position[row]].astype(self._products)
        centered -= self._total.astype(self._products)
        centered *= self._weights
        if centered.nbytes * (len(self._kept) + 1) <= self._room:
            self._kept[row] = centered, spread
        return centered, spread

    def _sums(self, rows: SortedRows, row: int, buffers: "_Buffers") -> tuple[NDArray[np.integer], NDArray[np.float64]]:
        """C₋ + C₊ by sorted position, valid until the next call, and 3 V."""
        # mode="clip" spares numpy a buffered copy; the indices are always in range.
        np.take(self._weights, rows.order[row], axis=0, out=buffers.gathered, mode="clip")
        cumulated, sums = buffers.cumulated, buffers.sums
        # numpy's own cumsum along this axis takes several times as long.
        for before, weight, after in zip(cumulated[:-1], buffers.gathered, cumulated[1:], strict=True):
            np.add(before, weight, out=after)
        if not rows.tied[row]:
            np.add(cumulated[1:], cumulated[:-1], out=sums)
            return sums, self._untied_spread
        above, below = cumulated[rows.last[row] + 1], cumulated[rows.first[row]]
        np.add(above, below, out=sums)
        heads = rows.first[row] == np.arange(len(sums))
        groups = (above - below)[heads].astype(np.float64)
        return sums, self._total**3 - (groups**3).sum(axis=0)


class _Buffers:
    """Arrays that one pass over the rows uses again and again."""

    def __init__(self, n_items: int, n_weightings: int, dtype: np.dtype[Any]) -> None:
        self.cumulated = np.zeros((n_items + 1, n_weightings), dtype)
        self.gathered, self.sums = (np.empty((n_items, n_weightings), dtype) for _ in range(2))


def weighted_spearman(x: SortedRows, y: SortedRows, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman correlation of each pair of rows, as if item i stood there `weights[k, i]` times.

    Args:
        x: n_rows rows of n_items items.
        y: as many, to be paired with those of x.
        weights: (n_weightings, n_items) multiplicities, whole numbers ≥ 0.

    Returns:
        (n_rows, n_weightings); 0 where a side has a single distinct value.
    """
    return WeightedRanks(y, weights, keep=False).spearman(x)
