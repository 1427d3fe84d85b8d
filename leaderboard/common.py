"""Averages that can be compared: over the cases that several selectors have in common."""

from collections.abc import Collection, Hashable, Mapping
from typing import TypeVar

Case = TypeVar("Case", bound=Hashable)


def largest_common(cases: Mapping[str, Collection[Case]], always: int = 0) -> tuple[frozenset[str], frozenset[Case]]:
    """Which selectors to compare, and on which cases: all of them have each case, and most numbers are compared.

    Selectors with few cases leave the others little in common. They are left out, the one with the fewest cases first,
    as long as that makes the table of selectors by common cases larger.

    Args:
        cases: selector → the cases that it has.
        always: how many more rows of the table have every case.
    """
    ordered = sorted(cases, key=lambda name: (-len(cases[name]), name))
    best: tuple[int, frozenset[str], frozenset[Case]] = (0, frozenset(), frozenset())
    common: frozenset[Case] = frozenset().union(*cases.values())
    for count, name in enumerate(ordered, start=1):
        common &= frozenset(cases[name])
        size = (count + always) * len(common)
        if common and size >= best[0]:
            best = (size, frozenset(ordered[:count]), common)
    return best[1:]
