"""A control group around a sandbox: a folder that looks like the kernel's, and the kernel's own where it is open."""

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from attriboard.attribution import cgroups
from attriboard.attribution.cgroups import ControlGroup, make_group
from attriboard.attribution.executors import Launch, OwnProcess
from attriboard.attribution.job import Folder
from attriboard.attribution.limits import OWN_PROCESSES, Limits

LIMITS = Limits(bytes=64 << 20, processes=20)


@pytest.fixture
def mounted(tmp_path):
    """The folder of a machine: root → user → session (ours); the user's hands its controllers on."""
    for place, controllers in (("", "cpu memory pids"), ("user", "memory pids"), ("user/session", "")):
        folder = tmp_path / place
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(controllers)
        (folder / "cgroup.procs").write_text("")
    return tmp_path


def ours(mounted, line):
    path = mounted / "ours"
    path.write_text(f"1:name=systemd:/elsewhere\n{line}\n")
    return path


def test_a_group_lies_where_controllers_are_handed_on_and_has_the_limits(mounted):
    made = make_group(LIMITS, mounted, ours(mounted, "0::/user/session"))
    assert made.folder.parent == mounted / "user"
    written = {path.name: path.read_text().strip() for path in made.folder.iterdir()}
    assert written == {
        "memory.max": str(64 << 20), "memory.swap.max": "0", "memory.oom.group": "1",
        "pids.max": str(20 + OWN_PROCESSES),
    }  # fmt: skip
    assert make_group(LIMITS, mounted, ours(mounted, "0::/")).folder.parent == mounted


def test_a_command_enters_the_group_before_it_starts(mounted):
    made = make_group(LIMITS, mounted, ours(mounted, "0::/"))
    found = subprocess.run(made.entering(["sh", "-c", "echo $$"]), capture_output=True, text=True, check=True).stdout
    assert (made.folder / "cgroup.procs").read_text() == found


def test_what_the_kernel_ended_is_told(mounted):
    made = make_group(LIMITS, mounted, ours(mounted, "0::/"))
    (made.folder / "memory.events").write_text("low 0\noom 0\noom_kill 0\n")
    assert made.exceeded() is None
    (made.folder / "memory.events").write_text("low 0\noom 1\noom_kill 3\n")
    assert made.exceeded() == "out_of_memory: ended by the kernel, the limit is 64 MiB"


def test_there_is_no_group_where_none_can_be_made(mounted):
    assert make_group(LIMITS, mounted, ours(mounted, "4:memory:/user")) is None, "the first version of control groups"
    assert make_group(LIMITS, mounted / "nowhere", ours(mounted, "0::/")) is None
    (mounted / "user" / "cgroup.subtree_control").write_text("cpu memory")
    assert make_group(LIMITS, mounted, ours(mounted, "0::/user/session")) is None, "processes are not bounded there"


@dataclass(frozen=True)
class Dying(OwnProcess):
    """Starts a program in a group."""

    program: str = ""
    group: ControlGroup | None = None

    def launch(self, folder, events, plans):
        command = [sys.executable, "-c", self.program]
        return Launch(command, dict(os.environ), folder.path, folder.log, LIMITS, wrapped=True, group=self.group)


def death_of(program, group, folder) -> str:
    worker = Dying(program=program, group=group).start(Folder(folder), lambda event: None)
    try:
        assert list(worker.events()) == []
        return worker.death()
    finally:
        worker.close()


def test_a_row_has_the_reason_of_the_kernel_and_the_group_ends_with_the_process(mounted, tmp_path, monkeypatch):
    made = make_group(LIMITS, mounted, ours(mounted, "0::/"))
    (made.folder / "memory.events").write_text("oom_kill 1\n")
    monkeypatch.setattr(cgroups, "ENDING_SECONDS", 0.0)
    reason = death_of("import os; os.kill(os.getpid(), 9)", made, tmp_path)
    assert reason == "out_of_memory: ended by the kernel, the limit is 64 MiB"
    assert (made.folder / "cgroup.kill").read_text() == "1\n"


@pytest.fixture
def group():
    made = make_group(LIMITS)
    if made is None:
        pytest.skip("no control group can be made here")
    yield made
    made.close()


def run(group: ControlGroup, program: str) -> subprocess.CompletedProcess:
    return subprocess.run(group.entering([sys.executable, "-c", program]), capture_output=True, text=True, check=False)


def test_the_kernel_ends_what_takes_too_much_memory(group):
    assert run(group, "hoard = [bytes([n]) * (8 << 20) for n in range(1, 30)]").returncode == -9
    assert group.exceeded().startswith("out_of_memory: ")


def test_a_row_says_that_the_kernel_ended_it(group, tmp_path):
    hoard = "import os; hoard = [bytes([n]) * (8 << 20) for n in range(1, 30)]"
    assert death_of(hoard, group, tmp_path).startswith("out_of_memory: ")
    assert not group.folder.exists()


def test_the_kernel_refuses_more_processes_and_closing_ends_those_that_are_there(group):
    program = """
import os, time
children = []
try:
    while True:
        child = os.fork()
        if not child:
            os.setsid()
            os.closerange(0, 3)
            time.sleep(600)
        children.append(child)
except BlockingIOError:
    print(*children)
"""
    started = run(group, program).stdout.split()
    assert 0 < len(started) < 20 + OWN_PROCESSES
    group.close()
    assert not group.folder.exists(), "as long as a process is inside, it cannot go"
