"""A slice of `make kill`: work killed at random moments goes on to the result of work that nobody killed."""

from pathlib import Path

import pytest
from killing.campaign import Campaign, kill_at_random
from killing.works import WORKS

from attriboard.base.paths import write_atomically


@pytest.mark.parametrize("name", WORKS)
def test_killed_work_goes_on_to_the_same_result(tmp_path: Path, name: str) -> None:
    outcome = kill_at_random(WORKS[name](), tmp_path, kills=3)
    assert (outcome.kills, outcome.differing, outcome.broken) == (3, 0, [])
    assert outcome.finished >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "removal"])
def test_killed_sweeps_and_removals_do_too(tmp_path: Path, name: str) -> None:
    outcome = kill_at_random(WORKS[name](), tmp_path, kills=10)
    assert (outcome.kills, outcome.differing, outcome.broken) == (10, 0, [])


def test_work_that_is_not_made_for_it_is_found_out(tmp_path: Path) -> None:
    """A file that is written in place, and work that counts its starts: neither survives unnoticed."""
    import time

    def in_place(folder: Path) -> None:
        with (folder / "x").open("wb", buffering=0) as file:
            for _ in range(50):
                file.write(b"x" * 10)
                time.sleep(0.002)

    def whole(folder: Path) -> None:
        if (folder / "x").exists() and (folder / "x").stat().st_size != 500:
            raise ValueError("torn")

    torn = kill_at_random(Campaign(in_place, lambda folder: 0, whole), tmp_path / "torn", kills=4)
    assert "ValueError: torn" in torn.broken

    def counts(folder: Path) -> None:
        path = folder / "starts"
        write_atomically(path, (path.read_bytes() if path.exists() else b"") + b"x")
        time.sleep(0.1)

    counted = kill_at_random(
        Campaign(counts, lambda folder: (folder / "starts").read_bytes(), lambda folder: None), tmp_path / "counts", 4
    )
    assert counted.differing > 0
