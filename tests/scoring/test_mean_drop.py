"""The mean drop and its interval: against a plain loop in float64, and how often the interval holds the truth."""

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from attriboard.base.errors import InputError
from attriboard.scoring.qld import mean_drop, point_drops


def drawn(rng, n_points=12, n_repeats=2, n_random=3, n_seeds=5):
    seeds = np.array([[(i + r) % n_seeds for r in range(n_repeats)] for i in range(n_points)])
    random = rng.normal(size=(n_points, n_repeats, n_random))
    return rng.normal(size=(n_points, n_repeats)), random, seeds


@given(seed=st.integers(0, 10**6), n_repeats=st.integers(1, 3), n_random=st.integers(2, 4))
def test_the_mean_and_its_interval_are_those_of_a_plain_loop(seed, n_repeats, n_random):
    removed, random, seeds = drawn(np.random.default_rng(seed), 9, n_repeats, n_random)
    drops = []
    for i in range(9):
        each = [sum(random[i, r]) / n_random - removed[i, r] for r in range(n_repeats)]
        drops.append(sum(each) / n_repeats)
    variance = statistics.variance(drops) / 9
    for s in range(5):
        shares = [
            sum(random[i, r, c] for i in range(9) for r in range(n_repeats) if seeds[i, r] == s) / (9 * n_repeats)
            for c in range(n_random)
        ]
        variance += statistics.variance(shares) / n_random
    reach = t.ppf(0.975, 8) * math.sqrt(variance)
    found = mean_drop(removed, random, seeds)
    assert point_drops(removed, random) == pytest.approx(drops)
    assert found.mean == pytest.approx(statistics.mean(drops))
    assert found.ci95 == pytest.approx((found.mean - reach, found.mean + reach))


def test_a_lower_target_than_under_random_removals_is_a_positive_drop():
    removed, random, seeds = drawn(np.random.default_rng(0))
    low = mean_drop(removed - 5, random, seeds)
    assert low.ci95[0] > 3
    assert low.mean == pytest.approx(mean_drop(removed, random, seeds).mean + 5)


def test_what_a_seed_does_to_both_models_of_a_difference_cancels():
    removed, random, seeds = drawn(np.random.default_rng(1))
    shift = 100 * np.random.default_rng(2).normal(size=5)[seeds]
    again = mean_drop(removed + shift, random + shift[:, :, None], seeds)
    first = mean_drop(removed, random, seeds)
    assert again.mean == pytest.approx(first.mean)
    assert point_drops(removed + shift, random + shift[:, :, None]) == pytest.approx(point_drops(removed, random))


@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_the_interval_holds_no_effect_as_often_as_it_says(shared):
    # Every random set moves all points that have its seed, as a removal does: the points are not independent.
    rng, n_points, held = np.random.default_rng(3), 60, 0
    seeds = np.arange(n_points)[:, None] % 5
    for _ in range(400):
        common = shared * rng.normal(size=(5, 5))
        random = common[seeds] + rng.normal(size=(n_points, 1, 5))
        removed = rng.normal(size=(n_points, 1)) * (1 + shared)
        low, high = mean_drop(removed, random, seeds).ci95
        held += low <= 0 <= high
    assert held / 400 >= 0.93


@pytest.mark.parametrize(("n_points", "n_random"), [(1, 3), (3, 1)])
def test_an_interval_needs_two_points_and_two_random_removals(n_points, n_random):
    removed, random, seeds = drawn(np.random.default_rng(0), n_points, 1, n_random)
    with pytest.raises(InputError, match="needs at least 2 of each"):
        mean_drop(removed, random, seeds)
