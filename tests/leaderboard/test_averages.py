"""Averages over selectors: one common subset for every line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from leaderboard_records import make_cost

from attriboard.leaderboard.common import largest_common
from attriboard.leaderboard.cost_average import average_table, cost_average
from attriboard.leaderboard.plots.selection_cost import average_figure
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.site import Site


def site_of(*records, mine=()):
    entries = [Entry(record, record.id, Path()) for record in records]
    return Site([*entries, *(Entry(record, record.id, Path(), mine=True) for record in mine)], [], {})


def test_a_selector_with_little_in_common_is_left_out():
    cases = {"many": range(40), "some": range(12), "few": range(2, 12), "odd": [39]}
    assert largest_common(cases) == (frozenset({"many"}), frozenset(range(40)))
    assert largest_common(cases, always=20) == (frozenset({"many"}), frozenset(range(40)))
    assert largest_common({"a": range(10), "b": range(9), "c": [9]}) == (frozenset("ab"), frozenset(range(9)))
    assert largest_common({"a": [1], "b": [2]}) == (frozenset("a"), frozenset({1}))
    assert largest_common({}) == (frozenset(), frozenset())


@given(st.dictionaries(st.text(max_size=2), st.frozensets(st.integers(0, 6), min_size=1), max_size=5))
def test_every_compared_selector_has_every_common_case(cases):
    compared, common = largest_common(cases)
    assert all(common <= cases[name] for name in compared)
    assert len(compared) * len(common) >= max((len(found) for found in cases.values()), default=0)


def test_the_average_is_over_the_same_pairs_for_every_line():
    second = make_cost("trak", rules__best__mean=[0.2, 0.1, 0.04])
    average = cost_average(site_of(make_cost("iffim"), second).tasks.values())
    assert (average.n, list(average.budgets)) == (2, [2, 8, 16])
    assert average.rules["best"] == pytest.approx([0.15, 0.08885, 0.03])
    assert average.picks == {"default": 0.3, "surrogate": 0.05}, "gcv chose nowhere"
    assert average.oracle == 0.0
    assert "same 2 pairs of method and task for every line: of 2 pairs" in average_table(average).caption
    rows = {row.name: row for row in average_table(average).rows}
    assert list(rows) == ["between", "best", "surrogate", "default", "oracle"], "the best first"
    assert rows["best"].cell("k8").text == "0.0889"
    assert (rows["surrogate"].cell("k0").text, rows["surrogate"].cell("k8").text) == ("0.0500", "—")
    drawn = average_figure(average.budgets, average.rules, average.picks["surrogate"], average.oracle)
    assert "ξ 0.050 without retrains; between 0.040 with 2 retrains, 0.004 with 16" in drawn
    assert "; the oracle 0.000 with all" in drawn
    assert drawn.count("<svg") == 2, "one for a desk, one for a phone"
    assert drawn.count(">oracle<") == 2, "the place of its ring"


def test_one_record_is_no_average_and_own_ones_do_not_count():
    assert cost_average(site_of(make_cost()).tasks.values()) is None
    assert cost_average(site_of(make_cost(), mine=[make_cost("trak")]).tasks.values()) is None
    assert cost_average([]) is None
