import math

import numpy as np
import pytest

from attriboard.leaderboard.ranks import difference_error, share_ranks


def test_error_of_a_paired_difference_is_test_variance_plus_jackknife_variance(make_record):
    a, b = make_record("iffim").lds, make_record("trak").lds
    points = np.array(a.per_test) - np.array(b.per_test)
    masks = np.array(a.mask_influence) - np.array(b.mask_influence)
    expected = points.var(ddof=1) / len(points) + masks.var(ddof=1) / len(masks)
    assert difference_error(a, b) == pytest.approx(math.sqrt(expected), rel=1e-12)


def test_jackknife_variance_of_a_mean_is_the_textbook_variance_of_a_mean():
    values = np.random.default_rng(0).normal(size=30)
    leave_one_out = (values.sum() - values) / (len(values) - 1)
    influence = (len(values) - 1) * (values.mean() - leave_one_out)
    assert influence.var(ddof=1) / 30 == pytest.approx(values.var(ddof=1) / 30, rel=1e-12)


def test_pairing_is_tighter_than_independent_intervals(make_record):
    a, b = make_record("iffim"), make_record("trak")
    unpaired = difference_error(a.lds.model_copy(update={"per_test": None}), b.lds)
    assert unpaired == pytest.approx(math.hypot(0.1, 0.1) / (2 * 1.96))
    assert difference_error(a.lds, b.lds) < unpaired


def test_vectors_of_other_test_points_are_not_paired(make_record):
    a, b = make_record("iffim").lds, make_record("trak").lds
    shorter = b.model_copy(update={"per_test": b.per_test[:-1]})
    assert difference_error(a, shorter) == pytest.approx(math.hypot(0.1, 0.1) / (2 * 1.96))


def test_methods_that_cannot_be_told_apart_share_a_rank(make_record):
    levels = {"a": 0.1, "b": 0.50, "c": 0.495, "d": 0.3}
    results = [make_record(name, level).lds for name, level in levels.items()]
    assert share_ranks(results) == [4, 1, 1, 3]


def test_each_group_is_compared_with_its_own_leader(make_record):
    base = make_record("iffim").lds.model_copy(update={"per_test": None})
    z = 1.96 * difference_error(base, base)
    results = [base.model_copy(update={"mean": 0.5 - step * z}) for step in (0.0, 0.9, 1.8, 2.6)]
    assert share_ranks(results) == [1, 1, 3, 3]


def test_no_result_gives_no_rank():
    assert share_ranks([]) == []
