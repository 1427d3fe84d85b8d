"""The attributor's process: what it can see, what it leaves behind, and that it ends with its runner."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attriboard.attribution import executors
from attriboard.attribution.runner import Runner
from attriboard.groundtruth.listing import published_folder

CONSTANT = '''
class Constant(Attributor):
    """{body}"""
    name = "constant"

    def fit(self, context):
        here = Path(__file__).parent
{fit}
        return torch.ones(len(context.test), len(context.train))

    def score(self, state):
        return state
'''


def constant(fit: str, body: str = "") -> str:
    lines = "\n".join(f"        {line}" for line in fit.strip().splitlines())
    return CONSTANT.format(fit=lines, body=body)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "took too long"
        time.sleep(0.05)


def spawned(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


SPY = """
report = {
    "modules": sorted(sys.modules), "argv": sys.argv, "cwd": os.getcwd(), "environment": dict(os.environ),
    "stdin": sys.stdin.read(), "files": sorted(os.listdir()), "pid": os.getpid(), "session": os.getsid(0),
    "context": sorted(vars(context)),
    "open": [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")],
}
import json
(here / "report.json").write_text(json.dumps(report))
"""


def test_the_process_sees_a_folder_of_its_own_and_nothing_of_the_ground_truth(make_job, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"relative{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep))
    monkeypatch.setenv("ATTRIBOARD_MIRROR", str(published_folder()))
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    source = "(Path(__file__).parent / 'imports.txt').open('a').write(f'{os.getpid()}\\n')\n" + constant(SPY)
    job = make_job(source)
    (outcome,) = Runner().run(job)
    assert outcome.reason is None
    report = json.loads((tmp_path / "report.json").read_text())

    holders = {"attriboard.groundtruth.bundle", "attriboard.evaluation.grader", "attriboard.groundtruth.verify"}
    assert not holders & set(report["modules"])
    assert not [name for name in report["modules"] if name.startswith(("attriboard.cli", "attriboard.leaderboard"))]
    assert report["context"] == [
        "checkpoints", "device", "error", "findings", "loss", "margin", "memory_bytes", "model", "parameters", "runs",
        "seed", "target", "test", "train",
    ]  # fmt: skip
    assert not {"PWD", "OLDPWD", "ATTRIBOARD_MIRROR", "ATTRIBOARD_CACHE"} & set(report["environment"])
    assert report["environment"]["ATTRIBOARD_DATASETS"] == str(tmp_path / "cache" / "datasets")
    folders = [part for value in report["environment"].values() for part in value.split(os.pathsep)]
    assert not [name for name in folders if name and list(Path(name).glob("*-groundtruth.safetensors"))]
    told = json.dumps([report[key] for key in ("argv", "cwd", "environment", "open")])
    assert "-groundtruth.safetensors" not in told
    assert str(job.checkpoints.parent) not in told
    assert report["files"] == ["job.json", "log.txt", "scores"]
    assert report["stdin"] == ""
    assert report["environment"]["PYTHONPATH"].split(os.pathsep)[0] == str(Path("relative").absolute())

    assert not Path(report["cwd"]).exists(), "the folder goes with the process"
    assert report["session"] == report["pid"] != os.getpid()
    imports = (tmp_path / "imports.txt").read_text().split()
    assert imports == [str(report["pid"])], "the runner's own process never imports an attributor"


def test_describing_imports_the_attributor_elsewhere_and_fits_nothing(make_job, tmp_path):
    source = constant("(here / 'fitted').touch()").replace(
        'name = "constant"',
        'name = "constant"\n    paper = "arXiv 0000.00000"\n    family = "control"\n'
        '    hyperparameters = (Hyperparameter("width", 2, source="here", grid=(1, 2, 4)),)',
    )
    job = make_job(source, {"width": "8"}, {})
    described = Runner().describe(job)
    assert (described.name, described.paper, described.family) == ("constant", "arXiv 0000.00000", "control")
    assert described.configurations == ({"width": 8}, {"width": 2})
    assert described.grid("width") == (1, 2, 4)
    assert len(described.code_sha256) == 64
    assert not (tmp_path / "fitted").exists()


# What a method may leave behind: a child that sleeps, a fork that keeps the events open, a thread that never ends.
LEFTOVERS = """
import threading
child = subprocess.Popen(["sleep", "600"])
fork = os.fork()
if fork == 0:
    time.sleep(600)
    os._exit(0)
(here / "pids.txt").write_text(f"{child.pid} {fork} {os.getpid()}")
threading.Thread(target=time.sleep, args=(600,)).start()
"""


@pytest.mark.parametrize("end", ["", "os._exit(3)"], ids=["after_success", "after_a_crash"])
def test_nothing_that_it_started_outlives_the_run_or_holds_it_up(make_job, tmp_path, end):
    started = time.monotonic()
    (outcome,) = Runner().run(make_job(constant(LEFTOVERS + end)))
    assert outcome.reason == (f"crash: exit code {end[9]}" if end else None)
    assert time.monotonic() - started < 60
    pids = [int(pid) for pid in (tmp_path / "pids.txt").read_text().split()]
    assert len(pids) == 3
    wait_until(lambda: not any(map(alive, pids)))


HANG = "(here / 'pid.txt').write_text(str(os.getpid()))\ntime.sleep(600)"


def test_an_interrupt_of_the_runner_ends_the_process(make_job, tmp_path, monkeypatch):
    original, pid = executors._Process._lines, tmp_path / "pid.txt"

    def interrupted(*arguments):
        for line in original(*arguments):
            yield line
            if b'"began"' in line:
                wait_until(lambda: pid.exists() and pid.read_text())  # a file is there before its content
                raise KeyboardInterrupt

    monkeypatch.setattr(executors._Process, "_lines", interrupted)
    before = spawned(os.getpid())  # an earlier test may have left Python's resource tracker
    with pytest.raises(KeyboardInterrupt):
        list(Runner().run(make_job(constant(HANG))))
    assert not alive(int(pid.read_text()))
    assert spawned(os.getpid()) == before, "no zombie either"


def test_a_consumer_that_stops_early_ends_the_process(make_job, tmp_path):
    source = constant(HANG).replace('name = "constant"', 'name = "constant"\n    hyperparameters = (A,)')
    source = source.replace("time.sleep(600)", "time.sleep(600 * (a - 1))").replace("context):", "context, a):")
    events = Runner().run(make_job("A = Hyperparameter('a', 1, source='here')\n" + source, {"a": 1}, {"a": 2}))
    next(events)
    events.close()
    assert not alive(int((tmp_path / "pid.txt").read_text()))


def test_the_process_ends_when_its_runner_is_killed(make_job, tmp_path):
    job = tmp_path / "job.json"
    job.write_text(make_job(constant(HANG)).model_dump_json())
    script = (
        "import sys; from pathlib import Path; from attriboard.attribution.job import Job; "
        "from attriboard.attribution.runner import Runner; "
        "list(Runner().run(Job.model_validate_json(Path(sys.argv[1]).read_text())))"
    )
    path = os.pathsep.join(part for part in sys.path if part)
    parent = subprocess.Popen([sys.executable, "-c", script, str(job)], env=os.environ | {"PYTHONPATH": path})
    try:
        wait_until(lambda: (tmp_path / "pid.txt").exists() and (tmp_path / "pid.txt").read_text(), 60)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    child = int((tmp_path / "pid.txt").read_text())
    wait_until(lambda: not alive(child))
