"""Ranks that respect the intervals: methods that cannot be told apart share one."""

from collections.abc import Sequence

from attriboard.scoring.differences import GradedLds, lds_difference


def share_ranks(results: Sequence[GradedLds]) -> list[int]:
    """Rank of each result, 1 for the best; ranks after a tie are skipped (1, 1, 3).

    Going down the list, a method joins the current group unless the group's leader is significantly better
    (at 5 %, paired); then it leads the next group.
    """
    ranks = [0] * len(results)
    leader, rank = None, 0
    order = sorted(range(len(results)), key=lambda i: -results[i].mean)
    for position, i in enumerate(order, start=1):
        if leader is None or lds_difference(leader, results[i]).significant:
            leader, rank = results[i], position
        ranks[i] = rank
    return ranks
