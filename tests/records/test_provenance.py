import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from attriboard.records import provenance as module
from attriboard.records.provenance import provenance


def test_provenance_is_complete_and_needs_no_torch():
    code = (
        "import sys; from attriboard.records.provenance import provenance; print(provenance().model_dump_json());"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    facts = json.loads(run.stdout)
    assert facts["python"] == platform.python_version()
    assert facts["packages"].keys() >= {"numpy", "scipy", "torch"}
    assert facts["hardware"]["memory_bytes"] > 1 << 28
    assert facts["hardware"]["cores"] >= 1
    assert facts["hardware"]["cpu"]
    assert facts["command_line"] == ["-c"]


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        (
            "cpu cores\t: 2\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\n\n"
            "cpu cores\t: 2\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: Xeon\n",
            "Xeon (family 6, model 143)",
        ),
        ("model name\t: Neoverse: N1\n", "Neoverse: N1"),
        ("cpu cores\t: 2\n", platform.processor() or platform.machine()),
        (None, platform.processor() or platform.machine()),
    ],
)
def test_a_cpu_has_its_family_and_model_where_they_are_known(tmp_path, cpuinfo, name):
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    assert module._cpu_model(path) == name


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("/home/ada/venv/bin/attriboard", "attriboard"),
        ("run", "run"),
        ("regularization=1e-3", "regularization=1e-3"),
        ("../elsewhere/my_method.py", "my_method.py"),
        ("--out=/home/ada/results/", "--out=results"),
        ("/home/ada", "…"),
        ("--out=/home/ada", "--out=…"),
        ("~ada", "…"),
        (r"C:\Users\ada\method.py", "method.py"),
        ("/data/a=b/c.yaml", "a=c.yaml"),
        ("tcp://node17.cluster:8786", "tcp://…"),
        ("/nodes/node17", "…"),
    ],
)
def test_command_line_keeps_no_path_user_or_host(monkeypatch, argument, kept):
    monkeypatch.setattr(module.Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setattr(platform, "node", lambda: "node17")
    monkeypatch.setattr(sys, "argv", [argument])
    assert provenance().command_line == (kept,)


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_is_recorded_only_for_a_checkout(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert module._git_state.__wrapped__(package) is None
    git(tmp_path, "init")
    assert module._git_state.__wrapped__(package) is None, "an untracked copy inside a checkout is not the checkout"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    state = module._git_state.__wrapped__(package)
    assert (state.commit, state.dirty) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "result.json").write_text("{}")
    assert not module._git_state.__wrapped__(package).dirty, "new results do not change the code"
    (package / "__init__.py").write_text("x = 1")
    assert module._git_state.__wrapped__(package).dirty


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module._git_state.__wrapped__(tmp_path) is None


def test_a_distribution_that_is_not_installed_is_left_out():
    assert module._versions(("numpy", "no-such-distribution")).keys() == {"numpy"}


def test_threads_and_gpu_are_those_of_a_loaded_torch(monkeypatch):
    class Cuda:
        is_available = staticmethod(lambda: True)
        get_device_name = staticmethod(lambda index: "H100")

    class Torch:
        cuda = Cuda
        get_num_threads = staticmethod(lambda: 7)

    monkeypatch.setitem(sys.modules, "torch", Torch)
    facts = provenance()
    assert (facts.threads, facts.hardware.gpu) == (7, "H100")
