"""Regret against retrains: the vectorized curve against loops in float64, and what must hold of any choice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from attriboard.base.errors import InputError
from attriboard.scoring.budget import budget_curves, default_budgets, draw_retrains, expected_regret, few_lds
from attriboard.scoring.rules import BEST, geometry, posterior
from attriboard.scoring.split import split_test_points

N_GRID, N_MASKS, N_REPEATS, N_TEST = 5, 14, 3, 20


def problem(seed: int = 0, noise: float = 1.0):
    """Predictions of a grid, the third of which is best, and outputs with seed noise."""
    random = np.random.default_rng(seed)
    signal = random.normal(size=(N_MASKS, N_TEST))
    outputs = signal[:, None, :] + 0.3 * random.normal(size=(N_MASKS, N_REPEATS, N_TEST))
    distances = np.abs(np.arange(N_GRID) - 2)[:, None, None]
    predictions = signal[None] + noise * (0.2 + distances) * random.normal(size=(N_GRID, N_MASKS, N_TEST))
    return predictions, outputs, split_test_points(N_TEST, 0.4, 0)


def budget_curve(predictions, outputs, split, budgets, rule=BEST, **options):
    return budget_curves(predictions, outputs, split, budgets, {"rule": rule}, **options)["rule"]


def spearman(x, y):
    return 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else spearmanr(x, y).statistic


def slow_curve(predictions, outputs, split, budgets, n_draws, seed):
    """The definition, one correlation after the other."""
    masks, repeats = draw_retrains(N_MASKS, N_REPEATS, n_draws, seed)
    chosen, regret = [], []
    for k in budgets:
        for m, r in zip(masks, repeats, strict=True):
            mine, rest = m[:k], np.setdiff1d(np.arange(N_MASKS), m[:k])
            few = [
                np.mean([spearman(p[mine, t], outputs[mine, r[:k], t]) for t in split.calibration]) for p in predictions
            ]
            judged = [
                np.mean([spearman(p[rest, t], outputs[rest].mean(axis=1)[:, t]) for t in split.scoring])
                for p in predictions
            ]
            pick = int(np.argmax(few))
            chosen.append(pick)
            regret.append(max(judged) - judged[pick])
    shape = (len(budgets), n_draws)
    return np.reshape(chosen, shape), np.reshape(regret, shape)


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_what_loops_over_draws_masks_and_points_give(ties):
    predictions, outputs, split = problem()
    if ties:
        predictions, outputs = np.round(predictions), np.round(outputs)
    budgets = (2, 5, 12)
    found = budget_curve(predictions, outputs, split, budgets, n_draws=6, seed=3)
    chosen, regret = slow_curve(predictions, outputs, split, budgets, 6, 3)
    # Averages of equal numbers in another order may differ in the last bit, which decides nothing without ties.
    np.testing.assert_allclose(found.regret, regret, atol=1e-12)
    assert ties or (found.chosen == chosen).all()


def slow_q(predictions, outputs, spreads):
    """One correlation over all pairs of models and points, each point centered, for every grid point."""
    y = outputs - outputs.mean(axis=0)
    found = []
    for p, s in zip(predictions, spreads, strict=True):
        x = (p - p.mean(axis=0)) / s
        found.append((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))
    return np.array(found)


def test_choices_by_pooled_correlations_are_what_loops_give():
    predictions, outputs, split = problem(noise=2.0)
    known, k, draws = predictions[:, :, split.calibration], 5, 8
    spreads = known.std(axis=1)
    similarity = np.array(
        [[np.mean([np.corrcoef(a[:, t], b[:, t])[0, 1] for t in range(8)]) for b in known] for a in known]
    )
    prior = np.log([0.1, 0.2, 0.3, 0.3, 0.1])
    rule = posterior(similarity, prior, temperature=2.0)
    found = budget_curve(predictions, outputs, split, [k], rule, n_draws=draws, seed=1)
    masks, repeats = draw_retrains(N_MASKS, N_REPEATS, draws, 1)
    for draw, (m, r) in enumerate(zip(masks[:, :k], repeats[:, :k], strict=True)):
        p, y = known[:, m], outputs[m, r][:, split.calibration]
        q = slow_q(p, y, spreads)
        left = np.array([slow_q(np.delete(p, j, 1), np.delete(y, j, 0), spreads) for j in range(k)])
        v = max(np.median((k - 1) / k * ((left - left.mean(axis=0)) ** 2).sum(axis=0)), 1 / ((k - 1) * y.shape[1]))
        weights = np.exp(max(q.max(), 0.02) * q / (2 * v) + prior)
        assert found.chosen[0, draw] == np.argmax(similarity @ (weights / weights.sum()))


def test_outputs_of_masks_that_a_draw_does_not_choose_cannot_change_its_choice():
    predictions, outputs, split = problem()
    k, draws = 4, 8
    masks, _ = draw_retrains(N_MASKS, N_REPEATS, draws, 0)
    before = budget_curve(predictions, outputs, split, [k], n_draws=draws).chosen[0]
    for draw in range(draws):
        marked = outputs.copy()
        marked[np.setdiff1d(np.arange(N_MASKS), masks[draw, :k])] = 1e6
        assert budget_curve(predictions, marked, split, [k], n_draws=draws).chosen[0, draw] == before[draw]


def test_more_retrains_choose_better_on_average():
    predictions, outputs, split = problem(noise=1.5)
    mean = budget_curve(predictions, outputs, split, (2, 4, 8), n_draws=100).mean
    assert mean[0] > mean[2]
    assert (mean >= 0).all()


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_regret_is_never_negative_and_does_not_depend_on_the_scale_of_the_scores(seed):
    predictions, outputs, split = problem(seed)
    found = budget_curve(predictions, outputs, split, (2, 6), n_draws=5)
    scaled = budget_curve(predictions * 1e-30, outputs * 7 + 3, split, (2, 6), n_draws=5)
    assert (found.regret >= 0).all()
    assert (found.chosen == scaled.chosen).all()


def test_scores_that_are_not_finite_or_constant_count_as_zero():
    predictions, outputs, split = problem()
    predictions[1] = np.nan
    predictions[4] = 2.0
    curve = few_lds(predictions[:, :6], outputs[:6, 0])
    assert curve[1] == curve[4] == 0.0
    assert np.isfinite(budget_curve(predictions, outputs, split, [4], n_draws=3).regret).all()


@pytest.mark.parametrize("pooled", [False, True])
def test_the_expected_regret_is_zero_where_one_grid_point_is_far_ahead_and_not_where_two_are_close(pooled):
    predictions, outputs, _ = problem(noise=4.0)
    y = outputs[:, 0]
    shape = geometry(predictions)
    rule = posterior(shape.similarity) if pooled else BEST
    far = predictions.copy()
    far[2] = y
    regret, halving = expected_regret(far, y, rule, geometry(far))
    assert regret == pytest.approx(0.0, abs=1e-9)
    assert halving is None
    close = predictions.copy()
    random = np.random.default_rng(1)
    close[1], close[2] = (y + 2.0 * random.normal(size=y.shape) for _ in range(2))
    regret, halving = expected_regret(close, y, rule, geometry(close))
    assert regret > 0
    assert halving > N_MASKS


def test_a_choice_between_grid_points_is_judged_by_the_parabola():
    predictions, outputs, split = problem(noise=0.3)
    place = np.arange(N_GRID) / 2
    similarity = np.exp(-np.abs(np.subtract.outer(place, place)))
    # Predictions that change slowly along the grid, best between its second and third point.
    signal, off = outputs.mean(axis=1), predictions[0]
    predictions = np.stack([signal * np.cos(x - 0.7) + off * np.sin(x - 0.7) for x in place])
    budgets = [8]
    on = budget_curve(predictions, outputs, split, budgets, posterior(similarity), n_draws=30)
    between = budget_curve(predictions, outputs, split, budgets, posterior(similarity, positions=place), n_draws=30)
    assert (on.chosen == between.chosen).all()
    assert (on.regret >= 0).all()
    assert between.regret.mean() < on.regret.mean()


def test_default_budgets_double_up_to_half_of_the_masks():
    assert default_budgets(200) == (2, 4, 8, 16, 32, 64)
    assert default_budgets(64) == (2, 4, 8, 16, 32)
    assert default_budgets(5) == (2,)


@pytest.mark.parametrize("budgets", [[1], [13], []])
def test_budgets_out_of_range_are_refused(budgets):
    predictions, outputs, split = problem()
    with pytest.raises(InputError, match="budgets"):
        budget_curve(predictions, outputs, split, budgets)
