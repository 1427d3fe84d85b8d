"""The one split of a task's test points into calibration and scoring points.

Selectors and the oracle see calibration points only; every published number is on scoring points.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError

_STREAM = 0  # second key word of Philox; the bootstrap uses another


@dataclass(frozen=True, eq=False)
class Split:
    """Ascending int64 positions of the test points of either kind; together they are all of them."""

    calibration: NDArray[np.int64]
    scoring: NDArray[np.int64]


def split_test_points(n_test: int, calibration: float, seed: int) -> Split:
    """Split the test points at random, always the same way.

    Each point draws one raw 64-bit word of Philox with key (seed, 0); the round(calibration · n_test) points
    with the smallest words are the calibration points. numpy guarantees the raw words, not its permutations.

    Args:
        n_test: number of test points.
        calibration: fraction of them, in (0, 1).
        seed: in [0, 2⁶⁴).

    Raises:
        InputError: an argument is out of range, or one side would be empty.
    """
    if not 0 <= seed < 2**64:
        raise InputError(f"seed = {seed}: must lie in [0, 2⁶⁴)")
    if not 0.0 < calibration < 1.0:
        raise InputError(f"calibration = {calibration}: must lie strictly between 0 and 1")
    n_calibration = round(calibration * n_test)
    if not 0 < n_calibration < n_test:
        raise InputError(f"n_test = {n_test} with calibration = {calibration}: both kinds need at least one test point")
    generator = np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64))
    shuffled = np.argsort(generator.random_raw(n_test), kind="stable").astype(np.int64)
    return Split(np.sort(shuffled[:n_calibration]), np.sort(shuffled[n_calibration:]))
