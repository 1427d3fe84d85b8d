import time

import numpy as np
import pytest
from scipy.stats import spearmanr

from attriboard.base.errors import InputError
from attriboard.scoring.bootstrap import Bootstrap
from attriboard.scoring.lds import correlate


def noisy_pair(seed, n_masks=40, n_test=20, noise=1.5):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_masks, n_test))
    return x, x + noise * rng.standard_normal(x.shape)


def test_standard_error_equals_that_of_a_plain_two_way_bootstrap_less_its_overdispersion():
    x, y = noisy_pair(0)
    rng = np.random.default_rng(1)
    n_masks, n_test = x.shape
    plain, by_mask = [], []
    for _ in range(400):
        masks, tests = rng.integers(0, n_masks, n_masks), rng.integers(0, n_test, n_test)
        values = np.array([spearmanr(x[masks, t], y[masks, t]).statistic for t in range(n_test)])
        plain.append(values[tests].mean())
        by_mask.append(values.mean())
    v_two, v_mask = np.var(plain, ddof=1), np.var(by_mask, ddof=1)
    v_test = correlate(x, y).spearman.var(ddof=1) / n_test
    noise = v_two - v_mask - v_test
    expected = max(v_test, v_mask, v_test + v_mask - noise)
    assert Bootstrap(y).interval(x).se == pytest.approx(np.sqrt(expected), rel=0.15)


def test_interval_holds_the_mean_lds_and_depends_on_the_seed_only():
    x, y = noisy_pair(2)
    first, again, other = Bootstrap(y).interval(x), Bootstrap(y).interval(x), Bootstrap(y, seed=1).interval(x)
    assert first == again
    assert first != other
    assert first.estimate == pytest.approx(correlate(x, y).mean, abs=1e-12)
    assert first.ci95[0] <= first.estimate <= first.ci95[1]


def test_golden_interval_never_changes():
    x, y = noisy_pair(3)
    interval = Bootstrap(np.round(y, 1), n_resamples=200, seed=7).interval(np.round(x, 1))
    assert interval.estimate == pytest.approx(0.515557025284, abs=1e-9)
    assert interval.ci95 == pytest.approx((0.462858073729, 0.582916370340), abs=1e-9)


def test_perfect_and_degenerate_predictions_have_intervals_of_no_width():
    x, _ = noisy_pair(4)
    perfect, nothing = Bootstrap(x).interval(x), Bootstrap(x).interval(np.zeros_like(x))
    assert perfect.ci95 == pytest.approx((1.0, 1.0), abs=1e-12)
    assert nothing.ci95 == (0.0, 0.0)
    assert np.isfinite(Bootstrap(x).interval(np.where(x == x[0, 0], np.nan, x)).se)


def test_two_hundred_masks_and_four_hundred_test_points_take_under_five_seconds():
    x, y = noisy_pair(5, 200, 400)
    start = time.process_time()  # of this process alone, however busy the machine is
    Bootstrap(y).interval(x)
    assert time.process_time() - start < 5.0


def test_a_paired_difference_is_zero_for_equals_and_odd_in_its_arguments():
    x, y = noisy_pair(6)
    z = x + np.random.default_rng(7).standard_normal(x.shape)
    same, forth, back = Bootstrap(y).difference(x, x), Bootstrap(y).difference(x, z), Bootstrap(y).difference(z, x)
    assert (same.mean, same.ci95, same.significant) == (0.0, (0.0, 0.0), False)
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert forth.significant


def test_wrong_input_is_refused():
    x, y = noisy_pair(10)
    with pytest.raises(InputError, match="at least two test points"):
        Bootstrap(y[:, :1])
    with pytest.raises(InputError, match="n_resamples = 1"):
        Bootstrap(y, n_resamples=1)
    with pytest.raises(InputError, match="seed = -1"):
        Bootstrap(y, seed=-1)
    with pytest.raises(InputError, match=r"predictions \(39, 20\) and outputs \(40, 20\)"):
        Bootstrap(y).difference(x, x[:-1])
