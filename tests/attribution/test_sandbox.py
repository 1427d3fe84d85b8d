"""Plugins that try to get at the ground truth, the results, the network and the host: in the sandbox each one fails.

Attempts that leave their process alive share one run, each as a configuration of its own.
"""

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from intruder import ATTEMPTS, ENDS_ITS_PROCESS, STAYS_ALIVE

from attriboard.attribution import bubblewrap
from attriboard.attribution.executors import OwnProcess, ThisProcess
from attriboard.attribution.limits import Limits
from attriboard.attribution.runner import Runner
from attriboard.attribution.sandbox import Sandbox, find_tool
from attriboard.attribution.seccomp import seccomp_program
from attriboard.attribution.view import View
from attriboard.attribution.withheld import withheld_below
from attriboard.base.errors import InputError
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.listing import published_folder

ROOT = Path(__file__).parents[2]
TOOLS = {"bubblewrap": "bwrap", "crun": "crun"}
with_each_tool = pytest.mark.parametrize(
    "tool",
    [
        pytest.param(tool, marks=pytest.mark.skipif(shutil.which(program) is None, reason=f"{tool} is not installed"))
        for tool, program in TOOLS.items()
    ],
)
needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
BUNDLE = published_folder() / "digits_mlp-groundtruth.safetensors"
SECRET = "a-password-of-the-host"

LIMITS = Limits(seconds=300, bytes=700 << 20, processes=60, file_bytes=24 << 20)


@pytest.fixture
def open_folder():
    """A folder that other users can read; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="attriboard-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def intruder(make_job, open_folder, monkeypatch):
    """A function that makes a job of attempts, and the facts that they are after."""
    monkeypatch.setenv("HOST_PASSWORD", SECRET)
    plugin = open_folder / "plugin"
    plugin.mkdir()
    (plugin / "link").symlink_to(BUNDLE)
    shutil.copy(BUNDLE, plugin / "copy.safetensors")
    (plugin / "digits_mlp-mine-0123456789abcdef.json").write_text("{}")
    server, local = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    abstract, results = f"attriboard-test-{os.getpid()}", open_folder / "results"
    results.mkdir()
    local.bind("\0" + abstract)
    local.listen()
    facts = {
        "bundle": str(BUNDLE), "pid": os.getpid(), "port": server.getsockname()[1], "abstract": abstract,
        "secret": SECRET, "results": str(results), "outlives": f"600.{os.getpid()}",
    }  # fmt: skip
    (plugin / "facts.json").write_text(json.dumps(facts))

    def make(*attempts, **changes):
        job = make_job(ATTEMPTS, *({"attempt": name} for name in attempts), **changes)
        path = shutil.move(job.attributor.location, plugin / "my_method.py")
        return job.model_copy(update={"attributor": job.attributor.model_copy(update={"location": str(path)})}), facts

    with server, local, BUNDLE.open("rb") as held:
        os.set_inheritable(held.fileno(), True)
        yield make


def commands() -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text().replace("\0", " ").strip())
        except OSError:
            continue
    return found


@with_each_tool
def test_every_attempt_fails_with_a_row_and_honest_scores_have_the_same_bits(intruder, tmp_path, tool):
    job, facts = intruder("honestly", *STAYS_ALIVE, "by_a_fork_that_outlives_the_run")
    log = tmp_path / "log.txt"
    outcomes = list(Runner(Sandbox(LIMITS, log, tool=tool)).run(job))
    reasons = {outcome.hyperparameters["attempt"]: outcome.reason for outcome in outcomes}
    wrong = {name: reasons[name] for name, expected in STAYS_ALIVE.items() if not matches(expected, reasons[name])}
    assert not wrong, log.read_text()
    assert reasons["honestly"] is None
    assert reasons["by_a_fork_that_outlives_the_run"] is None
    assert f"sleep {facts['outlives']}" not in commands()
    assert not list(Path(facts["results"]).iterdir())
    assert log.read_text() == ""
    (here,) = Runner(ThisProcess()).run(job.model_copy(update={"configurations": ({"attempt": "honestly"},)}))
    np.testing.assert_array_equal(outcomes[0].scores, here.scores)


@with_each_tool
def test_an_attempt_that_ends_its_process_fails_and_spares_the_others(intruder, tool):
    """With the second tool only what depends on it: what the runner sees of the processes and files inside."""
    tried = {n: e for n, e in ENDS_ITS_PROCESS.items() if tool == "bubblewrap" or n.startswith("by_filling")}
    job, _ = intruder(*tried)
    reasons = {o.hyperparameters["attempt"]: o.reason for o in Runner(Sandbox(LIMITS, tool=tool)).run(job)}
    assert not {name: reasons[name] for name, expected in tried.items() if not matches(expected, reasons[name])}


@needs_bubblewrap
def test_outside_of_the_sandbox_the_same_attempts_succeed(intruder):
    reached = ("by_path", "by_a_link", "by_a_copy_beside_the_plugin", "by_the_parent", "by_the_registry",
               "by_the_network", "by_a_unix_socket", "by_the_environment", "by_writing_results")  # fmt: skip
    job, _ = intruder(*reached)
    failed = {o.hyperparameters["attempt"]: o.reason for o in Runner(OwnProcess()).run(job) if o.reason}
    assert not failed, "attempts that fail everywhere show nothing"


def open_to_all(*places: Path) -> list[str]:
    """The beginning of a command that sees these folders although folders above them, such as /root, are root's alone.

    Another sandbox, which hides nothing else, opens the way to interpreter and code.
    """
    view = ["bwrap", "--dev-bind", "/", "/"]
    ways = {place: list(reversed(place.parents)) for place in sorted(set(places))}
    closed = {place: [at for at in way if not at.stat().st_mode & stat.S_IXOTH] for place, way in ways.items()}
    for top in sorted({found[0] for found in closed.values() if found}):
        view += ["--perms", "0755", "--tmpfs", str(top)]
    for place, found in closed.items():
        for at in ways[place][ways[place].index(found[0]) + 1 :] if found else ():
            view += ["--perms", "0755", "--dir", str(at)]
        view += ["--ro-bind", str(place), str(place)] if found else []
    return view


@needs_bubblewrap
@with_each_tool
@pytest.mark.skipif(os.getuid() != 0, reason="takes root to become another user")
def test_an_ordinary_user_has_the_same_sandbox(intruder, open_folder, tool):
    job, _ = intruder("honestly", "by_path", "by_the_network", "by_the_environment", "by_a_namespace")
    checkpoints = Path(shutil.copy(job.checkpoints, open_folder))
    (open_folder / "job.json").write_text(job.model_copy(update={"checkpoints": checkpoints}).model_dump_json())
    program = (
        "import json, os, sys; from pathlib import Path; from attriboard.attribution.job import Job; "
        "from attriboard.attribution.runner import Runner; from attriboard.attribution.sandbox import Sandbox; "
        "job = Job.model_validate_json(Path(sys.argv[1]).read_text()); "
        "print(json.dumps([os.getuid(), *(outcome.reason for outcome in Runner(Sandbox(tool=sys.argv[2])).run(job))]))"
    )
    view = open_to_all(Path(sys.prefix), Path(sys.base_prefix), ROOT)
    done = subprocess.run(
        [*view, "setpriv", "--reuid=60000", "--regid=60000", "--clear-groups", "--",
         sys.executable, "-c", program, str(open_folder / "job.json"), tool],
        env=os.environ | {"HOME": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    user, honest, *reasons = json.loads(done.stdout)
    assert (user, honest) == (60000, None)
    expected = ("FileNotFoundError", "ConnectionRefusedError|Network is unreachable", "nothing in it", "Error")
    assert all(map(matches, expected, reasons)), reasons


@with_each_tool
def test_nothing_outlives_a_runner_that_is_killed(intruder, open_folder, tool):
    """What is inside has replaced the worker, so that nothing of ours watches there."""
    job, facts = intruder("by_replacing_the_worker")
    (open_folder / "job.json").write_text(job.model_dump_json())
    program = (
        "import sys; from pathlib import Path; from attriboard.attribution.job import Job; "
        "from attriboard.attribution.runner import Runner; from attriboard.attribution.sandbox import Sandbox; "
        "list(Runner(Sandbox(tool=sys.argv[2])).run(Job.model_validate_json(Path(sys.argv[1]).read_text())))"
    )
    left = f"sleep {facts['outlives']}"
    runner = subprocess.Popen([sys.executable, "-c", program, str(open_folder / "job.json"), tool])
    try:
        assert comes(lambda: left in commands(), 60)
    finally:
        runner.kill()
        runner.wait()
    assert comes(lambda: left not in commands(), 10)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_tool_that_is_installed_is_taken(tool, tmp_path, monkeypatch):
    for name in ("unshare", "setpriv", "mount", "sh", TOOLS[tool]):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_tool() == tool


@needs_bubblewrap
def test_what_cannot_be_shown_is_refused_with_what_to_do(make_job, tmp_path, monkeypatch):
    job = make_job(ATTEMPTS)
    with pytest.raises(InputError, match=r"--device cuda is not there; take cpu"):
        Runner(Sandbox()).describe(job.model_copy(update={"device": "cuda"}))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"holds your home; move the file to a folder of its own"):
        Runner(Sandbox()).describe(job)


def test_without_any_tool_the_refusal_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"apt install bubblewrap.*--no-sandbox"):
        Workspace("digits_mlp", sandbox=True)


@needs_bubblewrap
def test_what_a_run_needs_is_shown_and_what_lies_in_between_is_not(make_job, tmp_path, monkeypatch):
    """The checkpoints lie in a folder of bundles, and that in the plugin's; the data sets lie in the cache."""
    job = make_job(ATTEMPTS)
    bundles = tmp_path / "bundles"
    bundles.mkdir()
    checkpoints = Path(shutil.copy(job.checkpoints, bundles))
    (bundles / "copy.safetensors").symlink_to(BUNDLE)
    cache = tmp_path / "cache"
    (cache / "datasets").mkdir(parents=True)
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(cache))
    tmp_path.chmod(0o755)
    with pytest.raises(InputError, match="holds the cache"):
        View(job.model_copy(update={"checkpoints": checkpoints}), (bundles,)).steps()
    (tmp_path / "plugin").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    plugin = Path(shutil.move(job.attributor.location, tmp_path / "plugin"))
    job = job.model_copy(update={"attributor": job.attributor.model_copy(update={"location": str(plugin)})})
    mounts = bubblewrap.mounts(View(job.model_copy(update={"checkpoints": checkpoints}), (bundles,)).steps())
    probe = ["find", str(tmp_path), "!", "-type", "d"]
    found = subprocess.run(["bwrap", *mounts, *probe], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == {str(checkpoints), str(plugin)}


@needs_bubblewrap
def test_bundles_of_another_installation_below_the_interpreters_prefix_are_not_shown(
    make_job, open_folder, tmp_path, monkeypatch
):
    packages = tmp_path / "prefix" / "lib" / "python3.11" / "site-packages"
    other = packages / "attriboard" / "leaderboard" / "groundtruth" / BUNDLE.name
    other.parent.mkdir(parents=True)
    shutil.copy(BUNDLE, other)
    (packages / "library.py").write_text("")
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "prefix"))
    job = make_job(ATTEMPTS)
    plugin = Path(shutil.move(job.attributor.location, open_folder / "my_method.py"))
    job = job.model_copy(update={"attributor": job.attributor.model_copy(update={"location": str(plugin)})})
    probe = ["find", str(tmp_path / "prefix"), "!", "-type", "d"]
    mounts = bubblewrap.mounts(View(job).steps())
    found = subprocess.run(["bwrap", *mounts, *probe], capture_output=True, text=True, check=True).stdout.split()
    assert found == [str(packages / "library.py")]


def test_ground_truth_and_records_are_found_by_what_they_are(tmp_path):
    shutil.copy(BUNDLE, tmp_path / "weights.safetensors")
    shutil.copy(published_folder() / "digits_mlp-checkpoints.safetensors", tmp_path)
    for name in ("a.py", "facts.json", "t-m-0123456789abcdef.json", "deep/t-m-0123456789abcdef.verification", ".git/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = {path.relative_to(tmp_path).as_posix() for path in withheld_below(tmp_path)}
    assert found == {
        "weights.safetensors", "t-m-0123456789abcdef.json", "deep/t-m-0123456789abcdef.verification", ".git"
    }  # fmt: skip


def test_machines_whose_system_calls_are_not_known_are_refused():
    for machine in ("x86_64", "aarch64"):
        program = seccomp_program(machine)
        assert len(program) % 8 == 0
        assert len(program) // 8 < 4096, "the longest program that the kernel takes"
    with pytest.raises(InputError, match="not of riscv64"):
        seccomp_program("riscv64")


def comes(true, seconds: float) -> bool:
    """Whether something becomes true."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def matches(expected: str, reason: str | None) -> bool:
    return reason is not None and any(part in reason for part in expected.split("|"))
