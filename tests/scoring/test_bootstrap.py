import time

import numpy as np
import pytest
from scipy.stats import spearmanr

from attriboard.base.errors import InputError
from attriboard.scoring.bootstrap import bootstrap, paired_bootstrap
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
    assert bootstrap(x, y).se == pytest.approx(np.sqrt(expected), rel=0.15)


def test_interval_holds_the_mean_lds_and_depends_on_the_seed_only():
    x, y = noisy_pair(2)
    first, again, other = bootstrap(x, y), bootstrap(x, y), bootstrap(x, y, seed=1)
    assert first == again
    assert first != other
    assert first.estimate == pytest.approx(correlate(x, y).mean, abs=1e-12)
    assert first.ci95[0] <= first.estimate <= first.ci95[1]


def test_golden_interval_never_changes():
    x, y = noisy_pair(3)
    interval = bootstrap(np.round(x, 1), np.round(y, 1), n_resamples=200, seed=7)
    assert interval.estimate == pytest.approx(0.515557025284, abs=1e-9)
    assert interval.ci95 == pytest.approx((0.462858073729, 0.582916370340), abs=1e-9)


def test_perfect_and_degenerate_predictions_have_intervals_of_no_width():
    x, _ = noisy_pair(4)
    perfect, nothing = bootstrap(x, x), bootstrap(np.zeros_like(x), x)
    assert perfect.ci95 == pytest.approx((1.0, 1.0), abs=1e-12)
    assert nothing.ci95 == (0.0, 0.0)
    assert np.isfinite(bootstrap(np.where(x == x[0, 0], np.nan, x), x).se)


def test_two_hundred_masks_and_four_hundred_test_points_take_under_five_seconds():
    x, y = noisy_pair(5, 200, 400)
    start = time.process_time()  # of this process alone, however busy the machine is
    bootstrap(x, y)
    assert time.process_time() - start < 5.0


def test_a_paired_difference_is_zero_for_equals_and_odd_in_its_arguments():
    x, y = noisy_pair(6)
    z = x + np.random.default_rng(7).standard_normal(x.shape)
    same, forth, back = paired_bootstrap(x, x, y), paired_bootstrap(x, z, y), paired_bootstrap(z, x, y)
    assert (same.mean, same.ci95, same.significant) == (0.0, (0.0, 0.0), False)
    assert forth.mean == pytest.approx(-back.mean)
    assert forth.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert forth.significant


def test_wrong_input_is_refused():
    x, y = noisy_pair(10)
    with pytest.raises(InputError, match="at least two test points"):
        bootstrap(x[:, :1], y[:, :1])
    with pytest.raises(InputError, match="n_resamples = 1"):
        bootstrap(x, y, n_resamples=1)
    with pytest.raises(InputError, match="seed = -1"):
        bootstrap(x, y, seed=-1)
    with pytest.raises(InputError, match=r"predictions \(39, 20\) and outputs \(40, 20\)"):
        paired_bootstrap(x, x[:-1], y)
