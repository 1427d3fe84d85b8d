"""Scripts without a main guard, classes defined in them, and sessions without a file: everything runs once."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

OWN_TASK = """
    import numpy as np
    from torch import nn

    import attriboard as ab

    print("begins")


    def build():
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


    def data(n, seed):
        x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
        return x, (x.sum(1) > 0).astype(int)


    recipe = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=3, batch_size=8)
    task = ab.define_task("halves", model=build, train=data(24, 0), test=data(10, 1), recipe=recipe)
    truth = ab.build_ground_truth(task, masks=6, repeats=2, workers=1, quiet=True)
    scores = ab.attribute(task, "grad_dot", threads=1)
    print(truth.masks.shape, scores.shape, f"{ab.lds(scores, task).mean:.6f}")
"""

OWN_CLASS = """
    from pathlib import Path

    import torch
    from tiny import TinyTask, tiny_card
    from torch import nn

    from attriboard.groundtruth.build import build_ground_truth, open_store
    from attriboard.retraining.executors import LocalProcesses

    print("begins")


    class Smoothed(TinyTask):
        def loss(self, outputs, targets):
            return nn.functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.2)


    task = Smoothed(tiny_card())
    build_ground_truth(task, Path("truth.safetensors"), open_store(task, Path("store")), executor=LocalProcesses(1))
    print(Path("truth.safetensors").is_file())
"""


def run(source: str, folder: Path, *, as_file: bool) -> subprocess.CompletedProcess[str]:
    """A program from a file, or from standard input, as an interactive session's is."""
    source = textwrap.dedent(source)
    (folder / "script.py").write_text(source, encoding="utf-8")
    environment = os.environ | {"ATTRIBOARD_CACHE": str(folder / "cache"), "PYTHONPATH": str(TESTS)}
    arguments = ["script.py"] if as_file else ["-"]
    return subprocess.run(
        [sys.executable, *arguments],
        input=None if as_file else source,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=300,
        check=False,
    )


def test_a_script_without_a_main_guard_and_a_session_without_a_file_do_their_work_once(tmp_path: Path) -> None:
    """A notebook's cells are such a session: nothing there can be imported by another process."""
    (tmp_path / "file").mkdir()
    (tmp_path / "session").mkdir()
    done = [run(OWN_TASK, tmp_path / name, as_file=name == "file") for name in ("file", "session")]
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    assert done[0].stdout == done[1].stdout
    assert not any("Traceback" in one.stderr for one in done)
    begins, result = done[0].stdout.splitlines()
    assert begins == "begins"
    assert result.startswith("(6, 24) (10, 24) ")


@pytest.mark.parametrize("as_file", [True, False])
def test_a_task_class_of_the_main_program_trains_in_other_processes_or_says_what_to_do(
    tmp_path: Path, as_file: bool
) -> None:
    done = run(OWN_CLASS, tmp_path, as_file=as_file)
    if as_file:
        assert (done.returncode, done.stdout.splitlines()) == (0, ["begins", "True"]), done.stderr
    else:
        assert done.returncode == 0 or "put it into a .py file and import it" in done.stderr, done.stderr
        assert "a retraining process died" not in done.stderr
    assert done.stdout.count("begins") == 1
