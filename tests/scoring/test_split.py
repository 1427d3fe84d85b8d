import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attriboard.base.digests import digest
from attriboard.base.errors import InputError
from attriboard.scoring.split import split_test_points


@settings(deadline=None)
@given(st.integers(2, 300), st.floats(0.01, 0.99), st.integers(0, 2**64 - 1))
def test_the_two_sides_are_sorted_and_share_out_all_points(n_test, calibration, seed):
    if not 0 < round(calibration * n_test) < n_test:
        return
    split = split_test_points(n_test, calibration, seed)
    assert split.calibration.size == round(calibration * n_test)
    np.testing.assert_array_equal(np.sort(np.concatenate([split.calibration, split.scoring])), np.arange(n_test))
    for side in (split.calibration, split.scoring):
        assert side.dtype == np.int64
        assert (np.diff(side) > 0).all()


@pytest.mark.parametrize(
    ("n_test", "seed", "expected"),
    [
        (500, 0, "6dcb5571c73883cc8465f36430ea834334da93bca0cddb1efd554d62a55ef150"),
        (481, 1, "4b1cd1c4a11b5e492e72a03d2932f21e47fd5106bd35eb9aca9199c3ce557e5e"),
    ],
)
def test_the_split_never_changes(n_test, seed, expected):
    split = split_test_points(n_test, 0.2, seed)
    assert digest([split.calibration.tolist(), split.scoring.tolist()]) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0.0, 0), "calibration = 0.0"),
        ((10, 1.0, 0), "calibration = 1.0"),
        ((10, float("nan"), 0), "calibration = nan"),
        ((10, 0.2, -1), "seed = -1"),
        ((2, 0.1, 0), "n_test = 2"),
        ((0, 0.5, 0), "n_test = 0"),
    ],
)
def test_splits_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        split_test_points(*arguments)
