"""Rules that choose from a few retrains: against loops in float64, and what a prior may and may not do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attriboard.scoring.rules import (
    BEST,
    PRIOR_DISTRUST,
    geometry,
    jackknife_variance,
    peak_offsets,
    pooled_correlations,
    posterior,
    prior_of_center,
    smoothed,
    values_beside,
)

N_GRID, K, N_TEST = 4, 6, 9


def measurements(seed=0, k=K):
    random = np.random.default_rng(seed)
    predictions = random.normal(size=(N_GRID, k, N_TEST)) * 10.0 ** random.integers(-3, 4, size=(N_GRID, 1, N_TEST))
    return predictions, random.normal(size=(k, N_TEST)) + 100.0, random.uniform(0.5, 2.0, size=(N_GRID, N_TEST))


def slow_pooled(predictions, outputs, spreads):
    """One correlation over all pairs, each point centered."""
    x = [(p[:, t] - p[:, t].mean()) / spreads[t] for p in [predictions] for t in range(p.shape[1])]
    y = [outputs[:, t] - outputs[:, t].mean() for t in range(outputs.shape[1])]
    x, y = np.concatenate(x), np.concatenate(y)
    return (x @ y) / np.sqrt((x @ x) * (y @ y))


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_the_pooled_correlation_is_one_correlation_over_all_pairs_of_models_and_points(seed):
    predictions, outputs, spreads = measurements(seed)
    weights = np.vstack([np.ones(K), np.random.default_rng(seed).multinomial(K, np.ones(K) / K, size=3)])
    found = pooled_correlations(predictions, outputs, spreads, weights)
    for w, row in zip(weights.astype(int), found, strict=True):
        drawn = np.repeat(np.arange(K), w)  # a weight of two is the same model twice
        for g in range(N_GRID):
            if len(set(drawn)) > 1:
                slow = slow_pooled(predictions[g, drawn], outputs[drawn], spreads[g])
                assert row[g] == pytest.approx(slow, abs=1e-9)


def test_points_whose_predictions_never_differ_count_for_nothing():
    predictions, outputs, _ = measurements()
    predictions[:, :, 3] = 7.0
    predictions[1, 2, 5] = np.nan
    shape = geometry(predictions)
    assert np.isinf(shape.spreads[:, 3]).all()
    assert np.isinf(shape.spreads[1, 5])
    found = pooled_correlations(predictions, outputs, shape.spreads, np.ones((1, K)))
    without = [t for t in range(N_TEST) if t not in (3, 5)]
    kept = (predictions[1:2, :, without], outputs[:, without], shape.spreads[1:2, without])
    y, kept_y = (o - o.mean(axis=0) for o in (outputs, kept[1]))
    same = pooled_correlations(*kept, np.ones((1, K))) * np.sqrt((kept_y**2).sum() / (y**2).sum())
    assert found[0, 1] == pytest.approx(same[0, 0])


def test_the_geometry_is_what_correlating_every_pair_of_grid_points_gives():
    predictions, _, _ = measurements(k=30)
    shape = geometry(predictions)
    assert shape.spreads == pytest.approx(predictions.std(axis=1))
    for g in range(N_GRID):
        for h in range(N_GRID):
            each = [np.corrcoef(predictions[g, :, t], predictions[h, :, t])[0, 1] for t in range(N_TEST)]
            assert shape.similarity[g, h] == pytest.approx(np.mean(each))


def test_the_variance_is_the_jackknifes_and_never_below_that_of_independent_points():
    predictions, outputs, spreads = measurements()
    pairs = list(zip(predictions, spreads, strict=True))
    without = np.array(
        [[slow_pooled(np.delete(p, j, 0), np.delete(outputs, j, 0), s) for p, s in pairs] for j in range(K)]
    )
    each = (K - 1) / K * ((without - without.mean(axis=0)) ** 2).sum(axis=0)
    assert jackknife_variance(predictions, outputs, spreads) == pytest.approx(
        max(np.median(each), 1 / ((K - 1) * N_TEST))
    )


def test_the_prior_is_a_bump_at_xis_pick_over_a_floor():
    prior = np.exp(prior_of_center([-2.0, -1.0, 3.0, np.nan], [-2.0] * 4))
    assert prior[0] > prior[1] > prior[2]
    assert prior[2] == pytest.approx(prior[3], rel=1e-6) == pytest.approx(PRIOR_DISTRUST / 12, rel=1e-6)
    assert prior_of_center([0.0, 1.0], [np.nan] * 2) == pytest.approx(np.log(PRIOR_DISTRUST / 12))
    fine = np.linspace(-6, 6, 2401)
    assert np.exp(prior_of_center(fine, np.zeros(2401))).sum() * 0.005 == pytest.approx(1.0, rel=1e-2)


def test_the_posteriors_utility_is_the_sum_over_which_point_is_best():
    random = np.random.default_rng(0)
    curves, variances = random.uniform(0, 0.5, size=(3, N_GRID)), np.array([1e-3, 1e-2, 1.0])
    similarity, prior = np.corrcoef(random.normal(size=(N_GRID, 8))), random.normal(size=N_GRID)
    found = posterior(similarity, prior, temperature=2.0).utility(curves, variances)
    for row, (curve, v) in enumerate(zip(curves, variances, strict=True)):
        p = np.array([np.exp(curve.max() * q / (2 * v) + b) for q, b in zip(curve, prior, strict=True)])
        slow = [sum(p[h] / p.sum() * similarity[g, h] for h in range(N_GRID)) for g in range(N_GRID)]
        assert found[row] == pytest.approx(slow)


def test_a_wrong_prior_wins_against_noise_and_loses_against_evidence():
    place = np.arange(-4.0, 4.5, 0.5)
    similarity = np.exp(-0.5 * (np.subtract.outer(place, place) / 1.5) ** 2)
    curve = 0.5 * similarity[np.flatnonzero(place == 2.0)[0]]
    rule = posterior(similarity, prior_of_center(place, np.full(len(place), -2.0)))
    (few,), _ = rule.choose(curve[None], np.array([0.5]))
    (many,), _ = rule.choose(curve[None], np.array([1e-4]))
    assert abs(place[few] + 2.0) <= 0.5
    assert place[many] == 2.0


@given(st.floats(-0.24, 0.24), st.floats(0.1, 5.0), st.permutations(range(5)))
@settings(max_examples=50, deadline=None)
def test_the_peak_of_a_parabola_is_found_whatever_the_order_of_the_grid(offset, bend, order):
    place = np.array([0.0, 0.5, 1.0, 1.5, 2.0])[list(order)]
    values = -bend * (place - 1.0 - offset)[None] ** 2
    at = values.argmax(axis=1)
    found = peak_offsets(values, at, place)
    assert place[at[0]] + found[0] == pytest.approx(1.0 + offset, abs=1e-9)
    assert values_beside(values, at, found, place)[0] == pytest.approx(0.0, abs=1e-9)


def test_between_grid_points_is_no_further_than_half_a_step_and_nowhere_at_the_ends():
    place = np.array([np.nan, 0.0, 0.5, 1.0])
    skewed = np.array([[0.0, 0.0, 1.0, 1.0 - 1e-9]])
    assert peak_offsets(skewed, np.array([2]), place)[0] == pytest.approx(0.25, abs=1e-6)
    for end in (0, 1, 3):
        assert peak_offsets(skewed, np.array([end]), place)[0] == 0.0
    values = np.array([[5.0, 0.0, 1.0, 0.5]])
    assert values_beside(values, np.array([0]), np.zeros(1), place)[0] == 5.0


def test_smoothing_keeps_a_broad_maximum_and_forgets_a_spike():
    positions = np.arange(9) / 2
    broad = np.exp(-0.5 * ((positions - 3) / 0.7) ** 2)
    spike = broad + 1.1 * (positions == 0.5)
    nothing = np.zeros(1)
    assert BEST.choose(spike[None], nothing)[0] == 1
    assert smoothed(positions).choose(spike[None], nothing)[0] == 6
    assert smoothed(positions, 1e-6).choose(spike[None], nothing)[0] == 1
    unplaced = np.where(positions == 0.5, np.nan, positions)
    assert smoothed(unplaced).choose(spike[None], nothing)[0] == 1
