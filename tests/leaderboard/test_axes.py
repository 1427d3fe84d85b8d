import itertools
import math

import pytest

from attriboard.leaderboard.axes import make_axis


def test_a_wide_range_is_logarithmic_and_zero_stands_a_decade_left():
    axis = make_axis("regularization", [1e-3, 0.0, 1.0, 1e-1, 1e-2])
    assert axis.log
    assert axis.values == (0.0, 1e-3, 1e-2, 1e-1, 1.0)
    assert axis.positions == pytest.approx((-4, -3, -2, -1, 0))
    assert axis.ticks[0] == (pytest.approx(-4), "0")


def test_labels_keep_apart_and_powers_of_ten_read_as_such():
    axis = make_axis("regularization", [0.0, 1e-3, 1.45e-3, 1e-2, 3.18e-2, 0.1, 1.0, 10.0])
    places = [place for place, _ in axis.ticks]
    assert [label for _, label in axis.ticks] == ["0", "0.001", "0.01", "0.0318", "1", "10"]
    assert min(b - a for a, b in itertools.pairwise(places)) >= (axis.positions[-1] - axis.positions[0]) / 10
    wide = make_axis("regularization", [10.0**exponent for exponent in range(-9, 4)])
    assert [label for _, label in wide.ticks][:2] == ["1e-9", "1e-7"]
    assert dict(make_axis("projection_dim", [2.0**k for k in range(6, 14)]).ticks)[math.log10(2048)] == "2048"


def test_none_stands_right_of_the_largest_number():
    axis = make_axis("projection_dim", [None, 64, 4096, 512])
    assert axis.values[-1] is None
    assert axis.position(None) > axis.position(4096)
    assert axis.ticks[-1] == (axis.positions[-1], "none")


def test_a_narrow_range_is_linear():
    axis = make_axis("epoch", [1, 3, 6, 12])
    assert not axis.log
    assert axis.positions == (1, 3, 6, 12)


def test_texts_and_truth_values_stand_in_their_order():
    assert make_axis("checkpoint_data", ["half", "full"]).values == ("full", "half")
    assert make_axis("normalize", [True, False]).values == (False, True)
