"""What the tests of selectors, sweeps and selection share: the tiny task, published, and methods without a spectrum."""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from tiny import Published, tiny_task

from attriboard.attribution.executors import OwnProcess, ThisProcess
from attriboard.attribution.job import Job
from attriboard.contracts.task import TaskSpec
from attriboard.evaluation import grader, workspace
from attriboard.evaluation.catalog import attributor_spec, selector_spec, spectrum_donors
from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.retraining.executors import InProcess
from attriboard.scoring.bootstrap import Bootstrap

GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)

# Kernel ridge on the inputs: it adds an absolute λ, and offers no spectrum. λ = 0 fails, as it does in many libraries.
RIDGE = '''
from pathlib import Path

import torch
from attriboard import Attributor, Hyperparameter


def note(what):
    with Path(__file__).with_name("calls.txt").open("a") as file:
        print(what, file=file)


class Ridge(Attributor):
    """Kernel ridge regression on the inputs."""

    name = "ridge"
    curvature = {curvature!r}
    hyperparameters = (
        Hyperparameter({name!r}, 0.0, source="here", stage={stage!r}, grid={grid}, minimum=0.0),
        Hyperparameter("power", 1, source="here"),
    )

    def fit(self, context, power, **values):
        note(f"fit {{power}} {{values}}")
        inputs = context.train.inputs.double() ** power
        state = inputs @ inputs.T / len(inputs), inputs @ (context.test.inputs.double() ** power).T
        return self.solve(state, **values) if values else state

    def score(self, state, **values):
        note(f"score {{values}}")
        return self.solve(state, **values) if values else state

    def solve(self, state, {name}):
        kernel, products = state
        if {name} in {broken}:
            raise ZeroDivisionError("singular")
        shifted = kernel + {name} * torch.eye(len(kernel), dtype=kernel.dtype)
        return -torch.linalg.solve(shifted, products).T.float()
'''

PLAIN = """
from attriboard import Attributor


class Plain(Attributor):
    name = "plain"

    def fit(self, context):
        return -context.test.inputs @ context.train.inputs.T

    def score(self, state):
        return state.clone()
"""


def publish(folder: Path) -> Published:
    """The tiny task's ground truth and checkpoints."""
    task = tiny_task(epochs=10)
    made = Published(task, folder / "truth.safetensors", folder / "checkpoints.safetensors", folder / "store")
    store = open_store(task, made.store)
    build_ground_truth(task, made.truth, store)
    build_checkpoints(task, made.checkpoints, store)
    return made


def list_bundles(published: Published, folder: Path) -> BundleRegistry:
    """A new folder of bundles, which has the tiny task's and lists them."""
    folder.mkdir()
    registry = BundleRegistry(folder)
    for kind, path in (("groundtruth", published.truth), ("checkpoints", published.checkpoints)):
        (folder / registry.file_name(published.task.card, kind)).write_bytes(path.read_bytes())
        registry.register(published.task.card, kind)
    return registry


def run_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on attributors run in this process; tests/attribution has the tests of the real one."""
    inline = ThisProcess(propagate=False)
    monkeypatch.setattr(OwnProcess, "start", lambda self, folder, listen: inline.start(folder, listen))


def retrain_inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on commands retrain in this process, without worker processes that import PyTorch."""
    monkeypatch.setattr(workspace, "LocalProcesses", lambda n_workers: InProcess())


def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on bootstrap intervals come from 20 resamples; tests/scoring has the tests of what they are."""
    monkeypatch.setattr(grader, "Bootstrap", partial(Bootstrap, n_resamples=20))


def write_ridge(
    folder: Path,
    *,
    name: str = "regularization",
    stage: str = "score",
    grid: Sequence[float] = GRID,
    broken: Any = (),
    curvature: str = "fisher",
) -> Path:
    """The plugin file of a method without a spectrum; λ in `broken` raises."""
    path = folder / "ridge.py"
    values = {"name": name, "stage": stage, "grid": tuple(grid), "broken": tuple(broken), "curvature": curvature}
    path.write_text(RIDGE.format(**values), encoding="utf-8")
    return path


def write(path: Path, source: str) -> Path:
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return path


def calls(folder: Path, kind: str) -> list[str]:
    """What the ridge plugin was asked to do so far."""
    path = folder / "calls.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [line for line in lines if line.startswith(kind)]


def make_job(
    made: Published,
    attributor: str | Path,
    *configurations: dict[str, Any],
    selectors: Sequence[str | Path] = ("surrogate",),
    **changes: Any,
) -> Job:
    """A job on the tiny task."""
    return Job(
        task=TaskSpec.of(made.task),
        attributor=attributor_spec(attributor),
        configurations=configurations or ({},),
        checkpoints=made.checkpoints,
        selectors=tuple(selector_spec(name) for name in selectors),
        donors=spectrum_donors(),
        **changes,
    )


def brute_lds(scores: np.ndarray, masks: np.ndarray, target: np.ndarray, points: np.ndarray) -> float:
    """Mean over points of Spearman's correlation, the slow way: target (n_masks, n_repeats, n_test)."""
    each = []
    for point in points:
        predicted = [scores[point][mask].sum(dtype=np.float64) for mask in masks]
        each.append(spearmanr(predicted, target[:, :, point].mean(1)).statistic)
    return float(np.mean(each))
