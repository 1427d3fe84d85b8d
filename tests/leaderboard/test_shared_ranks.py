from leaderboard_records import make_record

from attriboard.leaderboard.ranks import share_ranks
from attriboard.scoring.differences import lds_difference


def test_methods_that_cannot_be_told_apart_share_a_rank():
    levels = {"a": 0.1, "b": 0.50, "c": 0.495, "d": 0.3}
    results = [make_record(name, level).lds for name, level in levels.items()]
    assert share_ranks(results) == [4, 1, 1, 3]


def test_each_group_is_compared_with_its_own_leader():
    base = make_record("iffim").lds.model_copy(update={"per_test": None})
    reach = lds_difference(base, base).ci95[1]
    results = [base.model_copy(update={"mean": 0.5 - step * reach}) for step in (0.0, 0.9, 1.8, 2.6)]
    assert share_ranks(results) == [1, 1, 3, 3]


def test_pairing_separates_what_independent_intervals_do_not():
    a, b = make_record("iffim", 0.5).lds, make_record("trak", 0.45).lds
    assert share_ranks([a, b]) == [1, 2]
    assert share_ranks([a.model_copy(update={"per_test": None}), b]) == [1, 1]


def test_no_result_gives_no_rank():
    assert share_ranks([]) == []
