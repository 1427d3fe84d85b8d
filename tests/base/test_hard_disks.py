"""Disks that are full or read-only, clocks that are wrong, and two runs in one folder at once."""

import errno
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from leaderboard_records import make_record
from tiny import PlainTinyTask, tiny_card

from attriboard.base.interchange import read_bergson
from attriboard.base.paths import replacing, write_atomically
from attriboard.base.scores import read_matrix
from attriboard.cli.ungraded import scores_saver
from attriboard.groundtruth.build import build_ground_truth, open_store
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.records.files import read_records, write_record

ROOT = Path(__file__).parents[2]


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes, as on a disk that is full; Python ignores the signal and sees EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_names_the_file_and_leaves_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    write_atomically(path, b"old")
    with full_after(1000), pytest.raises(OSError, match="File too large") as caught:
        write_atomically(path, bytes(10_000))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def outcome(value: float) -> Any:
    return SimpleNamespace(scores=np.full((40, 50), value, np.float32))


def test_scores_that_a_full_disk_cuts_short_leave_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    save = scores_saver(path)
    save(outcome(1.0))
    with full_after(1000), pytest.raises(OSError, match="File too large") as caught:
        save(outcome(2.0))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == [path]
    assert read_matrix(path).max() == 1.0
    save(outcome(3.0))
    assert read_matrix(path).max() == 3.0


def test_a_folder_of_scores_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "scores.bergson"
    with full_after(1000), pytest.raises(OSError, match="File too large"):
        scores_saver(path)(outcome(1.0))
    assert not list(tmp_path.iterdir())
    scores_saver(path)(outcome(1.0))
    assert read_bergson(path).shape == (40, 50)


def test_what_fails_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as place:
        place.write_text(f"new {1 // 0}")
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_a_build_on_a_full_disk_goes_on_where_there_is_room_again(tmp_path: Path) -> None:
    task = PlainTinyTask(tiny_card())
    with full_after(4000), pytest.raises(OSError, match=re.escape("bundle.safetensors")):
        build_ground_truth(task, tmp_path / "bundle.safetensors", open_store(task, tmp_path / "store"))
    assert not (tmp_path / "bundle.safetensors").exists()
    store = open_store(task, tmp_path / "store")
    assert (len(store), store.damaged) == (24, []), "what fitted is kept"
    build_ground_truth(task, tmp_path / "bundle.safetensors", store)
    assert read_ground_truth(tmp_path / "bundle.safetensors").card.n_masks == 8


def test_a_folder_that_cannot_be_written_says_which(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("a file")
    for folder in (tmp_path / "plain" / "inside", Path("/proc/nothing")):
        with pytest.raises(OSError, match=re.escape(str(folder))):
            write_record(make_record(), folder)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from leaderboard_records import make_record
from attriboard.records import write_record
for seed in range(40):
    write_record(make_record(seed=seed), Path(sys.argv[1]))
"""


def test_two_runs_that_write_the_same_records_into_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(ROOT / "tests")]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert len(read_records(tmp_path)) == 40
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json"}


def test_limits_and_pauses_do_not_hang_on_the_wall_clock() -> None:
    """A clock that is set back or forth moves none of them."""
    for module in ("attribution", "groundtruth", "retraining/engine.py", "evaluation", "records"):
        place = ROOT / "benchmark" / module
        for path in place.rglob("*.py") if place.is_dir() else [place]:
            assert "time.time(" not in path.read_text(encoding="utf-8"), path
