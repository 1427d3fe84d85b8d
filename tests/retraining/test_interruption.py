"""Real builds in real processes, killed, interrupted and run side by side."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from tiny import PlainTinyTask, small_digits_yaml, tiny_card

from attriboard.groundtruth.build import build_ground_truth
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.retraining.store import RetrainStore

TESTS = Path(__file__).parents[1]
N_MASKS = 6
N_RETRAINS = N_MASKS * 3

# One stack, and so one shard, for each retrain: the model does not stack.
BUILD = f"""
import sys
from pathlib import Path
from attriboard.groundtruth.build import build_ground_truth, open_store
from attriboard.retraining.executors import InProcess, LocalProcesses
from tiny import PlainTinyTask, tiny_card
task = PlainTinyTask(tiny_card(epochs=12))
executor = LocalProcesses(int(sys.argv[3])) if int(sys.argv[3]) else InProcess()
build_ground_truth(task, Path(sys.argv[2]), open_store(task, Path(sys.argv[1])), n_masks={N_MASKS}, executor=executor)
"""


def slow_task() -> PlainTinyTask:
    return PlainTinyTask(tiny_card(epochs=12))


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, as a terminal would start it; nothing of it outlives the block."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": path}, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def build_script(store: Path, bundle: Path, workers: int) -> list[str]:
    return [sys.executable, "-c", BUILD, str(store), str(bundle), str(workers)]


def n_shards(folder: Path) -> int:
    return len(list(folder.glob("*.safetensors")))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait for something that happens while the process runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended before it came to that"
        assert time.monotonic() < end, "it did not come to that in time"
        time.sleep(0.005)


def family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def alive_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    alive = psutil.wait_procs(processes, timeout=seconds)[1]
    return [p for p in alive if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Content digest of the ground truth that nobody interrupts."""
    folder, task = tmp_path_factory.mktemp("undisturbed"), slow_task()
    store = RetrainStore(folder / "store", task.card.fingerprint)
    build_ground_truth(task, folder / "bundle.safetensors", store, n_masks=N_MASKS)
    return read_ground_truth(folder / "bundle.safetensors").card.content_sha256


def test_a_build_killed_at_random_moments_resumes_to_the_same_bytes(tmp_path: Path, undisturbed: str) -> None:
    moments = random.Random(0)
    folder, bundle, log = tmp_path / "store", tmp_path / "bundle.safetensors", tmp_path / "log"
    for workers in (1, 0):
        enough = n_shards(folder) + moments.randint(1, 3)
        with running(build_script(folder, bundle, workers), log) as process:
            wait_until(lambda least=enough: n_shards(folder) >= least, process)
            time.sleep(moments.uniform(0, 0.05))
            workers_of_it = family(process)
            process.kill()
            process.wait()
            assert alive_after(workers_of_it, 10) == [], "workers outlived their killed parent"
    task = slow_task()
    store = RetrainStore(folder, task.card.fingerprint)
    kept = len(store)
    assert store.damaged == []
    assert 2 <= kept < N_RETRAINS
    assert not bundle.exists()
    counts: list[tuple[int, int]] = []
    build_ground_truth(task, bundle, store, n_masks=N_MASKS, progress=lambda *count: counts.append(count))
    assert counts[0] == (kept, N_RETRAINS)
    assert read_ground_truth(bundle).card.content_sha256 == undisturbed


def test_damaged_shards_are_redone_to_the_same_bytes(tmp_path: Path, undisturbed: str) -> None:
    task, folder, bundle = slow_task(), tmp_path / "store", tmp_path / "bundle.safetensors"
    build_ground_truth(task, bundle, RetrainStore(folder, task.card.fingerprint), n_masks=N_MASKS)
    torn, flipped, gone, *_ = sorted(folder.glob("*.safetensors"))
    torn.write_bytes(torn.read_bytes()[:-7])
    content = bytearray(flipped.read_bytes())
    content[-3] ^= 4
    flipped.write_bytes(content)
    gone.unlink()
    bundle.unlink()
    store = RetrainStore(folder, task.card.fingerprint)
    assert len(store.damaged) == 2
    assert len(store) == N_RETRAINS - 3
    build_ground_truth(task, bundle, store, n_masks=N_MASKS)
    assert read_ground_truth(bundle).card.content_sha256 == undisturbed


def test_two_builds_into_one_store_at_once_end_with_the_right_result(tmp_path: Path, undisturbed: str) -> None:
    folder, one, two = tmp_path / "store", tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    task = slow_task()
    with running(build_script(folder, one, 0), tmp_path / "log") as process:
        wait_until(lambda: n_shards(folder) > 0, process)
        build_ground_truth(task, two, RetrainStore(folder, task.card.fingerprint), n_masks=N_MASKS)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert read_ground_truth(one).card.content_sha256 == undisturbed
    assert read_ground_truth(two).card.content_sha256 == undisturbed
    assert len(RetrainStore(folder, task.card.fingerprint)) == N_RETRAINS


def attriboard_build(card: Path, store: Path, out: Path) -> list[str]:
    arguments = ["--masks", "40", "--repeats", "4", "--workers", "1", "--store", str(store), "--out", str(out)]
    program = "from attriboard.cli import main; main()"
    return [sys.executable, "-c", program, "groundtruth", "build", str(card), *arguments]


def test_ctrl_c_ends_cleanly_at_any_moment_and_the_same_command_goes_on(tmp_path: Path) -> None:
    card, store, out = small_digits_yaml(tmp_path, epochs=4), tmp_path / "store", tmp_path / "out"
    command, log = attriboard_build(card, store, out), tmp_path / "log"
    moments: list[Callable[[int], bool]] = [
        lambda before: "0 of 160" in log.read_text(),  # workers are starting
        lambda before: n_shards(store) > before,  # some are done
    ]
    for come in moments:
        before = n_shards(store)  # the checkpoints are trained first
        with running(command, log) as process:
            wait_until(partial(come, before), process)
            workers = family(process)
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does: parent and workers get it
            assert process.wait(20) == 130, log.read_text()
            assert alive_after(workers, 10) == []
        said = log.read_text()
        assert "finished work is kept" in said
        assert "Traceback" not in said
    kept = n_shards(store)
    assert kept > 0
    assert not list(out.glob("*-groundtruth.safetensors"))  # the checkpoints, trained first, are there
    with running(command, log) as process:
        assert process.wait(90) == 0, log.read_text()
    first = next(line for line in log.read_text().splitlines() if "ground truth of small_digits" in line)
    done, total = first.rpartition(": ")[2].split(" of ")
    assert (0 < int(done) < 160, total) == (True, "160")
    assert list(out.glob("*-groundtruth.safetensors"))
