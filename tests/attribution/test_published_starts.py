"""The weights that every retrain starts from, where only the folder of bundles has them: sandboxed runs and builds."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from language_tasks import N_TEST, N_TRAIN, TinyLanguageTask, task_with_start

from attriboard.attribution.executors import OwnProcess, ThisProcess
from attriboard.attribution.runner import Runner
from attriboard.attribution.sandbox import Sandbox
from attriboard.base.errors import InputError
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.listing import BundleRegistry, cached_path

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
RELATIVE = {"full": 1, "half": 1, "epochs": [3], "stored": "bfloat16"}


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of bundles that other users can read; pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="attriboard-test-") as name:
        Path(name).chmod(0o755)
        for variable in ("cache", "datasets"):
            monkeypatch.setenv(f"ATTRIBOARD_{variable.upper()}", str(Path(name) / variable))
        monkeypatch.setenv("ATTRIBOARD_OFFLINE", "1")
        (Path(name) / "bundles").mkdir()
        yield Path(name) / "bundles"


def listed(folder: Path) -> tuple[TinyLanguageTask, Path]:
    """A task whose checkpoints are differences to its start, and where processes look for the start."""
    task, _ = task_with_start(folder, checkpoints=RELATIVE)
    return task, cached_path(BundleRegistry(folder).register(task.card, "start"))


@needs_bubblewrap
def test_a_sandboxed_run_finds_the_start_of_which_its_checkpoints_are_differences(folder: Path) -> None:
    task, place = listed(folder)
    workspace = Workspace(task, folder, sandbox=True, threads=1, workers=1)
    job = workspace.job("grad_dot", ({"checkpoints": 1},))
    assert isinstance(workspace.runner.executor, Sandbox)
    (found,) = workspace.runner.run(job)
    assert found.reason is None
    assert found.scores is not None
    assert found.scores.shape == (N_TEST, N_TRAIN)
    (here,) = Runner(ThisProcess()).run(job)
    np.testing.assert_array_equal(found.scores, here.scores)
    place.unlink()
    with pytest.raises(InputError, match="groundtruth pull tiny_gpt2, or put the file there"):
        list(Runner(OwnProcess()).run(job))


@pytest.mark.parametrize("held_out", [False, True])
def test_a_build_into_a_folder_finds_the_start_that_lies_there(
    held_out: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from attriboard.cli.app import app
    from attriboard.evaluation import workspace

    task, place = listed(folder)
    monkeypatch.setattr(workspace, "load_task", lambda name: task)
    monkeypatch.chdir(folder.parent)
    sizes = ("--held-out", "3") if held_out else ("--masks", "3")
    with pytest.raises(SystemExit) as end:
        app(
            ["groundtruth", "build", "tiny_gpt2", "--out", str(folder), *sizes, "--repeats", "1", "--workers", "2",
             "--json"],
            prog_name="attriboard",
        )  # fmt: skip
    printed = capsys.readouterr()
    assert end.value.code == 0, printed
    assert place.exists()
    registry = BundleRegistry(folder)
    assert len(registry.held_out) == held_out
    if not held_out:
        made = {entry["kind"] for entry in json.loads(printed.out)["bundles"]}
        assert made == {"groundtruth", "checkpoints"}
        assert {entry.kind for entry in registry.entries} == made | {"start"}
    assert "Loading weights" not in printed.err
