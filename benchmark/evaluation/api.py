"""The Python interface: what the command line does, on arrays.

Attributors run in a process of their own here too; ground truth stays on this side.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.runner import Outcome
from attriboard.base.errors import AttriboardError
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.bundle import GroundTruth
from attriboard.records.model import LdsResult


def attribute(
    task: Task | str,
    attributor: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    isolated: bool = True,
    **hyperparameters: Any,
) -> NDArray[np.float32]:
    """Run an attributor on a task's published checkpoints.

    Args:
        task: a live task or its name.
        attributor: a name, or the path of a `.py` file.
        seed: for the attributor's randomness.
        device: where its tensors live.
        threads: of the numerical libraries; by default all cores.
        isolated: whether it runs in a process of its own. In this one a debugger stops in its code, and its exceptions
            arrive unchanged.
        hyperparameters: values that differ from the defaults.

    Returns:
        Scores (n_test, n_train), positive = including that training example raises that target.

    Raises:
        AttriboardError: the attributor failed; the message has its reason and where in its code that was.
    """
    workspace = Workspace(task, seed=seed, device=device, threads=threads, isolated=isolated)
    job = workspace.job(attributor, [{name: _plain(value) for name, value in hyperparameters.items()}])
    (outcome,) = workspace.runner.run(job)
    assert isinstance(outcome, Outcome), "a job without selectors has outcomes only"
    if outcome.scores is None:
        details = f"\n{outcome.details}" if outcome.details else ""
        name = outcome.attributor.name
        raise AttriboardError(f"{name} on {workspace.task.card.name} failed: {outcome.reason}{details}")
    return outcome.scores


def _plain(value: Any) -> Any:
    """NumPy's and PyTorch's scalars as Python's."""
    return value.item() if hasattr(value, "item") else value


def lds(scores: Any, task: Task | str) -> LdsResult:
    """Grade scores on a task's scoring points.

    Args:
        scores: (n_test, n_train), an array or a tensor; graded in the precision that it has.
        task: a live task or its name.

    Returns:
        Mean LDS with its 95 % interval, and the correlation of every scoring point.

    Raises:
        InputError: another shape, or no real numbers.
    """
    grader = Grader(load_ground_truth(task))
    return grader.grade(grader.predict(scores))


def load_ground_truth(task: Task | str) -> GroundTruth:
    """A task's published ground truth: `masks`, `seeds`, `outputs`, `target`, checked against its SHA-256.

    A bundle that is not here is fetched once, into the cache.

    Raises:
        DataError: there is none, or it is to be had nowhere.
        FormatError: the file is damaged.
    """
    return Workspace(task).bundles.truth
