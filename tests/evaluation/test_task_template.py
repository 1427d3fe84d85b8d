"""The file that `attriboard tasks --template` prints is a task, on the command line as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attriboard.cli.app import app
from attriboard.evaluation.catalog import load_task


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments], prog_name="attriboard")
        out, err = capsys.readouterr()
        assert not end.value.code, err
        return out

    return run


def test_the_template_is_run_chosen_for_and_graded(command: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    text = command("tasks", "--template")
    compile(text, "my_task.py", "exec")
    for old, new in (("epochs=30", "epochs=1"), ("x[:342]", "x[:20]"), ("y[:342]", "y[:20]"), ("x[342:]", "x[-10:]")):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "my_task.py"
    path.write_text(text.replace("y[342:]", "y[-10:]"))
    assert load_task(path).card.name == "my_task"
    built = json.loads(command("groundtruth", "build", path, "--masks", 3, "--repeats", 2, "--workers", 1, "--json"))
    assert {bundle["kind"] for bundle in built["bundles"]} == {"groundtruth", "checkpoints"}
    run = json.loads(command("run", path, "grad_dot", "--threads", 1, "--json"))
    assert run["status"] == "ok"
    assert -1 <= run["lds"]["mean"] <= 1
    chosen = json.loads(command("select", path, "iffim", "--grid", "0.01,1", "--threads", 1, "--json"))
    assert chosen["oracle"]["hyperparameters"]["regularization"] in (0.0, 0.01, 1)  # the default is considered too
    path.write_text(path.read_text().replace("epochs=1", "epochs=2"))
    command("groundtruth", "build", path, "--masks", 3, "--repeats", 1, "--workers", 1, "--out", "two", "--json")
    command("groundtruth", "epochs", path, 1, "--groundtruth", "two", "--out", "epochs", "--workers", 1)
    early = ("--hp", "epoch=1", "--groundtruth", "epochs", "--threads", 1, "--json")
    assert json.loads(command("run", path, "grad_dot", *early))["hyperparameters"]["epoch"] == 1
