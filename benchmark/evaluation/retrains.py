"""What the uses of attributions share that retrain: training what the store lacks, reading it back, own scores' order.

Every retrain is a request to the one store, so that a subset on which two configurations agree is trained once.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.base.scores import Scores
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import Grader
from attriboard.records.uses import DownstreamRecord
from attriboard.retraining.engine import Progress, retrain
from attriboard.retraining.executors import Executor
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore


@dataclass(frozen=True)
class Work:
    """Different retrains asked for, those that had to be done, and the wall-clock seconds of that.

    The others were in the store before.
    """

    asked: int
    done: int
    seconds: float


class Retrains:
    """Retrains of a task, with a count of what they took.

    Args:
        task: the task.
        store: of its retrains.

    Attributes:
        work: what was asked for and done so far.
    """

    def __init__(self, task: Task, store: RetrainStore) -> None:
        self.task, self.store = task, store
        self.work = Work(0, 0, 0.0)
        self._asked = set[str]()

    def train(
        self,
        requests: Sequence[RetrainRequest],
        executor: Executor,
        progress: Progress = lambda done, total: None,
    ) -> Work:
        """Have them in the store, and say what that took; finished ones are kept whatever happens."""
        started = time.perf_counter()
        done = retrain(self.task, requests, self.store, executor, progress)
        seconds, asked, before = time.perf_counter() - started, set(self._digests(requests)), self.work
        self._asked |= asked
        self.work = Work(len(self._asked), before.done + done, before.seconds + seconds)
        return Work(len(asked), done, seconds)

    def outputs(self, measurement: str, requests: Iterable[RetrainRequest]) -> NDArray[Any]:
        """One measurement of trained models at every test point, (n_requests, n_test)."""
        return self.store.read(f"outputs/{measurement}", self._digests(requests))

    def seconds(self, requests: Iterable[RetrainRequest]) -> float:
        """Process-seconds that training them took, whenever that was."""
        return self.store.seconds(self._digests(requests))

    def _digests(self, requests: Iterable[RetrainRequest]) -> list[str]:
        fingerprint = self.task.card.fingerprint
        return [request.digest(fingerprint) for request in requests]


@dataclass(frozen=True, eq=False)
class Orders:
    """For every point, in which order its own scores remove the training set; `None` where they have NaN.

    Attributes:
        rows: of each point, (n_train,) or as many of the first as were asked for.
    """

    rows: tuple[NDArray[np.int64] | None, ...]

    @property
    def n_degenerate(self) -> int:
        """Points without an order."""
        return sum(row is None for row in self.rows)


def own_orders(scores: Scores, points: Sequence[int], first: int | None = None) -> Orders:
    """How scores (n_test, n_train) remove the training set for each of some points, the most helpful first.

    Args:
        scores: positive = helpful; of equals the example with the smaller index goes first.
        points: positions of test points.
        first: how many of each order are wanted; all by default.

    Raises:
        InputError: every point's scores have NaN or infinity.
    """
    rows = [scores[point] for point in points]
    usable = [bool(np.isfinite(row).all()) for row in rows]
    if not any(usable):
        raise InputError(f"the scores of all {len(rows)} points have NaN or infinity")
    return Orders(
        tuple(
            np.argsort(-row.astype(np.float64), kind="stable")[:first].astype(np.int64) if good else None
            for row, good in zip(rows, usable, strict=True)
        )
    )


def same_question(record: DownstreamRecord, task: Task, grader: Grader | None) -> bool:
    """Whether a record is of this task and ground truth."""
    truth = grader.truth.sha256 if grader else None
    known = record.ground_truth.sha256 if record.ground_truth else None
    return known == truth and record.task.fingerprint == task.card.fingerprint
