"""Ranks and rank correlations between ground truths, against loops and against what is known."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import spearmanr

from attriboard.base.errors import InputError
from attriboard.scoring.questions import descending_ranks, rank_correlations, ranking, resampled_means


@dataclass(frozen=True)
class Result:
    mean: float
    per_test: tuple[float, ...] | None
    mask_influence: tuple[float, ...] | None


def results(levels, n_test=40, n_masks=30, noise=0.02, seed=0):
    """One result per level; test points and masks vary a little, each method by itself."""
    rng = np.random.default_rng(seed)
    found = []
    for level in levels:
        per_test = level + noise * rng.standard_normal(n_test)
        influence = noise * rng.standard_normal(n_masks)
        influence -= influence.mean()
        found.append(Result(float(per_test.mean()), tuple(per_test), tuple(influence)))
    return found


def test_means_under_resamples_are_those_of_drawing_points_and_masks_one_by_one():
    given = results([0.1, 0.5, 0.3], n_test=7, n_masks=5)
    found = resampled_means(given, 0, n_resamples=4)
    assert found[0] == pytest.approx([result.mean for result in given])
    words = [
        np.random.Philox(key=np.array([0, 2], dtype=np.uint64), counter=[0, 0, 0, stream]).random_raw(4 * n)
        for stream, n in ((0, 7), (1, 5))
    ]
    for b in range(4):
        for m, result in enumerate(given):
            total = 0.0
            for values, drawn in zip((result.per_test, result.mask_influence), words, strict=True):
                n = len(values)
                picks = [int(int(word >> np.uint64(11)) * 2.0**-53 * n) for word in drawn[b * n : (b + 1) * n]]
                total += sum(values[pick] for pick in picks) / n
            assert found[1 + b, m] == pytest.approx(total, abs=1e-12)


def test_truths_draw_the_same_points_and_other_masks():
    no_masks = [Result(r.mean, r.per_test, (0.0,) * 30) for r in results([0.1, 0.2, 0.3])]
    assert np.array_equal(resampled_means(no_masks, 0, 50), resampled_means(no_masks, 3, 50))
    one, other = (resampled_means(results([0.1, 0.2, 0.3]), truth, 50) for truth in (0, 3))
    assert not np.array_equal(one, other)


def test_clear_differences_have_certain_ranks_and_equal_methods_share_theirs():
    clear = ranking(resampled_means(results([0.1, 0.9, 0.5]), 0))
    assert clear.ranks.tolist() == clear.low.tolist() == clear.high.tolist() == [3, 1, 2]
    alike = ranking(resampled_means(results([0.5, 0.5, 0.5, 0.5], noise=0.2), 0))
    assert (alike.high - alike.low).min() >= 2
    assert descending_ranks(np.array([0.2, 0.5, 0.2])).tolist() == [2.5, 1, 2.5]


def test_rank_correlations_are_spearmans_and_their_intervals_hold_them():
    levels = {"a": [0.1, 0.4, 0.3, 0.8, 0.6], "b": [0.2, 0.3, 0.5, 0.6, 0.7], "c": [0.9, 0.5, 0.6, 0.1, 0.2]}
    means = {name: resampled_means(results(level, seed=3), k) for k, (name, level) in enumerate(levels.items())}
    found = rank_correlations(means)
    assert set(found) == {("a", "b"), ("a", "c"), ("b", "c")}
    for (one, other), correlation in found.items():
        expected = spearmanr(means[one][0], means[other][0]).statistic
        assert correlation.value == pytest.approx(expected, abs=1e-12)
        assert correlation.ci95[0] <= correlation.value <= correlation.ci95[1]
    assert found["a", "c"].ci95[1] < 0 < found["a", "b"].ci95[0]


def test_what_cannot_be_compared_is_refused():
    bare = [Result(0.1, None, None)] * 3
    with pytest.raises(InputError, match="cannot be resampled"):
        resampled_means(bare, 0)
    two = resampled_means(results([0.1, 0.2]), 0)
    with pytest.raises(InputError, match="at least three"):
        rank_correlations({"a": two, "b": two})
