"""Brittleness: the fewest training examples whose removal flips a prediction, by search over a fixed ladder of sizes.

A prediction is flipped by a removal where most retrains without those examples get it wrong. The search assumes that
more removal does not unflip; the ladder is geometric, so that the searches of many test points ask for the same
subset sizes at the same time, which train in step. The size found is confirmed with fresh seeds, because the search
itself favors sizes at which its own seeds happened to flip.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import beta

from attriboard.base.errors import InputError

_STEP = 2**0.5  # between rungs


def ladder(n_train: int, largest: float) -> tuple[int, ...]:
    """Removal sizes to try: 1, then each about √2 times the one before, up to a share of the training set.

    Args:
        n_train: training examples.
        largest: the largest share removed, in (0, 1).

    Raises:
        InputError: the share leaves no size to try, or nothing to train on.
    """
    top = round(largest * n_train) if 0 < largest < 1 else 0
    if not 0 < top < n_train:
        raise InputError(
            f"largest = {largest:g}: must lie in (0, 1) and remove 1 to {n_train - 1} of {n_train} examples"
        )
    sizes, size = [], 1.0
    while round(size) < top:
        sizes.append(round(size))
        size = max(size * _STEP, round(size) + 1.0)
    return (*dict.fromkeys(sizes), top)


@dataclass
class LadderSearch:
    """Binary search for the lowest rung that flips, of one test point.

    Args:
        sizes: the ladder.

    Attributes:
        low: position of the highest rung known not to flip, −1 at first.
        high: position of the lowest rung known to flip; `len(sizes)` where none is known.
    """

    sizes: Sequence[int]
    low: int = -1
    high: int = -1

    def __post_init__(self) -> None:
        self.high = len(self.sizes)

    @property
    def next_size(self) -> int | None:
        """The size to try; `None` where the search is over."""
        if self.high - self.low <= 1:
            return None
        # The top first: most points that never flip are done with one question.
        position = len(self.sizes) - 1 if self.high == len(self.sizes) else (self.low + self.high) // 2
        return self.sizes[position]

    def answer(self, size: int, flipped: bool) -> None:
        """Say whether removing `size` examples flips."""
        position = list(self.sizes).index(size)
        if flipped:
            self.high = position
        else:
            self.low = position

    @property
    def found(self) -> int | None:
        """The fewest removals that flip, once the search is over; `None` where not even the top does."""
        return self.sizes[self.high] if self.high < len(self.sizes) else None

    @property
    def not_enough(self) -> int:
        """The most removals known not to flip; 0 where a single one does."""
        return self.sizes[self.low] if self.low >= 0 else 0


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of Clopper and Pearson (1934) of a share."""
    low = float(beta.ppf(0.025, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.ppf(0.975, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high
