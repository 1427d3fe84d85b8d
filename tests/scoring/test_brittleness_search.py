"""The ladder and its search, against looking at every rung; intervals against tabulated ones."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from attriboard.base.errors import InputError
from attriboard.scoring.brittleness import LadderSearch, exact_interval, ladder


@given(n_train=st.integers(3, 100_000), largest=st.floats(0.01, 0.99))
def test_rungs_ascend_from_one_to_the_top_in_steps_of_at_most_about_root_two(n_train, largest):
    top = round(largest * n_train)
    if not 0 < top < n_train:
        with pytest.raises(InputError, match="must lie in"):
            ladder(n_train, largest)
        return
    sizes = ladder(n_train, largest)
    assert (sizes[0], sizes[-1]) == (1, top)
    assert all(a < b <= max(a + 1, round(1.5 * a)) for a, b in itertools.pairwise(sizes))


def test_five_thousand_examples_take_a_few_rungs():
    assert len(ladder(5_000, 0.5)) < 26
    assert ladder(20, 0.5) == (1, 2, 3, 4, 6, 8, 10)


@given(n_rungs=st.integers(1, 40), threshold=st.integers(0, 41))
def test_the_search_finds_the_lowest_rung_that_flips_with_few_questions(n_rungs, threshold):
    sizes = tuple(3 * rung + 1 for rung in range(n_rungs))
    flips = {size: position >= threshold for position, size in enumerate(sizes)}
    search, asked = LadderSearch(sizes), []
    while (size := search.next_size) is not None:
        asked.append(size)
        search.answer(size, flips[size])
    expected = next((size for size in sizes if flips[size]), None)
    assert search.found == expected
    assert search.not_enough == max((size for size in sizes if not flips[size]), default=0)
    assert len(asked) == len(set(asked)) <= 1 + n_rungs.bit_length()
    if expected is None:
        assert asked == [sizes[-1]], "a point that never flips costs one question"


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (3, 10), (1, 1), (50, 200)])
def test_intervals_are_those_of_clopper_and_pearson(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(0.95, "exact")
    assert exact_interval(successes, trials) == pytest.approx((expected.low, expected.high))
