"""Removal orders, balanced shares and paired differences, against plain twins and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from attriboard.base.errors import InputError
from attriboard.scoring.removal import (
    kept_rows,
    mean_and_error,
    paired_difference,
    removal_order,
    removal_size,
    summed_scores,
)


def test_scores_are_summed_over_the_points_asked_for_without_rows_that_have_nan():
    scores = np.array([[1, 2], [np.nan, 5], [3, -4], [9, 9]], np.float32)
    sums, n_degenerate = summed_scores(scores, np.array([0, 1, 2]))
    assert (sums.tolist(), n_degenerate, sums.dtype) == ([4.0, -2.0], 1, np.float64)
    with pytest.raises(InputError, match="all 1 calibration points have NaN"):
        summed_scores(scores, np.array([1]))


def test_helpful_examples_go_first_or_harmful_ones_and_ties_by_index():
    sums = np.array([1.0, 3.0, 3.0, -2.0])
    assert removal_order(sums, "helpful").tolist() == [1, 2, 0, 3]
    assert removal_order(sums, "harmful").tolist() == [3, 0, 1, 2]


@settings(deadline=None)
@given(
    classes=st.lists(st.integers(0, 4), min_size=2, max_size=60), rate=st.floats(0.05, 0.95), seed=st.integers(0, 99)
)
def test_balanced_removal_takes_the_first_of_every_class_in_proportion(classes, rate, seed):
    classes = np.array(classes)
    n = len(classes)
    n_removed = min(max(round(rate * n), 1), n - 1)
    order = np.random.default_rng(seed).permutation(n)
    kept = kept_rows(order, n_removed, classes)
    assert len(kept) == n - n_removed
    assert kept.tolist() == sorted(set(kept.tolist()))
    for name in set(classes.tolist()):
        mine = [int(row) for row in order if classes[row] == name]
        n_gone = len(mine) - sum(row in kept for row in mine)
        assert set(mine[n_gone:]) <= set(kept.tolist()), "the first of the order go"
        assert abs(n_gone - n_removed * len(mine) / n) < 1


@given(n=st.integers(2, 50), seed=st.integers(0, 99), data=st.data())
def test_plain_removal_takes_the_first(n, seed, data):
    order = np.random.default_rng(seed).permutation(n)
    n_removed = data.draw(st.integers(1, n - 1))
    assert set(kept_rows(order, n_removed).tolist()) == set(range(n)) - set(order[:n_removed].tolist())


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 0.001, 0.9999, float("nan")])
def test_a_rate_must_remove_some_and_leave_some(rate):
    with pytest.raises(InputError, match="must lie in"):
        removal_size(rate, 100)


def test_a_rate_removes_the_nearest_whole_number():
    assert [removal_size(rate, 1297) for rate in (0.1, 0.3, 0.5)] == [130, 389, 648]


def test_paired_differences_agree_with_scipy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=10), rng.normal(size=10) + 0.5
    found, expected = paired_difference(a, b), ttest_rel(a, b)
    interval = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.ci95 == pytest.approx((interval.low, interval.high))
    assert found.mean == pytest.approx((a - b).mean())


def test_equal_values_differ_not_at_all_and_constant_differences_certainly():
    same = paired_difference(np.ones(3), np.ones(3))
    assert (same.mean, same.p, same.ci95) == (0.0, 1.0, (0.0, 0.0))
    assert paired_difference(np.ones(3) * 2, np.ones(3)).p == 0.0


def test_one_seed_has_a_mean_and_no_error():
    assert mean_and_error(np.array([0.5])) == (0.5, None)
    with pytest.raises(InputError, match="at least two"):
        paired_difference(np.ones(1), np.ones(1))
