"""Workers that are forked from a server behave as those that start as programs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from attriboard.attribution import forkserver
from attriboard.attribution.executors import OwnProcess
from attriboard.attribution.limits import Limits
from attriboard.attribution.runner import Runner

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")

METHOD = """
import json, stat

import numpy as np


def is_socket(descriptor):
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


class Method(Attributor):
    name = "method"
    hyperparameters = (Hyperparameter("mode", "well", source="here", grid=("well", "exits", "aborts", "hangs")),)

    def fit(self, context, mode):
        print("this is", mode)
        if mode == "exits":
            os._exit(7)
        if mode == "aborts":
            os.abort()
        if mode == "hangs":
            time.sleep(600)
        said = {
            "pid": os.getpid(), "parent": os.getppid(), "session": os.getsid(0), "folder": os.getcwd(),
            "path": sys.path[0], "random": np.random.random(), "late": os.environ.get("ATTRIBOARD_LATE"),
            "early": os.environ.get("EARLY"), "sockets": list(filter(is_socket, range(64))),
        }
        with Path(__file__).with_name("said.txt").open("a") as file:
            print(json.dumps(said), file=file)
        return torch.arange(len(context.test) * len(context.train)).float().view(len(context.test), -1)

    def score(self, state):
        return state
"""


@pytest.fixture(autouse=True)
def no_server(monkeypatch):
    """No server runs before or after, and the first worker is forked as all others are."""
    forkserver.close_server()
    monkeypatch.setattr(forkserver, "_first", False)
    yield
    forkserver.close_server()


def said(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "said.txt").read_text().splitlines()]


def reasons(job, **limits) -> list[str | None]:
    return [outcome.reason for outcome in Runner(OwnProcess(Limits(**limits))).run(job)]


def server() -> psutil.Process:
    return psutil.Process(forkserver._server._process.pid)


def test_the_first_worker_is_a_program_and_the_next_are_forks_with_the_same_scores(make_job, tmp_path, monkeypatch):
    monkeypatch.setattr(forkserver, "_first", True)
    job = make_job(METHOD, {})
    outcomes = [outcome for _ in range(3) for outcome in Runner().run(job)]
    assert [outcome.reason for outcome in outcomes] == [None] * 3
    assert all((outcome.scores == outcomes[0].scores).all() for outcome in outcomes)
    assert [one["parent"] for one in said(tmp_path)] == [os.getpid(), server().pid, server().pid]


def test_a_fork_is_alone_in_a_session_and_a_folder_of_its_own_and_shares_no_random_numbers(make_job, tmp_path):
    job = make_job(METHOD, {})
    assert reasons(job) == reasons(job) == [None]
    one, other = said(tmp_path)
    assert os.getsid(server().pid) != os.getsid(0), "Ctrl-C does not reach it"
    for worker in (one, other):
        assert worker["session"] == worker["pid"]
        assert worker["path"] == worker["folder"]
    assert one["folder"] != other["folder"]
    assert one["random"] != other["random"]


def test_a_fork_has_no_open_file_of_the_server_or_of_another_fork(make_job, tmp_path):
    job = make_job(METHOD, {})
    with Runner().open(job) as attribution:
        list(attribution.run())
        assert reasons(job) == [None]
    assert [one["sockets"] for one in said(tmp_path)] == [[], []]


def test_a_fork_sees_the_variables_of_its_own_time(make_job, tmp_path, monkeypatch):
    job = make_job(METHOD, {})
    pids = []
    for late, early in (("a", "x"), (None, "x"), ("b", "y")):
        monkeypatch.setenv("EARLY", early)
        monkeypatch.delenv("ATTRIBOARD_LATE", raising=False)
        if late:
            monkeypatch.setenv("ATTRIBOARD_LATE", late)
        assert reasons(job) == [None]
        pids.append(server().pid)
    assert [(one["late"], one["early"]) for one in said(tmp_path)] == [("a", "x"), (None, "x"), ("b", "y")]
    assert pids[0] == pids[1] != pids[2], "libraries may read it when they are imported"
    assert not psutil.pid_exists(pids[0])


def test_ends_of_a_fork_are_told_apart(make_job):
    job = make_job(METHOD, *({"mode": mode} for mode in ("well", "exits", "aborts", "hangs")))
    assert reasons(job, seconds=20) == [
        None,
        "crash: exit code 7; it last printed: this is exits",
        "crash: signal SIGABRT; it last printed: this is aborts",
        "timeout: not finished after 20 s",
    ]
    assert server().children() == []


def test_a_killed_server_is_replaced(make_job):
    job = make_job(METHOD, {})
    assert reasons(job) == [None]
    killed = server()
    killed.kill()
    killed.wait()
    assert reasons(job) == [None], "as a program"
    assert reasons(job) == [None]
    assert server().pid != killed.pid


def test_a_killed_server_takes_no_worker_along(make_job, tmp_path):
    with Runner().open(make_job(METHOD, {})) as attribution:
        server().kill()
        assert [outcome.reason for outcome in attribution.run()] == [None]


PROGRAM = """
import os, signal, sys
from pathlib import Path
from attriboard.attribution import forkserver

forkserver._first = False
read, write = os.pipe()
with Path("log").open("wb") as log:
    worker = forkserver.fork_worker(Path.cwd(), dict(os.environ), log, write, read)
print(worker.pid, forkserver._server._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_and_its_forks_end_with_the_process_that_started_it(tmp_path):
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    left = [psutil.Process(int(pid)) for pid in ended.stdout.split() if psutil.pid_exists(int(pid))]
    _, alive = psutil.wait_procs(left, timeout=30)
    assert alive == []
