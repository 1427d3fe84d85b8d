import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr, spearmanr

from attriboard.base.errors import InputError
from attriboard.scoring.lds import correlate, lds, predict

SHAPES = st.tuples(st.integers(3, 12), st.integers(1, 5))
COARSE = st.integers(-3, 3).map(float)  # many ties
FINE = st.floats(-1e6, 1e6).map(lambda value: round(value, 3))


@st.composite
def prediction_pairs(draw, elements=COARSE | FINE):
    shape = draw(SHAPES)
    return draw(arrays(np.float64, shape, elements=elements)), draw(arrays(np.float64, shape, elements=elements))


def scipy_per_column(function, x, y):
    values = []
    for a, b in zip(x.T, y.T, strict=True):
        constant = np.ptp(a) == 0 or np.ptp(b) == 0
        values.append(0.0 if constant else function(a, b).statistic)
    return np.array(values)


def random_problem(seed, n_test=7, n_train=40, n_masks=30, n_repeats=3):
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((n_test, n_train)).astype(np.float32)
    masks = np.argsort(rng.random((n_masks, n_train)), axis=1) < n_train // 2
    outputs = (masks @ scores.T)[:, None] + 4.0 * rng.standard_normal((n_masks, n_repeats, n_test))
    return scores, masks, outputs


@given(prediction_pairs())
@settings(deadline=None)
def test_spearman_and_pearson_equal_scipy_with_and_without_ties(pair):
    x, y = pair
    result = correlate(x, y)
    np.testing.assert_allclose(result.spearman, scipy_per_column(spearmanr, x, y), atol=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scipy warns of nearly constant input
        np.testing.assert_allclose(result.pearson, scipy_per_column(pearsonr, x, y), atol=1e-6)
    assert result.mean == pytest.approx(result.spearman.mean())


@given(prediction_pairs())
def test_correlations_are_bounded_and_change_sign_with_the_prediction(pair):
    x, y = pair
    result, flipped = correlate(x, y), correlate(-x, y)
    for values in (result.spearman, result.pearson):
        assert (np.abs(values) <= 1.0).all()
    np.testing.assert_allclose(flipped.spearman, -result.spearman, atol=1e-12)
    np.testing.assert_allclose(flipped.pearson, -result.pearson, atol=1e-12)


@given(prediction_pairs(), st.randoms(use_true_random=False))
def test_order_of_masks_and_of_test_points_does_not_matter(pair, random):
    x, y = pair
    masks, tests = list(range(x.shape[0])), list(range(x.shape[1]))
    random.shuffle(masks)
    random.shuffle(tests)
    shuffled = correlate(x[masks][:, tests], y[masks][:, tests]).spearman
    np.testing.assert_allclose(shuffled, correlate(x, y).spearman[tests], atol=1e-12)


@given(prediction_pairs(elements=st.integers(-20, 20).map(float)))
def test_spearman_ignores_monotone_transforms(pair):
    x, y = pair
    expected = correlate(x, y).spearman
    np.testing.assert_array_equal(correlate(x**3 + 5.0, np.exp(y)).spearman, expected)


def test_lds_equals_a_plain_loop_over_test_points_in_float64():
    scores, masks, outputs = random_problem(0)
    expected = [
        spearmanr([scores[t, mask].astype(np.float64).sum() for mask in masks], outputs[:, :, t].mean(1)).statistic
        for t in range(len(scores))
    ]
    np.testing.assert_allclose(lds(scores, masks, outputs).spearman, expected, atol=1e-12)


def test_float32_scores_give_the_float64_result_where_a_float32_sum_would_not():
    rng = np.random.default_rng(1)
    scores = (1000.0 + rng.standard_normal((40, 4000))).astype(np.float32)
    masks = np.argsort(rng.random((60, 4000)), axis=1) < 2000
    outputs = rng.standard_normal((60, 40))
    exact = correlate(np.stack([scores[:, m].astype(np.longdouble).sum(1) for m in masks]), outputs)
    rough = correlate(masks.astype(np.float32) @ scores.T, outputs)
    ours = lds(scores, masks, outputs)
    assert np.abs(ours.spearman - exact.spearman).max() <= 1e-6
    assert np.abs(ours.pearson - exact.pearson).max() <= 1e-6
    assert np.abs(rough.spearman - exact.spearman).max() > 1e-4


def test_blocks_of_test_points_do_not_change_predictions(monkeypatch):
    scores, masks, _ = random_problem(2)
    whole = predict(scores, masks)
    monkeypatch.setattr("attriboard.scoring.lds._BLOCK_ELEMENTS", 90)
    np.testing.assert_allclose(predict(scores, masks), whole, rtol=1e-13, atol=1e-13)


def test_nan_infinite_and_constant_scores_and_constant_outputs_count_as_zero():
    scores, masks, outputs = random_problem(3)
    clean = lds(scores, masks, outputs)
    scores[0, 5], scores[1, 0], scores[2] = np.nan, np.inf, 0.1
    outputs[:, :, 3] = 7.0
    result = lds(scores, masks, outputs)
    assert result.n_degenerate == 4
    assert clean.n_degenerate == 0
    np.testing.assert_array_equal(result.spearman[:4], 0.0)
    np.testing.assert_array_equal(result.pearson[:4], 0.0)
    np.testing.assert_array_equal(result.spearman[4:], clean.spearman[4:])
    assert result.mean == pytest.approx(clean.spearman[4:].sum() / 7)


def test_constant_float64_scores_are_constant_in_spite_of_rounding():
    _, masks, outputs = random_problem(4)
    assert lds(np.full((7, 40), 0.1), masks, outputs).n_degenerate == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, m, o: (s[:, :-1], m, o), r"scores \(7, 39\) and masks \(30, 40\)"),
        (lambda s, m, o: (s[0], m, o), r"expected \(n_test, n_train\)"),
        (lambda s, m, o: (s, m.astype(int), o), "expected bool"),
        (lambda s, m, o: (s, m, o[:-1]), r"predictions \(30, 7\) and outputs \(29, 3, 7\)"),
        (lambda s, m, o: (s, m, o[..., :-1]), r"n_masks and n_test must agree"),
        (lambda s, m, o: (s, m, o[:, 0, 0]), r"outputs \(30,\)"),
        (lambda s, m, o: (s, m[:1], o[:1]), "n_masks ≥ 2"),
        (lambda s, m, o: (s, m, np.where(o == o[3, 1, 2], np.nan, o)), "1 of 630 are not finite"),
    ],
)
def test_wrong_input_is_refused_with_its_shape_and_the_rule(change, message):
    with pytest.raises(InputError, match=message):
        lds(*change(*random_problem(5)))
