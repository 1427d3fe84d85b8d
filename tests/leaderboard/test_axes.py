import pytest

from attriboard.leaderboard.axes import make_axis


def test_a_wide_range_is_logarithmic_and_zero_stands_a_decade_left():
    axis = make_axis("regularization", [1e-3, 0.0, 1.0, 1e-1, 1e-2])
    assert axis.log
    assert axis.values == (0.0, 1e-3, 1e-2, 1e-1, 1.0)
    assert axis.positions == pytest.approx((-4, -3, -2, -1, 0))
    assert axis.ticks[0] == (pytest.approx(-4), "0")


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
