"""What a ground truth or another list of retrains would cost, said before it is trained.

Seconds of one retrain come from the best source that there is: finished retrains of the same list; else the
checkpoints, whose seconds are recorded, in proportion to their training examples; else one retrain, which is timed and
kept.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from attriboard.base.errors import InputError
from attriboard.base.terminal import duration
from attriboard.contracts.card import TaskCard
from attriboard.contracts.question import Question
from attriboard.contracts.task import Task
from attriboard.groundtruth.plan import truth_requests
from attriboard.records.provenance import provenance
from attriboard.retraining.choosing import trainer_class
from attriboard.retraining.engine import array_names, retrain
from attriboard.retraining.executors import Executor
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore


def wall_seconds(n_retrains: int, seconds_each: float, processes: int) -> float:
    """Wall-clock seconds of some retrains of so many process-seconds on some processes."""
    return n_retrains * seconds_each / max(1, min(processes, n_retrains))


@dataclass(frozen=True)
class Estimate:
    """What a ground truth would cost.

    Attributes:
        n_masks, n_repeats: its size.
        n_missing: retrains that are still to be done.
        seconds_each: process-seconds of one retrain.
        processes: how many train at the same time.
        basis: where `seconds_each` comes from.
    """

    n_masks: int
    n_repeats: int
    n_missing: int
    seconds_each: float
    processes: int
    basis: str

    @property
    def seconds(self) -> float:
        """Wall-clock seconds."""
        return wall_seconds(self.n_missing, self.seconds_each, self.processes)

    def __str__(self) -> str:
        if not self.n_missing:
            return f"{self.n_masks} masks × {self.n_repeats} repeats: all retrains are done already"
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return (
            f"about {duration(self.seconds)} for {self.n_missing} retrains ({self.n_masks} masks × {self.n_repeats} "
            f"repeats) of {self.seconds_each:.2g} s on {processes}; {self.basis}"
        )


def estimate_ground_truth(
    task: Task,
    store: RetrainStore,
    executor: Executor,
    *,
    question: Question | None = None,
    n_masks: int | None = None,
    n_repeats: int | None = None,
    checkpoints: Path | None = None,
) -> Estimate:
    """What `build_ground_truth` would cost; at most one model is trained to find out, and it is kept.

    Args:
        task: the task.
        store: its retrains; those that it has are not counted.
        executor: what would train.
        question: what is asked; the usual one by default.
        n_masks: number of subsets; the card's by default.
        n_repeats: retrains of each; the card's by default.
        checkpoints: the task's checkpoint bundle, where there is one.

    Raises:
        InputError: the task cannot be trained.
    """
    card = task.card
    size = card.size_of(question)
    n_masks, n_repeats = n_masks or size.n_masks, n_repeats or size.n_repeats
    requests = truth_requests(card, n_masks, n_repeats, question)
    each, basis = retrain_seconds(task, store, executor, requests, checkpoints)
    return Estimate(n_masks, n_repeats, len(missing_requests(task, store, requests)), each, executor.n_workers, basis)


def retrain_seconds(
    task: Task,
    store: RetrainStore,
    executor: Executor,
    requests: Sequence[RetrainRequest],
    checkpoints: Path | None = None,
) -> tuple[float, str]:
    """Process-seconds of one of some retrains, and in words how they are known; at most one is trained to find out.

    Args:
        task: the task.
        store: its retrains.
        executor: what would train.
        requests: what would be trained, of about one size.
        checkpoints: the task's checkpoint bundle, where there is one.

    Raises:
        InputError: the task cannot be trained.
    """
    card = task.card
    if card.recipe.optimizer == "none":
        raise InputError(f"task {card.name}: has no recipe, so nothing can be retrained")
    wanted = _by_digest(task, requests)
    if done := [digest for digest, r in wanted.items() if store.has(digest, array_names(task, r))]:
        return store.seconds(done) / len(done), f"measured on the {len(done)} that are done"
    first, request = next(iter(wanted.items()))
    recorded = None if checkpoints is None else _seconds_of(checkpoints, card, len(request.indices))
    if recorded is not None:
        return recorded
    retrain(task, [request], store, executor)
    basis = "one was trained to measure it"
    if trainer_class(task).stack_size(task) > 1:
        basis += " (an upper bound: many are trained at once)"
    return store.seconds([first]), basis


def missing_requests(
    task: Task, store: RetrainStore, requests: Sequence[RetrainRequest]
) -> Mapping[str, RetrainRequest]:
    """Those of some retrains that a store does not have, by their digest."""
    wanted = _by_digest(task, requests)
    return {digest: r for digest, r in wanted.items() if not store.has(digest, array_names(task, r))}


def _by_digest(task: Task, requests: Sequence[RetrainRequest]) -> dict[str, RetrainRequest]:
    fingerprint = task.card.fingerprint
    return {request.digest(fingerprint): request for request in requests}


def _seconds_of(path: Path, card: TaskCard, n_examples: int) -> tuple[float, str] | None:
    """Seconds of a retrain on so many examples after those of the checkpoints, and where they come from.

    `None` where the checkpoints were trained elsewhere, so that nobody knows.
    """
    with safe_open(path, framework="numpy") as file:
        sealed: dict[str, Any] = json.loads((file.metadata() or {}).get("card", "{}"))
    seconds, spec = float(sealed.get("retrain_seconds", 0.0)), card.checkpoints
    if not seconds:
        return None
    examples = spec.full * card.data.n_train + spec.half * card.subset_size
    cpu = sealed["provenance"]["hardware"]["cpu"]
    where = "" if cpu == provenance().hardware.cpu else f" on another machine ({cpu})"
    return (
        seconds * n_examples / examples,
        f"estimated from the {seconds:.3g} s that its {sealed['n_models']} checkpoints took{where}",
    )
