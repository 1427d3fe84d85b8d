"""Tasks defined in a script or from a module's functions run in processes of their own; others say why they do not."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import attriboard as ab
from attriboard.base.errors import InputError
from attriboard.contracts.task import TaskSpec
from attriboard.evaluation.workspace import Workspace

X = np.random.default_rng(0).normal(size=(30, 3)).astype("f4")
RECIPE = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=5)


def build() -> nn.Module:
    return nn.Linear(3, 1)


def absolute(outputs: Any, targets: Any) -> Any:
    return (outputs[:, 0] - targets).abs()


def define(**changes: Any) -> Any:
    given = {"model": build, "train": (X[:20], X[:20, 0]), "test": (X[20:], X[20:, 0]), "recipe": RECIPE}
    return ab.define_task("mine", **({"loss": "squared_error"} | given | changes))


def test_functions_of_a_module_make_the_same_task_elsewhere() -> None:
    task = define(loss=absolute, target="negative_loss", checkpoints=[build()])
    spec = TaskSpec.model_validate_json(TaskSpec.of(task).model_dump_json())
    folder = Path(spec.folder or "")
    assert sorted(p.name for p in folder.iterdir()) == [
        "examples.safetensors", "probes.safetensors", "task.json", "trained-0.safetensors"
    ]  # fmt: skip
    again = spec.load()
    assert again.card.fingerprint == task.card.fingerprint
    inputs = task.load_data().test.inputs
    model = task.build_model()
    outputs = model(inputs)
    targets = task.load_data().test.targets
    assert again.loss(outputs, targets).equal(task.loss(outputs, targets))
    assert again.load_data().train.inputs.equal(task.load_data().train.inputs)
    assert again.trained[0]["weight"].equal(task.trained[0]["weight"])
    del task, again
    import gc

    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": lambda: build()}, "model is a lambda: define it by name at the top level of a .py file"),
        ({"loss": lambda o, t: absolute(o, t)}, "loss is a lambda"),
        ({"target": lambda o, t: o[:, 0]}, "target is a lambda"),
        ({"model": build(), "recipe": None}, "model is an instance: give the function or class that builds it"),
    ],
)
def test_what_other_processes_do_not_find_stays_here_and_says_why(changes: dict[str, Any], reason: str) -> None:
    said: list[str] = []

    class Notes:
        def note(self, text: str) -> None:
            said.append(text)

    task = define(**changes)
    assert not task.portable
    Workspace(task, display=Notes())  # type: ignore[arg-type]  # it is only told
    assert said[0].startswith("everything runs in this process, and is not for a board: ")
    assert reason in said[0]
    with pytest.raises(InputError, match=r"define it|give the function"):
        TaskSpec.of(task)


def test_a_module_that_changed_is_noticed_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "changing_parts.py"
    path.write_text("from torch import nn\ndef make():\n    return nn.Linear(3, 1)\n")
    import changing_parts  # type: ignore[import-not-found]

    spec = TaskSpec.of(task := define(model=changing_parts.make))
    monkeypatch.setattr(changing_parts, "make", lambda: nn.Sequential(nn.Linear(3, 1), nn.Tanh()))
    with pytest.raises(InputError, match="its losses differ in another process"):
        spec.load()
    assert task.portable


SCRIPT = """
import json, os
import numpy as np
from beside import HIDDEN
from torch import nn
import attriboard as ab

with open("runs.txt", "a") as log:
    log.write("run")
x = np.random.default_rng(0).normal(size=(30, 3)).astype("f4")

def build():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "processes.txt"), "a") as log:
        log.write(f"{os.getpid()} ")
    return nn.Sequential(nn.Linear(3, HIDDEN), nn.Linear(HIDDEN, 1))

def loss(outputs, targets):
    return (outputs[:, 0] - targets).abs()

recipe = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=5)
train, test = (x[:20], x[:20, 0]), (x[20:], x[20:, 0])
task = ab.define_task("mine", model=build, train=train, test=test, loss=loss, recipe=recipe)
scores = ab.attribute(task, "grad_dot", threads=1)
print(json.dumps([task.portable, list(scores.shape), os.getpid()]))
"""


def test_a_script_attributes_in_other_processes_without_being_run_again(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("HIDDEN = 4\n")
    path = tmp_path / "my_script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "ATTRIBOARD_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    portable, shape, process = json.loads(done.stdout.splitlines()[-1])
    assert (portable, shape) == (True, [10, 20])
    assert (tmp_path / "runs.txt").read_text() == "run"
    assert set((tmp_path / "processes.txt").read_text().split()) > {str(process)}


def test_a_task_file_may_go_on_to_work_and_is_run_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "whole.py"
    (tmp_path / "beside.py").write_text("HIDDEN = 4\n")
    path.write_text(textwrap.dedent(SCRIPT).replace('"runs.txt"', "os.devnull") + "raise SystemExit('worked')\n")
    from attriboard.evaluation.catalog import load_task

    assert load_task(path).card.name == "mine"


RANDOM_DATA = """
    import attriboard as ab
    import torch
    from torch import nn

    x = torch.randn(30, 3)

    def build():
        return nn.Linear(3, 1)

    task = ab.define_task(
        "drawn", model=build, train=(x[:20], x[:20, 0]), test=(x[20:], x[20:, 0]), loss="squared_error",
        recipe=ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=5),
    )
"""


def test_a_task_file_that_draws_other_data_each_time_says_so(tmp_path: Path) -> None:
    path = tmp_path / "drawn.py"
    path.write_text(textwrap.dedent(RANDOM_DATA))
    program = "import sys; from attriboard.contracts.task import TaskSpec, task_in_file; from pathlib import Path; "
    program += "print(TaskSpec.of(task_in_file(Path(sys.argv[1]))).model_dump_json())"
    # Another process, as a worker is: within one the file is run once.
    written = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    spec = TaskSpec.model_validate_json(written.stdout)
    with pytest.raises(InputError, match=r"drawn\.py: every process runs it.*seed what it draws at random"):
        spec.load()
