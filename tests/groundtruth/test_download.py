"""Pull from servers that misbehave: the right file, or a clear error and no file."""

import errno
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from faulty_server import FAULTS, SURVIVABLE, FaultyServer, serving

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import DataError
from attriboard.groundtruth.download import Patience, Pinned, address, fetch_file

CONTENT = np.random.default_rng(0).bytes(1_000_000)
PINNED = Pinned(digest_bytes(CONTENT), len(CONTENT))
HASTY = Patience(attempts=3, pause=0.01, longest_pause=0.05)
CURT = replace(HASTY, silence=0.3)
SILENT = ("stalls", "stalls_once", "drips")
"""Faults that show by time alone."""


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with serving(CONTENT) as running:
        yield running


@pytest.fixture(autouse=True)
def forget(server: FaultyServer) -> None:
    server.asked.clear()
    server.gate.set()


def fetch(server: FaultyServer, target: Path, *faults: str) -> Path:
    patience = CURT if set(faults) & set(SILENT) else HASTY
    return fetch_file(target, PINNED, [f"{server.url}/{fault}/x.bin" for fault in faults], patience=patience)


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


@pytest.mark.parametrize("fault", SURVIVABLE)
def test_a_fault_that_can_be_survived_is(server: FaultyServer, tmp_path: Path, fault: str) -> None:
    path = fetch(server, tmp_path / "x.bin", fault)
    assert path.read_bytes() == CONTENT
    assert left_over(tmp_path) == ["x.bin"]


FATAL = {
    "stalls": "timed out.* \\(3 attempts\\)",
    "drips": "stalled: \\d+ bytes in|bytes came|timed out",
    "404": "HTTP 404",
    "403": "HTTP 403",
    "429": "HTTP 429 \\(3 attempts\\)",
    "500": "HTTP 500 \\(3 attempts\\)",
    "late": "HTTP 503 \\(3 attempts\\)",
    "other_bytes": "has other bytes than those pinned by SHA-256",
    "other_end": "has other bytes than those pinned by SHA-256",
    "html": "26 of 1000000 bytes came|does not|HTTP 416|answers|other bytes",
    "too_long": "has 1000004 bytes, the file has 1000000",
    "endless": "sends more than the 1000000 bytes",
    "claims_more": "has 1000100 bytes, the file has 1000000",
    "claims_less": "bytes came|answers|other",
    "claims_nonsense": "attempts|no address",
    "wrong_range": "answers a request for the bytes from 300000 on with 5",
    "gzip": "bytes came|other bytes|answers",
    "redirects_in_circles": "redirects without end",
    "redirects_to_a_file": "leads to no address",
    "no_http": "attempts",
}


def test_every_fault_is_tried() -> None:
    assert {*SURVIVABLE, *FATAL} == set(FAULTS)


@pytest.mark.parametrize("fault", FATAL)
def test_a_fault_that_cannot_be_survived_is_a_clear_error_and_no_file(
    server: FaultyServer, tmp_path: Path, fault: str
) -> None:
    with pytest.raises(DataError, match=rf"(?s)x\.bin: no source has it:\n.*/{fault}/x\.bin: .*({FATAL[fault]})"):
        fetch(server, tmp_path / "x.bin", fault)
    assert not (tmp_path / "x.bin").exists()
    assert server.times(fault) < 12, "it comes to an end"


@pytest.mark.parametrize("fault", ["404", "other_end", "html", "wrong_range", "drips", "too_long"])
def test_the_next_mirror_is_asked_where_one_fails(server: FaultyServer, tmp_path: Path, fault: str) -> None:
    assert fetch(server, tmp_path / "x.bin", fault, "good").read_bytes() == CONTENT
    assert left_over(tmp_path) == ["x.bin"]


def test_a_torn_transfer_goes_on_where_it_stopped(server: FaultyServer, tmp_path: Path) -> None:
    fetch(server, tmp_path / "x.bin", "truncates")
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_the_beginning_that_another_run_left_is_used_and_a_wrong_one_is_not(
    server: FaultyServer, tmp_path: Path
) -> None:
    part = tmp_path / f".{PINNED.sha256[:16]}.part"
    part.write_bytes(CONTENT[:700_000])
    fetch(server, tmp_path / "x.bin", "good")
    assert server.asked[-1][1] == "bytes=700000-"
    for wrong in (b"?" * 700_000, b"?" * 2_000_000, CONTENT[:-1] + b"?"):
        part.write_bytes(wrong)
        assert fetch(server, tmp_path / "y.bin", "good").read_bytes() == CONTENT
        (tmp_path / "y.bin").unlink()
        assert not part.exists()


def test_a_file_that_is_here_is_not_fetched_and_a_damaged_one_is_replaced(server: FaultyServer, tmp_path: Path) -> None:
    path = fetch(server, tmp_path / "x.bin", "good")
    fetch(server, path, "good")
    assert len(server.asked) == 1
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch(server, path, "good").read_bytes() == CONTENT


def test_folders_are_sources_too_and_offline_only_they_are(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "a folder ü" / "x.bin"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    monkeypatch.setenv("ATTRIBOARD_OFFLINE", "1")
    with pytest.raises(DataError, match=r"not tried, ATTRIBOARD_OFFLINE is set"):
        fetch(server, tmp_path / "x.bin", "good")
    for place in (str(source), source.as_uri()):
        assert fetch_file(tmp_path / "x.bin", PINNED, [place]).read_bytes() == CONTENT
        (tmp_path / "x.bin").unlink()
    with pytest.raises(DataError, match=r"No such file or directory"):
        fetch_file(tmp_path / "x.bin", PINNED, [str(tmp_path / "missing")])
    assert server.asked == []


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    hub = address("hf://datasets/ada/bundles@0123abc/a b.safetensors".replace("a b", "tiny"))
    assert hub == "https://huggingface.co/datasets/ada/bundles/resolve/0123abc/tiny.safetensors"
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert address("hf://datasets/a/b@main/c/d").startswith("https://mirror.example/datasets/a/b/resolve/main/c/d")
    for bad in ("ftp://host/x", "hf://datasets/a/b/c", "hf://datasets/a/b@main/../x", "hf://spaces/a/b@main/x"):
        with pytest.raises(DataError, match="no source of files"):
            address(bad)


def test_two_processes_that_pull_at_once_transfer_once(server: FaultyServer, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from attriboard.groundtruth.download import *;"
        "print('asks', flush=True);"
        "fetch_file(Path(sys.argv[1]), Pinned(sys.argv[2], int(sys.argv[3])), [sys.argv[4]])"
    )
    arguments = [str(tmp_path / "x.bin"), PINNED.sha256, str(PINNED.bytes), f"{server.url}/held/x.bin"]
    server.gate.clear()
    both = [subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.stdout.readline() for process in both if process.stdout] == [b"asks\n"] * 2
    server.gate.set()
    assert [process.communicate(timeout=60)[0] for process in both] == [b""] * 2
    assert [process.returncode for process in both] == [0, 0]
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert len(server.asked) == 1, "the other process found the file"


def test_a_full_disk_is_said_and_leaves_no_file(server: FaultyServer, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))  # Python ignores SIGXFSZ: writes fail with EFBIG
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            fetch(server, tmp_path / "x.bin", "good")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename is not None
    assert not (tmp_path / "x.bin").exists()
    assert fetch(server, tmp_path / "x.bin", "good").read_bytes() == CONTENT


def test_progress_counts_bytes_up_to_all_of_them(server: FaultyServer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    fetch_file(tmp_path / "x.bin", PINNED, [f"{server.url}/good/x"], progress=lambda *count: seen.append(count))
    assert seen[0] == (0, 1_000_000)
    assert seen[-1] == (1_000_000, 1_000_000)
    assert seen == sorted(seen)


def test_pauses_grow_and_a_server_decides_only_within_reason(
    server: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    for fault in ("500", "late"):
        with pytest.raises(DataError, match="5 attempts"):
            fetch_file(tmp_path / "x.bin", PINNED, [f"{server.url}/{fault}/x"], patience=Patience(attempts=5))
    assert [int(pause) for pause in pauses] == [2, 4, 8, *[60] * 4], "the first at once; an hour is too long"
