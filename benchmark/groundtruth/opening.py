"""One way to a task's ground truth and checkpoints: here, in the cache, fetched, or trained on this machine."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attriboard.base.display import Display, Silent
from attriboard.base.errors import DataError
from attriboard.base.paths import cache_folder, write_atomically
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Task
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth
from attriboard.groundtruth.listing import BundleKind, BundleRegistry
from attriboard.retraining.executors import Executor


@dataclass(frozen=True, eq=False)
class TaskBundles:
    """The bundles of one task; nothing is read or fetched before it is asked for.

    Args:
        task: the task.
        registry: what is published of it.
        display: where progress goes.
        own_truth: a ground truth that was built on this machine for its own use; goes before the registry's.
    """

    task: Task
    registry: BundleRegistry
    display: Display
    own_truth: Path | None = None

    @property
    def graded(self) -> bool:
        """Whether there is a ground truth."""
        return self.own_truth is not None or self.registry.find(self.task.card, "groundtruth") is not None

    @cached_property
    def truth(self) -> GroundTruth:
        """The ground truth, checked against its SHA-256.

        Raises:
            DataError: none is listed, or no place has it.
            FormatError: the file is damaged.
        """
        if not self.graded and self.task.card.kind == "own":
            raise DataError(
                f"task {self.task.card.name}: has no ground truth yet; build it by ab.build_ground_truth(task), or "
                "attriboard groundtruth build with its file"
            )
        return read_ground_truth(self.own_truth or self._obtain("groundtruth"))

    def checkpoints(self, executor: Callable[[Callable[[str], None]], Executor]) -> Path:
        """Absolute path of the checkpoints: published ones, those that the task brings, else trained here once.

        Args:
            executor: makes the executor that trains them, given what the executor reports to.
        """
        if self.registry.find(self.task.card, "checkpoints"):
            return self._obtain("checkpoints").resolve()
        from attriboard.groundtruth.build import keep_checkpoints, train_checkpoints  # PyTorch, not for grading

        if self.task.trained:
            return keep_checkpoints(self.task).resolve()
        name = self.task.card.name
        self.display.note(f"no published checkpoints of {name}: using this machine's own, trained where absent")
        with self.display.progress(f"checkpoints of {name}") as progress:
            return train_checkpoints(self.task, executor=lambda: executor(progress.say), progress=progress).resolve()

    def _obtain(self, kind: BundleKind) -> Path:
        entry = self.registry.find(self.task.card, kind)
        if entry is None or self.registry.place(entry) is not None:
            return self.registry.locate(self.task.card, kind)
        with self.display.progress(entry.file, "bytes") as progress:
            return self.registry.obtain(self.task.card, kind, progress)


def open_bundles(task: Task, folder: Path | None = None, display: Display | None = None) -> TaskBundles:
    """The bundles of a task.

    Args:
        task: the task.
        folder: of bundles with a `registry.json`; the published ones by default, and beside them the ground truth that
            was built on this machine.
        display: where progress of downloads and training goes; nowhere by default.

    Raises:
        FormatError: the registry does not validate.
    """
    registry = BundleRegistry(folder)
    own = None if folder or registry.find(task.card, "groundtruth") else largest_truth(task.card)
    return TaskBundles(task, registry, display or Silent(), own)


def own_folder(card: TaskCard) -> Path:
    """Where ground truths are kept that were built on this machine for its own use, one file per size."""
    return cache_folder() / "groundtruth" / f"{card.name}-{card.fingerprint[:12]}"


def own_truth_file(card: TaskCard, n_masks: int, n_repeats: int) -> Path:
    """Where a ground truth of a size lies that was built on this machine."""
    return own_folder(card) / f"{n_masks}x{n_repeats}.safetensors"


def keep_own_truth(card: TaskCard, bundle: Path, n_masks: int, n_repeats: int) -> None:
    """Let everything on this machine find a ground truth of a task that is not published.

    Args:
        card: the task's.
        bundle: its file.
        n_masks: number of subsets.
        n_repeats: retrains of each.
    """
    if BundleRegistry().find(card, "groundtruth") is None:
        write_atomically(own_truth_file(card, n_masks, n_repeats), bundle.read_bytes())


def largest_truth(card: TaskCard) -> Path | None:
    """The ground truth with the most retrains among those built on this machine."""
    sizes = {
        path: int(match[1]) * int(match[2])
        for path in own_folder(card).glob("*.safetensors")
        if (match := re.fullmatch(r"(\d+)x(\d+)", path.stem))
    }
    return max(sizes, key=lambda path: sizes[path], default=None)
