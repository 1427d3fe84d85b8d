"""What commands on a task need before they can start: the task, its ground truth, its checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING

from attriboard.cli.shell import note, progress_bar

if TYPE_CHECKING:
    from attriboard.contracts import Task
    from attriboard.evaluation import Grader
    from attriboard.groundtruth.registry import BundleRegistry
    from attriboard.retraining.executors import Executor

__all__ = ["executor", "open_checkpoints", "open_grader"]


def open_grader(task: "Task", registry: "BundleRegistry") -> "Grader":
    """The task's published ground truth, checked, as a grader."""
    from attriboard.evaluation import Grader
    from attriboard.groundtruth.bundle import read_ground_truth

    return Grader(read_ground_truth(registry.locate(task.card, "groundtruth")))


def open_checkpoints(task: "Task", registry: "BundleRegistry") -> Path:
    """The task's checkpoints: published, cached, or trained now."""
    from attriboard.groundtruth.build import ensure_checkpoints

    if registry.find(task.card, "checkpoints") is None:
        note(f"no published checkpoints of {task.card.name}: using this machine's own, trained where absent")
    with progress_bar(f"checkpoints of {task.card.name}") as progress:
        return ensure_checkpoints(task, registry, executor=executor, progress=progress)


def executor(n_workers: int | None = None) -> "Executor":
    """Local processes, one thread each."""
    from attriboard.retraining.executors import LocalProcesses

    return LocalProcesses(n_workers)
