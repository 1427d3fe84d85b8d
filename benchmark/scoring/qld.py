"""Query loss difference: what removing its own top examples does to a test point, against random removals.

For a test point z and a seed s, with f the target (higher is better; minus the loss, or a margin),

    drop(z) = mean over random sets of f(z; without a random set, s) − f(z; without z's own top examples, s).

For f = −loss it is the loss with the own examples removed minus the loss with as many random ones removed. Positive
drops mean that the method found examples that held the point up. Both models of a difference have one seed, hence the
same initial parameters and order of examples: what they share cancels. One random set serves every point at once.
"""

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.differences import PairedDifference, student_difference


def point_drops(removed: NDArray[np.floating], random: NDArray[np.floating]) -> NDArray[np.float64]:
    """The drop of every point, (n_points,), mean over repeats.

    Args:
        removed: (n_points, n_repeats) target where the point's own examples are removed.
        random: (n_points, n_repeats, n_random) target where random sets are, with the same seed.
    """
    controls = np.asarray(random, np.float64).mean(axis=2)
    drops: NDArray[np.float64] = (controls - np.asarray(removed, np.float64)).mean(axis=1)
    return drops


def mean_drop(
    removed: NDArray[np.floating], random: NDArray[np.floating], seeds: NDArray[np.integer]
) -> PairedDifference:
    """The mean drop over points, with its 95 % interval by Student's t.

    SE² = var(drops) / n_points + Σ_s var_c(B_sc) / n_random, where B_sc is the part of the mean that is due to random
    set c of seed s. The second term is there because points with one seed share their random sets, so that the noise
    of these does not average out over points. It counts that part of the first term twice, which errs on the safe side.

    Args:
        removed: see `point_drops`.
        random: see `point_drops`.
        seeds: (n_points, n_repeats) which seed each retrain has; those with one seed have the same random sets.

    Raises:
        InputError: fewer than two points, or fewer than two random sets.
    """
    n_points, n_repeats, n_random = random.shape
    if n_points < 2 or n_random < 2:
        raise InputError(f"{n_points} points and {n_random} random removals: an interval needs at least 2 of each")
    drops = point_drops(removed, random)
    variance = float(drops.var(ddof=1)) / n_points
    for seed in np.unique(seeds):
        shares = np.asarray(random, np.float64)[seeds == seed].sum(axis=0) / (n_points * n_repeats)
        variance += float(shares.var(ddof=1)) / n_random
    return student_difference(float(drops.mean()), variance**0.5, n_points - 1)
