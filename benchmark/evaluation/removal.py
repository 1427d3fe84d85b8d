"""Data selection: remove what an attribution says, retrain on the rest, measure on the scoring points.

Every retrain is a request to the one store: full-data and random ones are shared by all attributors, and a subset that
two configurations agree on is trained once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.runner import Outcome
from attriboard.base.errors import InputError
from attriboard.base.scores import Scores
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.retrains import Retrains, Work, same_question
from attriboard.evaluation.sweeps import Swept, sweep_points
from attriboard.evaluation.variants import (
    Attributed,
    Part,
    answering_records,
    attribute_parts,
    attributed,
    known_or_made,
    record_fields,
)
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.plan import removal_seed, shuffled_rows, split_of
from attriboard.records.files import write_record
from attriboard.records.model import Variant
from attriboard.records.uses import RemovalPoint, RemovalRecord
from attriboard.retraining.engine import Progress
from attriboard.retraining.executors import Executor
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore
from attriboard.scoring.removal import Direction, kept_rows, removal_order, removal_size, summed_scores
from attriboard.scoring.split import Split

Measured = dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class RemovalPlan:
    """What is removed, and how often it is retrained.

    Args:
        rates: shares of the training set, in (0, 1).
        n_seeds: retrains of every subset.
        direction: whether the most helpful or the most harmful examples go.
        balanced: whether every class loses the same share.

    Raises:
        InputError: no rate, or no seed.
    """

    rates: tuple[float, ...]
    n_seeds: int = 10
    direction: Direction = "helpful"
    balanced: bool = False

    def __post_init__(self) -> None:
        if not self.rates or self.n_seeds < 1:
            raise InputError(f"{len(self.rates)} rates and {self.n_seeds} seeds: needs at least one of each")
        object.__setattr__(self, "rates", tuple(sorted(set(self.rates))))


@dataclass(frozen=True, eq=False)
class Ranking:
    """In which order an attribution removes the training set, and how many calibration points it could not use."""

    order: NDArray[np.int64]
    n_degenerate: int


class RemovalBench:
    """A task, a plan and a store: from rankings to records.

    Args:
        task: the task.
        grader: its ground truth, where it has one; only its digest is used.
        plan: what is removed.
        store: of the task's retrains.

    Raises:
        InputError: a rate removes nothing or everything, or classes are asked for that the task does not have.
        DataError: the data is needed for its classes, and unavailable.
    """

    def __init__(self, task: Task, grader: Grader | None, plan: RemovalPlan, store: RetrainStore) -> None:
        self.task, self.grader, self.plan, self.store = task, grader, plan, store
        self._retrains = Retrains(task, store)
        n_train = task.card.data.n_train
        self._sizes = {rate: removal_size(rate, n_train) for rate in plan.rates}
        self._classes = _classes(task) if plan.balanced else None
        self._seeds = tuple(removal_seed(s) for s in range(plan.n_seeds))

    @cached_property
    def split(self) -> Split:
        """Calibration and scoring points."""
        return split_of(self.task.card)

    def rank(self, scores: Scores) -> Ranking:
        """The order in which scores (n_test, n_train) remove the training set.

        Raises:
            InputError: no calibration point has finite scores.
        """
        sums, n_degenerate = summed_scores(scores, self.split.calibration)
        return Ranking(removal_order(sums, self.plan.direction), n_degenerate)

    def retrain(
        self,
        rankings: Sequence[Ranking],
        executor: Executor,
        progress: Progress = lambda done, total: None,
    ) -> Work:
        """Have everything trained that records of these rankings need; finished retrains are kept whatever happens."""
        requests = [*self._full(), *(r for rate in self.plan.rates for r in self._random(rate))]
        requests += [r for ranking in rankings for rate in self.plan.rates for r in self._ranked(ranking, rate)]
        return self._retrains.train(requests, executor, progress)

    def record(self, attributed: Attributed[Ranking]) -> RemovalRecord:
        """The record of one configuration whose retrains are done."""
        ranking, seconds, points, full = attributed.made, 0.0, [], None
        if ranking is not None:
            full = self._measured(self._full())
            for rate in self.plan.rates:
                requests = self._ranked(ranking, rate)
                points.append(
                    RemovalPoint(
                        rate=rate,
                        n_removed=self._sizes[rate],
                        measured=self._measured(requests),
                        random=self._measured(self._random(rate)),
                    )
                )
                seconds += self._retrains.seconds(requests)
        return RemovalRecord(
            **record_fields(self.task, self.grader, attributed),
            direction=self.plan.direction,
            balanced=self.plan.balanced,
            n_calibration=len(self.split.calibration),
            n_degenerate=ranking.n_degenerate if ranking else 0,
            n_scoring=len(self.split.scoring),
            retrain_seeds=self._seeds,
            retrain_seconds=round(seconds, 3),
            full=full,
            points=tuple(points),
        )

    def answers(self, record: RemovalRecord) -> bool:
        """Whether a finished record is of this task, ground truth and plan, whatever its attributor."""
        return (
            same_question(record, self.task, self.grader)
            and (record.direction, record.balanced, record.retrain_seeds)
            == (self.plan.direction, self.plan.balanced, self._seeds)
            and (record.status == "failed" or tuple(point.rate for point in record.points) == self.plan.rates)
        )

    def _full(self) -> list[RetrainRequest]:
        everything = np.arange(self.task.card.data.n_train)
        return [RetrainRequest(everything, seed) for seed in self._seeds]

    def _random(self, rate: float) -> list[RetrainRequest]:
        """As many examples removed at random, others for every seed."""
        return [
            RetrainRequest(self._kept(shuffled_rows(self.task.card, s), rate), seed)
            for s, seed in enumerate(self._seeds)
        ]

    def _ranked(self, ranking: Ranking, rate: float) -> list[RetrainRequest]:
        kept = self._kept(ranking.order, rate)
        return [RetrainRequest(kept, seed) for seed in self._seeds]

    def _kept(self, order: NDArray[np.int64], rate: float) -> NDArray[np.int64]:
        return kept_rows(order, self._sizes[rate], self._classes)

    def _measured(self, requests: Sequence[RetrainRequest]) -> Measured:
        """Measurement → mean over scoring points, for each request."""
        means = {
            name: self._retrains.outputs(name, requests)[:, self.split.scoring].mean(axis=1, dtype=np.float64)
            for name in self.task.measurements
        }
        return {name: tuple(np.round(values, 6).tolist()) for name, values in means.items()}


def removal_records(
    workspace: Workspace,
    bench: RemovalBench,
    attributors: Sequence[str | Path],
    variants: Sequence[Variant],
    results: Path,
) -> tuple[list[RemovalRecord], Work]:
    """Records of every attributor's variants, in order: from the folder, or made now and written there.

    Args:
        workspace: the task.
        bench: what is removed.
        attributors: names or files.
        variants: wanted ones.
        results: folder of records.

    Returns:
        The records, and what retraining took.
    """
    found = known_or_made(workspace, attributors, variants, results, RemovalRecord, bench.answers, bench.rank)
    return retrained(workspace, bench, list(found), results)


def retrained(
    workspace: Workspace,
    bench: RemovalBench,
    found: Sequence[RemovalRecord | Attributed[Ranking]],
    results: Path,
) -> tuple[list[RemovalRecord], Work]:
    """Have the retrains of rankings done, and write their records; records that are there already stay."""
    with workspace.display.progress(f"retrains of {workspace.task.card.name}") as progress:
        rankings = [item.made for item in found if not isinstance(item, RemovalRecord) and item.made is not None]
        work = bench.retrain(rankings, workspace.executor(progress.say), progress)
    records = [item if isinstance(item, RemovalRecord) else bench.record(item) for item in found]
    for record in records:
        write_record(record, results)
    return records, work


def removal_points(
    workspace: Workspace,
    attributor: str | Path,
    grids: Sequence[tuple[str, Sequence[str]]],
    fixed: Mapping[str, str],
    results: Path,
    bench: RemovalBench,
) -> tuple[Swept, list[RemovalRecord], Work]:
    """Sweep both LDS and removal; every point is a record of either kind, and is not computed again.

    Args:
        workspace: the task.
        attributor: its name or file.
        grids: what is swept, see `parse_grid`.
        fixed: hyperparameters that are not swept.
        results: folder of records.
        bench: what is removed.

    Returns:
        The sweep of LDS, the records of removals in the same order, and what retraining took.
    """
    job = workspace.job(attributor)
    found: list[Attributed[Ranking]] = []

    def listen(outcome: Outcome) -> None:
        """Rank by the scores that LDS is computed from, so that a new sweep fits once."""
        found.append(attributed(Part("sweep", None, outcome.hyperparameters), job, outcome, bench.rank))

    swept = sweep_points(workspace, attributor, grids, fixed, results, title=f"LDS of {attributor}", listen=listen)
    finished = [r for r in workspace.records(results) if isinstance(r, RemovalRecord) and r.variant == "sweep"]
    described = workspace.runner.describe(job)
    wanted = [Part("sweep", None, record.hyperparameters) for record in swept.records]
    known = answering_records(job, described, wanted, finished, bench.answers)
    here = [dict(a.part.hyperparameters) for a in found]
    missing = [p for p, k in zip(wanted, known, strict=True) if k is None and dict(p.hyperparameters) not in here]
    if missing:
        found += attribute_parts(job, missing, bench.rank, workspace.runner)
    made = [
        record or next(a for a in found if a.part.hyperparameters == part.hyperparameters)
        for part, record in zip(wanted, known, strict=True)
    ]
    removed, work = retrained(workspace, bench, made, results)
    return swept, removed, work


def _classes(task: Task) -> NDArray[np.int64]:
    """Class number of every training example.

    Raises:
        InputError: the task has no classes.
    """
    targets = task.load_data().train.targets
    if targets.dim() != 1 or targets.is_floating_point():
        raise InputError(f"balanced: task {task.card.name} has no classes that could lose the same share each")
    classes: NDArray[np.int64] = targets.numpy().astype(np.int64)
    return classes
