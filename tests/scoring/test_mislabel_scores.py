"""AUC, DeLong's interval, average precision and recall, against scikit-learn and plain counting."""

from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from attriboard.base.errors import InputError
from attriboard.scoring.mislabel import INSPECTED, detect, suspicion_of_self, suspicion_of_sums


@settings(deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(8, 60), levels=st.integers(2, 50))
def test_auc_and_average_precision_agree_with_scikit_learn_also_with_ties(seed, n, levels):
    rng = np.random.default_rng(seed)
    wrong = np.zeros(n, bool)
    wrong[rng.choice(n, size=n // 3, replace=False)] = True
    suspicion = rng.integers(0, levels, n) + wrong * levels / 3
    found = detect(suspicion, wrong)
    assert found.auc == pytest.approx(roc_auc_score(wrong, suspicion))
    distinct = suspicion + 1e-9 * rng.permuted(np.tile(np.arange(n), (500, 1)), axis=1)
    assert detect(distinct[0], wrong).average_precision == pytest.approx(average_precision_score(wrong, distinct[0]))
    hits = wrong[np.argsort(-distinct, axis=1)]
    orders = (hits * np.cumsum(hits, axis=1) / np.arange(1, n + 1)).sum(axis=1) / wrong.sum()
    assert found.average_precision == pytest.approx(orders.mean(), abs=5 * orders.std() / np.sqrt(500) + 1e-9)
    assert found.ci95[0] <= found.auc <= found.ci95[1]


def test_delongs_error_is_the_one_from_counting_pairs():
    rng = np.random.default_rng(3)
    wrong = np.arange(50) < 12
    suspicion = np.round(rng.normal(size=50) + wrong, 1)
    x, y = suspicion[wrong], suspicion[~wrong]
    wins = (x[:, None] > y[None, :]) + 0.5 * (x[:, None] == y[None, :])
    error = np.sqrt(wins.mean(1).var(ddof=1) / len(x) + wins.mean(0).var(ddof=1) / len(y))
    found = detect(suspicion, wrong)
    assert found.ci95 == pytest.approx((found.auc - 1.96 * error, min(1.0, found.auc + 1.96 * error)))


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    truth = 0.7602499  # of normal scores one standard deviation apart: Φ(1/√2)
    hits = 0
    for _ in range(400):
        wrong = np.arange(300) < 40
        low, high = detect(rng.normal(size=300) + wrong, wrong).ci95
        hits += low <= truth <= high
    assert 0.91 < hits / 400 < 0.98


def test_recall_counts_the_wrong_labels_among_the_most_suspicious():
    wrong = np.zeros(100, bool)
    wrong[[0, 5, 50, 99]] = True
    suspicion = -np.arange(100.0)
    recall = dict(zip(INSPECTED, detect(suspicion, wrong).recall, strict=True))
    assert (recall[0.01], recall[0.05], recall[0.1], recall[0.5], recall[0.6]) == (0.25, 0.25, 0.5, 0.5, 0.75)


@pytest.mark.parametrize(
    "suspicion", [[2, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 3, 3, 3], [4, np.nan, np.nan, 1, np.nan]]
)
@pytest.mark.parametrize("wrong", [[0, 1, 0, 0, 1], [1, 1, 0, 0, 0], [0, 0, 1, 1, 1]])
def test_ties_are_averaged_over_every_order_that_they_allow(suspicion, wrong):
    suspicion, wrong = np.array(suspicion, float), np.array(wrong, bool)
    values = np.where(np.isnan(suspicion), -np.inf, suspicion)
    orders = [list(o) for o in permutations(range(5)) if all(values[a] >= values[b] for a, b in pairwise(o))]
    hits = wrong[np.array(orders)]
    precision = np.cumsum(hits, axis=1) / np.arange(1, 6)
    found = detect(suspicion, wrong)
    assert found.average_precision == pytest.approx(
        np.mean([p[h].mean() for p, h in zip(precision, hits, strict=True)])
    )
    for share, recall in zip(INSPECTED, found.recall, strict=True):
        assert recall == pytest.approx(hits[:, : max(1, round(share * 5))].sum(axis=1).mean() / wrong.sum())


def test_a_constant_suspicion_finds_what_chance_finds_however_the_wrong_labels_lie():
    for wrong in (np.arange(100) < 10, np.arange(100) >= 90):
        found = detect(np.zeros(100), wrong)
        assert found.auc == 0.5
        assert found.recall == pytest.approx(INSPECTED)
        assert 0.1 < found.average_precision < 0.16


def test_nan_is_the_least_suspicious_and_nothing_but_nan_is_refused():
    wrong = np.array([True, True, False, False])
    assert detect(np.array([3.0, 2.0, np.nan, 1.0]), wrong).auc == 1.0
    with pytest.raises(InputError, match="all 4 examples is NaN"):
        detect(np.full(4, np.nan), wrong)
    with pytest.raises(InputError, match="1 of 4 labels"):
        detect(np.arange(4.0), np.array([True, False, False, False]))


def test_suspicion_is_self_influence_or_harm():
    assert suspicion_of_self(np.array([[1, 2], [3, 4]], np.float32)).tolist() == [1.0, 4.0]
    assert suspicion_of_sums(np.array([1.0, -2.0])).tolist() == [-1.0, 2.0]
