"""Axes of hyperparameters: where each value stands, also those that a logarithm does not know.

Zero stands left of the smallest positive value, none right of the largest, texts and truth values in their order.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attriboard.leaderboard.formats import plain
from attriboard.leaderboard.study import Scalar

LOG_RANGE = 20  # largest over smallest, from which on an axis is logarithmic


@dataclass(frozen=True)
class Axis:
    """One hyperparameter's axis.

    Attributes:
        name: the hyperparameter.
        values: in the order of their positions.
        positions: one per value; decades where `log`.
        log: whether positions are logarithms to base 10.
        ticks: (position, label) pairs.
    """

    name: str
    values: tuple[Scalar, ...]
    positions: tuple[float, ...]
    log: bool
    ticks: tuple[tuple[float, str], ...]

    def position(self, value: Scalar) -> float:
        """Where a value stands."""
        return self.positions[self.values.index(value)]


def make_axis(name: str, values: Iterable[Scalar]) -> Axis:
    """The axis on which these values fit."""
    distinct = list({(isinstance(value, bool), value): value for value in values}.values())
    numbers = sorted(v for v in distinct if isinstance(v, int | float) and not isinstance(v, bool))
    others = sorted((v for v in distinct if v is not None and v not in numbers), key=str)
    open_end: list[Scalar] = [None] if None in distinct else []
    positive = [number for number in numbers if number > 0]
    if others or not numbers:
        ordered: list[Scalar] = [*numbers, *others, *open_end]
        places = tuple(map(float, range(len(ordered))))
        return Axis(name, tuple(ordered), places, False, tuple(zip(places, map(plain, ordered), strict=True)))
    log = min(numbers) >= 0 and len(positive) > 1 and positive[-1] / positive[0] >= LOG_RANGE
    if log:
        raw = [math.log10(number) if number > 0 else math.log10(positive[0]) - 1 for number in numbers]
    else:
        raw = list(map(float, numbers))
    step = (raw[-1] - raw[0]) / max(len(raw) - 1, 1) or 1.0
    step = 1.0 if log and len(positive) < len(numbers) else max(step, (raw[-1] - raw[0]) / 12)
    where = (*raw, *(raw[-1] + step for _ in open_end))
    return Axis(name, (*numbers, *open_end), where, log, _ticks(numbers, where, log, open_end))


def _ticks(
    numbers: Sequence[int | float], positions: Sequence[float], log: bool, open_end: Sequence[Scalar]
) -> tuple[tuple[float, str], ...]:
    """At most about nine labels; zero and none always have theirs."""
    ends = [(positions[-1], "none")] * bool(open_end)
    if not log:
        pairs = [(position, plain(number)) for position, number in zip(positions, numbers, strict=False)]
        every = math.ceil(len(pairs) / 8)
        return (*pairs[::every], *ends)
    zero = [(positions[0], "0")] * (numbers[0] == 0)
    spread = [position for position, number in zip(positions, numbers, strict=False) if number > 0]
    if len(spread) <= 8 and any(abs(place - round(place)) > 0.01 for place in spread):
        labelled = [
            (p, f"{n:.3g}" if n < 1000 else plain(n)) for p, n in zip(positions, numbers, strict=False) if n > 0
        ]
        return (
            *zero,
            *_apart(labelled, (positions[-1] - positions[0]) / 10, positions[0] if zero else -math.inf),
            *ends,
        )
    first, last = math.ceil(spread[0] - 1e-9), math.floor(spread[-1] + 1e-9)
    every = max(1, math.ceil((last - first + 1) / 8))
    return (*zero, *((float(e), _power(e)) for e in range(first, last + 1, every)), *ends)


def _apart(ticks: Sequence[tuple[float, str]], gap: float, last: float) -> list[tuple[float, str]]:
    """Ticks that do not run into each other, nor into one that stands at `last`."""
    kept = []
    for place, label in ticks:
        if place - last >= gap:
            kept.append((place, label))
            last = place
    return kept


def _power(exponent: int) -> str:
    """A power of ten, written out where that is short."""
    return f"{10.0**exponent:g}" if -3 <= exponent <= 4 else f"1e{exponent}"
