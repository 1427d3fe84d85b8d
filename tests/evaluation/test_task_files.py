"""Tasks in Python files: found by path and name, alive in other processes, and clear about what is missing."""

import textwrap
from pathlib import Path

import pytest

from attriboard.base.errors import InputError
from attriboard.contracts.task import TaskSpec
from attriboard.evaluation.catalog import load_task
from attriboard.evaluation.workspace import Workspace

SOURCE = """
import numpy as np
from beside import HIDDEN
from torch import nn

import attriboard as ab

x = np.random.default_rng(0).normal(size=(30, 3)).astype("f4")

def build():
    return nn.Sequential(nn.Linear(3, HIDDEN), nn.Linear(HIDDEN, 1))

recipe = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=5)
{name} = ab.define_task(
    "mine", model=build, train=(x[:20], x[:20, 0]), test=(x[20:], x[20:, 0]), loss="squared_error", recipe=recipe
)
"""


def write(folder: Path, name: str = "task", more: str = "") -> Path:
    (folder / "beside.py").write_text("HIDDEN = 4\n")
    path = folder / f"file_with_{name}.py"
    path.write_text(textwrap.dedent(SOURCE.format(name=name)) + more)
    return path


def test_a_file_is_a_task_that_other_processes_bring_to_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    task = load_task(write(tmp_path))
    assert task.portable
    again = TaskSpec.model_validate_json(TaskSpec.of(task).model_dump_json()).load()
    assert again.card.fingerprint == task.card.fingerprint
    (outcome,) = Workspace(task, threads=1, workers=1).runner.run(Workspace(task, threads=1, workers=1).job("grad_dot"))
    assert outcome.reason is None
    assert outcome.scores.shape == (10, 20)


def test_one_of_several_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "first", "second = ab.define_task('other', model=build, train=(x, x[:, 0]), "
                 "test=(x, x[:, 1]), loss='squared_error', recipe=recipe)\n")  # fmt: skip
    assert load_task(f"{path}:second").card.name == "other"
    with pytest.raises(InputError, match="it has first, second; name one of several"):
        load_task(path)
    with pytest.raises(InputError, match="has no task 'third'; it has first, second"):
        load_task(f"{path}:third")


@pytest.mark.parametrize(
    ("source", "message"),
    [("x = 1", "must define one task; it has none"), ("1 / 0", "raised ZeroDivisionError"), (None, "not a readable")],
)
def test_files_without_a_task_say_so(tmp_path: Path, source: str | None, message: str) -> None:
    path = tmp_path / "nothing.py"
    if source is not None:
        path.write_text(source)
    with pytest.raises(InputError, match=message):
        load_task(path)
