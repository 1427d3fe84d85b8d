"""The interval against a factor model whose true mean LDS is known.

Masks are standard normal vectors z; test point t predicts a_t·z and its target is b_t·z + noise. Shared
factors make a mask effect, random a_t and b_t a test effect.
"""

import numpy as np
import pytest

from attriboard.scoring.bootstrap import Bootstrap


def draw_points(rng, n_test, rank, strength, spread):
    truth = rng.standard_normal((n_test, rank)) / rank**0.5
    slopes = strength + spread * rng.standard_normal((n_test, 1))
    return slopes * truth + rng.standard_normal((n_test, rank)) / rank**0.5, truth


def population_lds(a, b, noise):
    lengths = np.linalg.norm(a, axis=1) * np.sqrt((b * b).sum(axis=1) + noise**2)
    return float((6 / np.pi * np.arcsin((a * b).sum(axis=1) / lengths / 2)).mean())


@pytest.mark.parametrize(
    ("n_masks", "n_test", "rank", "strength", "spread", "noise"),
    [
        (50, 40, 20, 0.5, 0.3, 1.0),
        (60, 60, 8, 2.0, 0.0, 0.5),  # a strong method: bias is what goes wrong
        (60, 60, 100, 0.0, 0.0, 1.0),  # no signal: overdispersion is what goes wrong
    ],
)
def test_the_interval_covers_the_truth_about_95_times_in_100(n_masks, n_test, rank, strength, spread, noise):
    rng = np.random.default_rng(0)
    truth = population_lds(*draw_points(rng, 100_000, rank, strength, spread), noise)
    n_trials, hits, errors, widths = 300, 0, [], []
    for seed in range(n_trials):
        a, b = draw_points(rng, n_test, rank, strength, spread)
        masks = rng.standard_normal((n_masks, rank))
        outputs = masks @ b.T + noise * rng.standard_normal((n_masks, n_test))
        interval = Bootstrap(outputs, n_resamples=100, seed=seed).interval(masks @ a.T)
        hits += interval.ci95[0] <= truth <= interval.ci95[1]
        errors.append(interval.estimate - truth)
        widths.append(interval.se)
    assert 0.915 <= hits / n_trials <= 0.985  # three binomial standard errors are 3.8 %
    assert np.mean(widths) == pytest.approx(np.std(errors), rel=0.15)
