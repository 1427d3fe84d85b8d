"""A slice of `make fuzz`: hostile inputs that every parser refuses with one clear error."""

import os
from pathlib import Path

import pytest
from fuzzing.campaign import Tally, feed
from fuzzing.parsers import PARSERS


@pytest.mark.parametrize("name", PARSERS)
def test_no_hostile_input_is_accepted_crashes_or_hangs(tmp_path: Path, name: str) -> None:
    tally = Tally()
    feed(PARSERS[name], tmp_path, 40, tally, start=int(os.environ.get("ATTRIBOARD_FUZZ_SEED", "1")))
    assert tally.accepted == []
    assert tally.crashed == []
    assert tally.slow == []
    assert tally.refused >= 30
    assert not Path("/tmp/attriboard-was-here").exists(), "a YAML tag was run"


@pytest.mark.parametrize("name", PARSERS)
def test_the_good_document_behind_the_hostile_ones_is_accepted(tmp_path: Path, name: str) -> None:
    PARSERS[name].read(tmp_path, PARSERS[name].good)
