"""Query loss difference: remove each point's own top examples, retrain, and compare with random removals.

Park et al., *TRAK* (2023), section 5.1, remove a query's own top examples and count flipped predictions; here the
change of the target itself is measured, which says something of every point.

Retrains are few and noisy, so the design is the one with the smallest variance per retrain:

- Both models of a difference have one seed. Removed examples stay in their batches with weight 0, so that initial
  parameters and order of examples are the same too. On `digits_mlp` the variance of one point's difference over seeds
  is about a seventh of that between models with different seeds (`python -m bench.qld_design`).
- Points are spread over five seeds, with one retrain each: another point brings more than another seed of the same one.
- The model of a random removal is measured at every point, so five of them for each seed serve all points, methods and
  variants. Random sets vary far less than seeds: more of them would change nothing.

Examples of a model with batch norm have no weights, so they are left out of the training set; the seed stays the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.base.scores import Scores
from attriboard.base.terminal import counted, duration
from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import attributor_spec
from attriboard.evaluation.grader import Grader, rounded
from attriboard.evaluation.retrains import Orders, Retrains, Work, own_orders, same_question
from attriboard.evaluation.variants import Attributed, known_or_made, record_fields
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.estimate import missing_requests, retrain_seconds, wall_seconds
from attriboard.groundtruth.plan import removal_seed, shuffled_points, shuffled_rows, split_of
from attriboard.records.files import write_record
from attriboard.records.model import Variant
from attriboard.records.uses import QldRecord
from attriboard.retraining.engine import Progress
from attriboard.retraining.executors import Executor
from attriboard.retraining.opening import has_batch_norm
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore
from attriboard.retraining.trainer import blank_model
from attriboard.scoring.qld import mean_drop

_SEEDS = 5
_RANDOM = 5  # random removals for each seed
_USUAL, _FEWEST = 100, 20  # points where all would take long, and where these would
_SHORT, _LONG = 60.0, 1800.0  # seconds for one configuration up to which all points, or the usual number, are taken


@dataclass(frozen=True)
class QldPlan:
    """What is removed, for how many points.

    Args:
        fraction: share of the training set that each point loses, at least one example.
        n_points: scoring points, drawn at random; all where there are fewer. By default as many as are cheap, see
            `affordable_points`.
        n_repeats: seeds of each point; its difference is their mean.

    Raises:
        InputError: fewer than two points, no repeat, or no numbers.
    """

    fraction: float = 0.01
    n_points: int | None = None
    n_repeats: int = 1

    def __post_init__(self) -> None:
        whole = all(isinstance(n, int) for n in (self.n_points or 0, self.n_repeats))
        if not whole or (self.n_points is not None and self.n_points < 2) or self.n_repeats < 1:
            raise InputError(
                f"points = {self.n_points}, repeats = {self.n_repeats}: needs whole numbers, at least two points and "
                "one repeat"
            )
        if not isinstance(self.fraction, int | float):
            raise InputError(f"fraction = {self.fraction!r}: must be a number in (0, 1)")


@dataclass(frozen=True)
class Cost:
    """What retraining will take at most; configurations that agree on a subset share it.

    Attributes:
        n_points, n_configurations, n_repeats: whose product is the number of retrains,
        n_random: beside those of random removals that are still to be done.
        seconds_each: process-seconds of one retrain.
        processes: how many train at the same time.
        basis: where `seconds_each` comes from.
    """

    n_points: int
    n_configurations: int
    n_repeats: int
    n_random: int
    seconds_each: float
    processes: int
    basis: str

    @property
    def n_retrains(self) -> int:
        """Retrains of everything."""
        return self.n_points * self.n_configurations * self.n_repeats + self.n_random

    @property
    def seconds(self) -> float:
        """Wall-clock seconds."""
        return wall_seconds(self.n_retrains, self.seconds_each, self.processes)

    def __str__(self) -> str:
        repeats = f" × {self.n_repeats} repeats" * (self.n_repeats > 1)
        configurations = counted(self.n_configurations, "configuration")
        random = f" + {self.n_random} random removals" * (self.n_random > 0)
        return (
            f"at most {self.n_retrains:,} retrains ({self.n_points} points × {configurations}{repeats}{random}), "
            f"about {duration(self.seconds)} at {self.seconds_each:.2g} s each on "
            f"{self.processes} process{'es' * (self.processes > 1)}; {self.basis}"
        )


def affordable_points(n_scoring: int, seconds_each: float) -> int:
    """How many points are taken where nobody says.

    All where one configuration takes a minute, else 100; where these take more than half an hour, as many as that
    allows, but at least 20.

    Args:
        n_scoring: scoring points of the task.
        seconds_each: wall-clock seconds per point.
    """
    if n_scoring * seconds_each <= _SHORT:
        return n_scoring
    fitting = min(_USUAL, int(_LONG // seconds_each))
    return min(n_scoring, max(_FEWEST, fitting))


class QldBench:
    """A task, a plan and a store: from orders to records.

    Args:
        task: the task.
        grader: its ground truth, where it has one; only its digest is used.
        plan: what is removed.
        store: of the task's retrains.

    Raises:
        InputError: the fraction removes nothing or everything, or the task cannot be trained.
    """

    def __init__(self, task: Task, grader: Grader | None, plan: QldPlan, store: RetrainStore) -> None:
        card = task.card
        if card.recipe.optimizer == "none":
            raise InputError(f"task {card.name}: has no recipe, so nothing can be retrained")
        self.task, self.grader, self.plan, self.store = task, grader, plan, store
        self.size = _removed(plan.fraction, card.data.n_train)
        self.weighted = not has_batch_norm(blank_model(task))
        self._everything = np.arange(card.data.n_train)
        self._seeds = tuple(removal_seed(s) for s in range(max(_SEEDS, plan.n_repeats)))
        self._retrains = Retrains(task, store)
        scoring = set(split_of(card).scoring.tolist())
        self._scoring = tuple(int(point) for point in shuffled_points(card) if int(point) in scoring)
        self.points: tuple[int, ...] = self._scoring[: plan.n_points]
        if len(self.points) < 2:
            raise InputError(f"task {card.name}: has {len(self.points)} scoring points; an interval needs two")

    @property
    def work(self) -> Work:
        """Retrains asked for and done so far."""
        return self._retrains.work

    def choose_points(
        self,
        executor: Executor,
        n_configurations: int,
        finished: Iterable[Any] = (),
        checkpoints: Path | None = None,
    ) -> Cost:
        """Settle how many points there are, and say what they cost; at most one model is trained to find out.

        Args:
            executor: what will train.
            n_configurations: how many will be measured, at most.
            finished: records, of which those of this plan say how many points it had.
            checkpoints: the task's checkpoint bundle, where there is one.

        Raises:
            InputError: the task cannot be trained.
        """
        requests = [request for requests in self._random for request in requests]
        each, basis = retrain_seconds(self.task, self.store, executor, requests, checkpoints)
        if self.plan.n_points is None:
            known = [
                len(record.test_points) + record.n_degenerate
                for record in finished
                if isinstance(record, QldRecord) and record.status == "ok" and self._same_plan(record)
            ]
            wall = each * self.plan.n_repeats / executor.n_workers
            self.points = self._scoring[: max(known, default=0) or affordable_points(len(self._scoring), wall)]
        missing = len(missing_requests(self.task, self.store, requests))
        return Cost(len(self.points), n_configurations, self.plan.n_repeats, missing, each, executor.n_workers, basis)

    def order(self, scores: Scores) -> Orders:
        """What scores (n_test, n_train) remove for every point.

        Raises:
            InputError: the scores of all points but one have NaN or infinity.
        """
        orders = own_orders(scores, self.points, self.size)
        if len(self.points) - orders.n_degenerate < 2:
            raise InputError(f"the scores of all but one of {len(self.points)} points have NaN or infinity")
        return orders

    def retrain(
        self, orders: Sequence[Orders], executor: Executor, progress: Progress = lambda done, total: None
    ) -> None:
        """Have everything trained that records of these orders need; finished retrains are kept whatever happens."""
        requests = [request for requests in self._random for request in requests]
        requests += [request for order in orders for own in self._own(order).values() for request in own]
        self._retrains.train(requests, executor, progress)

    def record(self, attributed: Attributed[Orders]) -> QldRecord:
        """The record of one configuration whose retrains are done."""
        orders = attributed.made
        measured = self._measured(orders) if orders else {}
        return QldRecord(
            **record_fields(self.task, self.grader, attributed),
            target=self.task.card.target,
            fraction=self.plan.fraction,
            n_removed=self.size,
            removed_by="weight" if self.weighted else "subset",
            n_scoring=len(self._scoring),
            n_degenerate=orders.n_degenerate if orders else 0,
            retrain_seeds=self._seeds,
            n_repeats=self.plan.n_repeats,
            n_random=_RANDOM,
            **measured
            or {"retrain_seconds": 0.0, "test_points": (), "removed": {}, "random": {}, "drop": None, "ci95": None},
        )

    def answers(self, record: QldRecord) -> bool:
        """Whether a finished record is of this task, ground truth, plan and points, whatever its attributor."""
        n_points = len(record.test_points) + record.n_degenerate
        return self._same_plan(record) and (record.status == "failed" or n_points == len(self.points))

    def _same_plan(self, record: QldRecord) -> bool:
        """Whether a record differs in the number of points at most."""
        return same_question(record, self.task, self.grader) and (
            record.fraction,
            record.n_repeats,
            record.retrain_seeds,
            record.n_random,
            record.removed_by,
        ) == (self.plan.fraction, self.plan.n_repeats, self._seeds, _RANDOM, "weight" if self.weighted else "subset")

    def _seed_of(self, position: int) -> list[int]:
        """Which seeds a point has, one for each repeat: the same under every order, so that methods are paired."""
        return [(position + repeat) % len(self._seeds) for repeat in range(self.plan.n_repeats)]

    def _own(self, orders: Orders) -> dict[int, list[RetrainRequest]]:
        """Position of every point with an order → its retrains, one for each repeat."""
        return {
            position: [self._without(row, self._seeds[s]) for s in self._seed_of(position)]
            for position, row in enumerate(orders.rows)
            if row is not None
        }

    @cached_property
    def _random(self) -> list[list[RetrainRequest]]:
        """For every seed its random removals; the first of each is the one that data selection has beside its seed."""
        n_seeds, card = len(self._seeds), self.task.card
        return [
            [self._without(shuffled_rows(card, s + n_seeds * j)[: self.size], seed) for j in range(_RANDOM)]
            for s, seed in enumerate(self._seeds)
        ]

    def _without(self, rows: NDArray[np.int64], seed: int) -> RetrainRequest:
        if not self.weighted:
            return RetrainRequest(np.delete(self._everything, rows), seed)
        weights = np.ones(len(self._everything))
        weights[rows] = 0.0
        return RetrainRequest(self._everything, seed, weights=weights)

    def _measured(self, orders: Orders) -> dict[str, Any]:
        """The part of a record that retrains say."""
        own = self._own(orders)
        positions = list(own)
        seeds = np.array([self._seed_of(position) for position in positions])
        flat = [request for position in positions for request in own[position]]
        name, sign = self.task.card.target_output
        tests = np.array(self.points)[positions]
        removed, random = {}, {}
        for key, measurement, factor in (("target", name, sign), ("loss", "loss", 1)):
            outputs = self._retrains.outputs(measurement, flat).reshape(len(positions), self.plan.n_repeats, -1)
            controls = np.stack([self._retrains.outputs(measurement, requests) for requests in self._random])
            removed[key] = factor * outputs[np.arange(len(positions)), :, tests].astype(np.float64)
            random[key] = factor * controls[seeds, :, tests[:, None]].astype(np.float64)
        found = mean_drop(removed["target"], random["target"], seeds)
        return {
            "retrain_seconds": round(self._retrains.seconds(flat), 3),
            "test_points": tuple(tests.tolist()),
            "removed": {key: rounded(values.mean(axis=1)) for key, values in removed.items()},
            "random": {key: rounded(values.mean(axis=(1, 2))) for key, values in random.items()},
            "drop": found.mean,
            "ci95": found.ci95,
        }


def _removed(fraction: float, n_train: int) -> int:
    """How many examples a point loses: the nearest whole number, but at least one.

    Raises:
        InputError: no fraction, or all would be removed.
    """
    size = max(1, round(fraction * n_train)) if 0 < fraction < 1 else 0
    if not 0 < size < n_train:
        raise InputError(
            f"fraction = {fraction:g}: must lie in (0, 1) and leave some of {n_train} examples, as in fraction = 0.01"
        )
    return size


def qld_records(
    workspace: Workspace,
    bench: QldBench,
    attributors: Sequence[str | Path],
    variants: Sequence[Variant],
    results: Path,
) -> list[QldRecord]:
    """Records of every attributor's variants, in order: from the folder, or made now and written there.

    What retraining will cost is said first.

    Args:
        workspace: the task.
        bench: what is removed.
        attributors: names or files.
        variants: wanted ones.
        results: folder of records.
    """
    for name in attributors:
        attributor_spec(name)  # a wrong name is found before a model is trained
    card, bundles = workspace.task.card, workspace.bundles
    checkpoints = bundles.checkpoints(workspace.executor) if bundles.registry.find(card, "checkpoints") else None
    finished = workspace.records(results)
    cost = bench.choose_points(workspace.executor(), len(attributors) * len(variants), finished, checkpoints)
    workspace.display.note(f"query loss differences of {card.name}: {cost}")
    found = known_or_made(workspace, attributors, variants, results, QldRecord, bench.answers, bench.order)
    return retrained(workspace, bench, list(found), results)


def retrained(
    workspace: Workspace, bench: QldBench, found: Sequence[QldRecord | Attributed[Orders]], results: Path
) -> list[QldRecord]:
    """Have the retrains of orders done, and write their records; records that are there already stay."""
    orders = [item.made for item in found if not isinstance(item, QldRecord) and item.made is not None]
    if orders:
        with workspace.display.progress(f"retrains of {workspace.task.card.name}") as progress:
            bench.retrain(orders, workspace.executor(progress.say), progress)
    records = [item if isinstance(item, QldRecord) else bench.record(item) for item in found]
    for record in records:
        write_record(record, results)
    return records
