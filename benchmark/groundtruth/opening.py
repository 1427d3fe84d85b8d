"""One way to a task's ground truth, checkpoints and start: here, in the cache, fetched, or trained on this machine."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from attriboard.base.display import Display, Silent
from attriboard.base.documents import parse_json
from attriboard.base.errors import DataError, FormatError
from attriboard.base.paths import cache_folder, start_path, write_atomically
from attriboard.base.tensors import read_header
from attriboard.contracts.card import CheckpointSpec, TaskCard
from attriboard.contracts.question import Question
from attriboard.contracts.task import Task
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth
from attriboard.groundtruth.listing import BundleKind, BundleRegistry, flag, pinned_start
from attriboard.groundtruth.sealed import REMEDY
from attriboard.retraining.executors import Executor


@dataclass(frozen=True, eq=False)
class TaskBundles:
    """The bundles of one task; nothing is read or fetched before it is asked for.

    Args:
        task: the task.
        registry: what is published of it.
        display: where progress goes.
        own: whether ground truths count that were built on this machine for its own use.
    """

    task: Task
    registry: BundleRegistry
    display: Display
    own: bool = False
    _read: dict[Question | None, GroundTruth] = field(default_factory=dict, init=False, repr=False)

    @property
    def graded(self) -> bool:
        """Whether there is a ground truth of the usual question."""
        return self.has(None)

    def has(self, question: Question | None) -> bool:
        """Whether there is a ground truth of a question."""
        return (
            self.registry.find(self.task.card, "groundtruth", question) is not None or self._own(question) is not None
        )

    @property
    def truth(self) -> GroundTruth:
        """The ground truth of the usual question; see `truth_of`."""
        return self.truth_of(None)

    def truth_of(self, question: Question | None) -> GroundTruth:
        """A ground truth, checked against its SHA-256.

        Raises:
            DataError: none is listed, or no place has it.
            FormatError: the file is damaged.
        """
        if question not in self._read:
            if self.task.card.kind == "own" and not self.has(question):
                asked = f" of question {question.name}" if question else ""
                named = f', question="{question.name}"' if question else ""
                raise DataError(
                    f"task {self.task.card.name}: has no ground truth{asked} yet; build it by "
                    f"ab.build_ground_truth(task{named}), or attriboard groundtruth build with its file{flag(question)}"
                )
            self._read[question] = read_ground_truth(self._own(question) or self._obtain("groundtruth", question))
        return self._read[question]

    def _own(self, question: Question | None) -> Path | None:
        """What was built on this machine; a published ground truth goes before it."""
        if not self.own or self.registry.find(self.task.card, "groundtruth", question):
            return None
        return largest_truth(self.task.card, question)

    def start(self) -> Path | None:
        """Bring the weights that every retrain starts from to where each process looks for them.

        They are copied from the folder of bundles, which isolated processes do not see, or fetched, once.

        Returns:
            Their file; `None` where a task has none that is published, or no list has it.

        Raises:
            DataError: listed, but no place has it.
            FormatError: the file has other bytes than the list says.
        """
        pinned = pinned_start(self.task.card)
        if pinned is None:
            return None
        place = start_path(*pinned)
        registries = () if place.is_file() else (self.registry, BundleRegistry())
        for registry in registries:
            entry = registry.find(self.task.card, "start")
            if entry is not None:
                with self.display.progress(entry.file, "bytes") as progress:
                    registry.obtain(self.task.card, "start", progress)
                    return registry.pull(entry, place, progress=progress)
        return place if place.is_file() else None

    def checkpoints(self, executor: Callable[[Callable[[str], None]], Executor]) -> Path:
        """Absolute path of the checkpoints: published ones, those that the task brings, else trained here once.

        Args:
            executor: makes the executor that trains them, given what the executor reports to.
        """
        self.start()  # they may be differences to it
        if self.registry.find(self.task.card, "checkpoints"):
            return self._obtain("checkpoints").resolve()
        # PyTorch, not for grading
        from attriboard.groundtruth.build import keep_checkpoints, own_checkpoints, train_checkpoints

        if self.task.trained:
            return keep_checkpoints(self.task).resolve()
        name = self.task.card.name
        models = self.task.card.checkpoints
        if not own_checkpoints(self.task).exists():
            self.display.note(
                f"models of {name}: {models.full} on all training examples, {models.half} on random subsets; trained "
                "here once, then kept"
            )
        with self.display.progress(f"checkpoints of {name}") as progress:
            return train_checkpoints(self.task, executor=lambda: executor(progress.say), progress=progress).resolve()

    def models(self, count: int) -> Path | None:
        """Absolute path of the published bundle of more models; `None` where none is listed that has enough.

        Args:
            count: how many of either kind, full-data and half-data, are wanted.
        """
        if self.registry.find(self.task.card, "models") is None:
            return None
        self.start()
        path = self._obtain("models").resolve()
        kept = _kept(path)
        return path if min(kept.full, kept.half) >= count else None

    @property
    def epochs(self) -> tuple[int, ...]:
        """After which epochs there are models: by the bundle, where one is listed, or else by the card."""
        listed = self.registry.find(self.task.card, "checkpoints") is not None
        return tuple((_kept(self._obtain("checkpoints")) if listed else self.task.card.checkpoints).epochs)

    def _obtain(self, kind: BundleKind, question: Question | None = None) -> Path:
        entry = self.registry.find(self.task.card, kind, question)
        if entry is None or self.registry.place(entry) is not None:
            return self.registry.locate(self.task.card, kind, question)
        with self.display.progress(entry.file, "bytes") as progress:
            return self.registry.obtain(self.task.card, kind, progress, question)


def _kept(models: Path) -> CheckpointSpec:
    """Which models a bundle has, by the card that it carries."""
    facts = read_header(models).get("__metadata__", {}).get("card")
    if facts is None:
        raise FormatError(f"{models}: carries no card, so it is no bundle of AttriBoard; {REMEDY}")
    return TaskCard.model_validate(parse_json(facts)["task"]).checkpoints


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
    return TaskBundles(task, BundleRegistry(folder), display or Silent(), own=folder is None)


def own_folder(card: TaskCard) -> Path:
    """Where ground truths are kept that were built on this machine for its own use, one file per question and size."""
    return cache_folder() / "groundtruth" / f"{card.name}-{card.fingerprint[:12]}"


def own_truth_file(card: TaskCard, n_masks: int, n_repeats: int, question: Question | None = None) -> Path:
    """Where a ground truth of a question and size lies that was built on this machine."""
    return own_folder(card) / f"{_prefix(question)}{n_masks}x{n_repeats}.safetensors"


def keep_own_truth(
    card: TaskCard, bundle: Path, n_masks: int, n_repeats: int, question: Question | None = None
) -> None:
    """Let everything on this machine find a ground truth that is not published.

    Args:
        card: the task's.
        bundle: its file.
        n_masks: number of subsets.
        n_repeats: retrains of each.
        question: what it asks; the usual question by default.
    """
    if BundleRegistry().find(card, "groundtruth", question) is None:
        write_atomically(own_truth_file(card, n_masks, n_repeats, question), bundle.read_bytes())


def largest_truth(card: TaskCard, question: Question | None = None) -> Path | None:
    """The ground truth of a question with the most retrains among those built on this machine."""
    sizes = {
        path: int(match[1]) * int(match[2])
        for path in own_folder(card).glob("*.safetensors")
        if (match := re.fullmatch(rf"{re.escape(_prefix(question))}(\d+)x(\d+)", path.stem))
    }
    return max(sizes, key=lambda path: sizes[path], default=None)


def _prefix(question: Question | None) -> str:
    return f"{question.name}-" if question else ""
