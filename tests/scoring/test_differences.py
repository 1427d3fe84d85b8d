"""Paired differences: what records hold gives the error of the bootstrap, and one t-interval decides everywhere."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import ttest_rel

from attriboard.base.errors import InputError
from attriboard.scoring.bootstrap import Bootstrap
from attriboard.scoring.differences import lds_difference, student_difference
from attriboard.scoring.influence import jackknife
from attriboard.scoring.lds import correlate
from attriboard.scoring.removal import paired_difference


@dataclass(frozen=True)
class Graded:
    """A result as records hold it."""

    mean: float
    ci95: tuple[float, float]
    per_test: tuple[float, ...] | None = None
    mask_influence: tuple[float, ...] | None = None


def graded(predictions, outputs):
    found = correlate(predictions, outputs)
    return Graded(found.mean, (-1.0, 1.0), tuple(found.spearman), tuple(jackknife(predictions, outputs)))


def test_influences_equal_leaving_each_mask_out():
    rng = np.random.default_rng(8)
    x = rng.standard_normal((12, 5)).round(1)
    y = (x + 1.5 * rng.standard_normal(x.shape)).round(1)
    influence, mean = jackknife(x, y), correlate(x, y).mean
    for k in range(12):
        kept = np.arange(12) != k
        assert influence[k] == pytest.approx(11 * (mean - correlate(x[kept], y[kept]).mean), abs=1e-12)
    with pytest.raises(InputError, match="at least three"):
        jackknife(x[:2], y[:2])


def test_jackknife_variance_of_a_mean_is_the_textbook_variance_of_a_mean():
    values = np.random.default_rng(0).normal(size=30)
    leave_one_out = (values.sum() - values) / (len(values) - 1)
    influence = (len(values) - 1) * (values.mean() - leave_one_out)
    assert influence.var(ddof=1) / 30 == pytest.approx(values.var(ddof=1) / 30, rel=1e-12)


@pytest.mark.parametrize(("rank", "noise", "highest"), [(6, 0.5, 1.1), (20, 1.0, 1.2), (50, 2.0, 1.4)])
def test_what_records_hold_gives_the_bootstraps_paired_error_or_a_little_more(rank, noise, highest):
    rng = np.random.default_rng(9)
    ratios = []
    for _ in range(15):
        truth, shared, own_a, own_b = rng.standard_normal((4, 80, rank))
        masks = rng.standard_normal((80, rank))
        y = masks @ truth.T / rank**0.5 + noise * rng.standard_normal((80, 80))
        a, b = (masks @ (s * truth + shared + own).T for s, own in ((0.8, own_a), (0.6, own_b)))
        stored = lds_difference(graded(a, y), graded(b, y))
        direct = Bootstrap(y, n_resamples=200).difference(a, b)
        assert stored.mean == pytest.approx(direct.mean, abs=1e-12)
        ratios.append(stored.se / direct.se)
    assert 0.95 < np.mean(ratios) < highest


def test_error_is_test_variance_plus_jackknife_variance_and_the_interval_students():
    rng = np.random.default_rng(1)
    (a_t, b_t), (a_k, b_k) = rng.normal(size=(2, 40)), rng.normal(size=(2, 12))
    found = lds_difference(
        Graded(a_t.mean(), (0.0, 1.0), tuple(a_t), tuple(a_k)), Graded(b_t.mean(), (0.0, 1.0), tuple(b_t), tuple(b_k))
    )
    se = math.sqrt((a_t - b_t).var(ddof=1) / 40 + (a_k - b_k).var(ddof=1) / 12)
    low, high = student.interval(0.95, 11, loc=a_t.mean() - b_t.mean(), scale=se)
    assert found.se == pytest.approx(se, rel=1e-12)
    assert found.ci95 == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("change", [{}, {"per_test": (0.1,)}, {"per_test": (0.1, 0.2), "mask_influence": (0.1,)}])
def test_results_whose_vectors_are_not_of_the_same_samples_have_independent_intervals(change):
    a, b = Graded(0.5, (0.4, 0.6), (0.4, 0.6), (0.0, 0.1)), Graded(0.3, (0.25, 0.35), **change)
    found = lds_difference(a, b)
    reach = math.hypot(0.1, 0.05)
    assert found.ci95 == pytest.approx((0.2 - reach, 0.2 + reach), rel=1e-12)
    assert found.significant


def test_a_difference_is_odd_and_its_interval_and_p_value_agree():
    rng = np.random.default_rng(2)
    for shift in (0.0, 0.3, 0.6, 1.0):
        a, b = rng.normal(size=8) + shift, rng.normal(size=8)
        there, back = paired_difference(a, b), paired_difference(b, a)
        assert there.mean == -back.mean
        assert there.ci95 == (-back.ci95[1], -back.ci95[0])
        assert there.significant == (there.p < 0.05)
        assert there.p == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-9)


@pytest.mark.parametrize(("mean", "p"), [(0.0, 1.0), (0.1, 0.0)])
def test_differences_without_spread_say_everything_or_nothing(mean, p):
    found = student_difference(mean, 0.0, 5)
    assert (found.p, found.ci95, found.significant) == (p, (mean, mean), mean != 0)


def test_a_known_bias_moves_the_interval_which_still_holds_the_mean():
    shifted = student_difference(0.2, 0.1, 100, bias=0.05)
    assert sum(shifted.ci95) / 2 == pytest.approx(0.15)
    assert student_difference(0.2, 0.01, 100, bias=0.1).ci95[1] == 0.2
