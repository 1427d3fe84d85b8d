"""How methods are drawn: the same color and dashes in every figure, whatever else is in it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from zlib import crc32

from attriboard.leaderboard.methods import catalogue

COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#7a5195", "#8c564b", "#8d8b00", "#7f8fa3"),
)
"""Okabe and Ito's, which readers with any color vision tell apart, then four more."""
DASHES: tuple[Sequence[int], ...] = ([1, 0], [5, 3], [2, 2], [9, 3, 2, 3])
FIRST = (
    *("iffim", "trak", "ekfac", "logra", "if_cg", "tracin", "datainf", "kfac", "grad_dot", "if_arnoldi"),
    *("ekfac_cg", "source", "astra", "dual_svm", "factgrass", "shampoo", "trackstar", "grad_cos", "rps", "magic"),
)
"""What is drawn most, so that what often shares a figure has different colors."""


@dataclass(frozen=True)
class Look:
    """Color and dashes of a line."""

    color: str
    dashes: Sequence[int]


LOOKS = tuple(Look(color, dashes) for dashes in DASHES for color in COLORS)


@cache
def _known() -> dict[str, Look]:
    names = dict.fromkeys((*FIRST, *catalogue()))
    return dict(zip(names, itertools.cycle(LOOKS), strict=False))


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each method; one that is not built in gets one by its name that no other here has."""
    wanted = list(dict.fromkeys(names))
    found = {name: _known()[name] for name in wanted if name in _known()}
    for name in wanted:
        if name not in found:
            start = crc32(name.encode()) % len(LOOKS)
            tried = [*LOOKS[start:], *LOOKS[:start]]
            found[name] = next((look for look in tried if look not in found.values()), tried[0])
    return {name: found[name] for name in wanted}


def colors(names: Iterable[str]) -> dict[str, str]:
    """A color for each method where dashes say something else: its own, or a free one where an earlier one has that."""
    found: dict[str, str] = {}
    for name, look in looks(names).items():
        free = [color for color in COLORS if color not in found.values()]
        found[name] = look.color if look.color in free or not free else free[0]
    return found
