"""Ranks of many rows at once, with exact average ranks for ties.

One sort per row serves everything: plain average ranks, and Spearman correlations under any multiplicities
of the items (bootstrap resamples, leave-one-out), for which nothing is sorted again.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK_ELEMENTS = 50_000  # items × weightings worked on at once: 400 kB, which stays in a core's cache


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


def weighted_spearman(x: SortedRows, y: SortedRows, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman correlation of each pair of rows, as if item i stood there `weights[k, i]` times.

    With multiplicities w and n = Σw, an item whose tie group begins after weight C₋ and ends at weight C₊ has
    the average rank (C₋ + C₊ + 1)/2, that is D/2 when centered, with D = C₋ + C₊ − n. Hence, in integers,

        ρ = Σ w Dˣ Dʸ / √(Vˣ Vʸ),    V = Σ w D² = (n³ − Σ_groups (C₊ − C₋)³) / 3,

    exactly what repeating the items and ranking anew would give (the tie correction of Kendall, *Rank
    Correlation Methods*, ch. 3). Without ties all groups are single items, and V is the same for every row.

    Args:
        x: n_rows rows of n_items items.
        y: as many, to be paired with those of x.
        weights: (n_weightings, n_items) multiplicities, whole numbers ≥ 0.

    Returns:
        (n_rows, n_weightings); 0 where a side has a single distinct value.
    """
    n_rows, n_items = x.order.shape
    result = np.empty((n_rows, weights.shape[0]))
    width = max(1, _BLOCK_ELEMENTS // n_items)
    for start in range(0, weights.shape[0], width):
        block = np.ascontiguousarray(weights[start : start + width].T, dtype=np.float64)
        total = block.sum(axis=0)
        untied_spread = total**3 - (block**3).sum(axis=0)
        cumulated = np.zeros((n_items + 1, block.shape[1]))
        gathered, ranks_x, ranks_y = (np.empty_like(block) for _ in range(3))
        for row in range(n_rows):
            spread = np.ones_like(total)
            for side, ranks in ((x, ranks_x), (y, ranks_y)):
                # mode="clip" spares numpy a buffered copy; the indices are always in range.
                np.take(block, side.order[row], axis=0, out=gathered, mode="clip")
                np.cumsum(gathered, axis=0, out=cumulated[1:])
                if side.tied[row]:
                    above, below = cumulated[side.last[row] + 1], cumulated[side.first[row]]
                    np.add(above, below, out=ranks)
                    heads = side.first[row] == np.arange(n_items)
                    spread *= total**3 - ((above - below)[heads] ** 3).sum(axis=0)
                else:
                    np.add(cumulated[1:], cumulated[:-1], out=ranks)
                    spread *= untied_spread
                ranks -= total
                if side is x:
                    ranks *= gathered
            np.take(ranks_y, y.position[row][x.order[row]], axis=0, out=gathered, mode="clip")
            gathered *= ranks_x
            covariance = 3.0 * gathered.sum(axis=0)
            correlation = result[row, start : start + width]
            correlation.fill(0.0)
            np.divide(covariance, np.sqrt(spread), out=correlation, where=spread > 0)
    return result
