"""Brittleness: the fewest training examples whose removal, in the order of a test point's own scores, flips it.

After Ilyas et al., *Datamodels* (2022), section 4.1, and Park et al., *TRAK* (2023), section 5.1, who count points that
flip at fixed sizes; here the size is searched for. All points of all attributors search in step: their removals have
sizes from one ladder, so that retrains of one round stack.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attriboard.base.errors import InputError
from attriboard.base.scores import Scores
from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import attributor_spec
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.retrains import Orders, Retrains, Work, own_orders, same_question
from attriboard.evaluation.variants import Attributed, known_or_made, record_fields
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.plan import removal_seed, shuffled_points, split_of
from attriboard.records.files import write_record
from attriboard.records.model import Variant
from attriboard.records.uses import BrittlenessRecord, BrittlePoint
from attriboard.retraining.engine import Progress
from attriboard.retraining.executors import Executor
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore
from attriboard.scoring.brittleness import LadderSearch, ladder

_FULL = 10  # full-data models that must all be right, the ones of data selection
_FRESH = 1_000  # first seed of the retrains that confirm


@dataclass(frozen=True)
class BrittlenessPlan:
    """What is searched.

    Args:
        n_points: scoring points, drawn at random among those that every full-data model gets right.
        largest: the largest share of the training set removed.
        n_seeds: retrains of every question of the search; odd, so that most of them agree.
        n_confirm: fresh retrains at the size found.

    Raises:
        InputError: no point, an even number of seeds.
    """

    n_points: int = 20
    largest: float = 0.5
    n_seeds: int = 5
    n_confirm: int = 10

    def __post_init__(self) -> None:
        if self.n_points < 1 or self.n_seeds < 1 or self.n_seeds % 2 == 0 or self.n_confirm < 0:
            raise InputError(
                f"points = {self.n_points}, seeds = {self.n_seeds}, confirm = {self.n_confirm}: needs a point, an odd "
                "number of seeds and no negative number"
            )


class BrittlenessBench:
    """A task, a plan and a store: from orders to records.

    Args:
        task: the task.
        grader: its ground truth, where it has one; only its digest is used.
        plan: what is searched.
        store: of the task's retrains.

    Raises:
        InputError: predictions of the task are neither right nor wrong, or the largest removal leaves nothing.
    """

    def __init__(self, task: Task, grader: Grader | None, plan: BrittlenessPlan, store: RetrainStore) -> None:
        if "correct" not in task.measurements:
            raise InputError(
                f"task {task.card.name}: measures {', '.join(task.measurements)}; brittleness needs predictions that "
                "are right or wrong"
            )
        self.task, self.grader, self.plan, self.store = task, grader, plan, store
        self.sizes = ladder(task.card.data.n_train, plan.largest)
        self._seeds = tuple(removal_seed(s) for s in range(plan.n_seeds))
        self._fresh = tuple(removal_seed(_FRESH + s) for s in range(plan.n_confirm))
        self._retrains = Retrains(task, store)
        self.points: tuple[int, ...] = ()
        self.n_eligible = 0

    @property
    def work(self) -> Work:
        """Retrains asked for and done so far."""
        return self._retrains.work

    def choose_points(self, executor: Executor, progress: Progress = lambda done, total: None) -> None:
        """Train the full-data models, as far as the store lacks them, and draw the points.

        Raises:
            InputError: no scoring point is right in all of them.
        """
        card = self.task.card
        everything = np.arange(card.data.n_train)
        requests = [RetrainRequest(everything, removal_seed(s)) for s in range(_FULL)]
        self._retrains.train(requests, executor, progress)
        right = np.asarray(self._retrains.outputs("correct", requests).all(axis=0))
        scoring = set(split_of(card).scoring.tolist())
        eligible = [int(point) for point in shuffled_points(card) if int(point) in scoring and right[point]]
        if not eligible:
            raise InputError(f"task {card.name}: no scoring point is right in all of {_FULL} full-data models")
        self.n_eligible, self.points = len(eligible), tuple(eligible[: self.plan.n_points])

    def order(self, scores: Scores) -> Orders:
        """How scores (n_test, n_train) remove the training set for every point, the most helpful first.

        Raises:
            InputError: every point's scores have NaN or infinity.
        """
        return own_orders(scores, self.points)

    def search(
        self, orders: Sequence[Orders], executor: Executor, progress: Progress = lambda done, total: None
    ) -> list[tuple[BrittlePoint, ...]]:
        """Find every point's fewest removals under every order; finished retrains are kept whatever happens.

        Args:
            orders: one for each configuration.
            executor: see `retrain`.
            progress: called with (points done, points).

        Returns:
            For each of the orders its points, without those that it cannot order.
        """
        searches = {
            (which, position): LadderSearch(self.sizes)
            for which, order in enumerate(orders)
            for position, row in enumerate(order.rows)
            if row is not None
        }
        while open_ones := {key: size for key, search in searches.items() if (size := search.next_size) is not None}:
            progress(len(searches) - len(open_ones), len(searches))
            wrong = self._wrong(orders, open_ones, self._seeds, executor)
            for key, size in open_ones.items():
                searches[key].answer(size, 2 * wrong[key] > len(self._seeds))
        found = {key: search.found for key, search in searches.items() if search.found is not None}
        flipped = self._wrong(orders, found, self._seeds, executor)  # known from the search
        confirmed = self._wrong(orders, found, self._fresh, executor)
        progress(len(searches), len(searches))
        return [
            tuple(
                BrittlePoint(
                    test_point=self.points[key[1]],
                    n_removed=search.found,
                    not_enough=search.not_enough,
                    flipped=flipped.get(key, 0),
                    confirmed=confirmed.get(key, 0),
                )
                for key, search in searches.items()
                if key[0] == which
            )
            for which in range(len(orders))
        ]

    def record(self, attributed: Attributed[Orders], points: tuple[BrittlePoint, ...]) -> BrittlenessRecord:
        """The record of one configuration; `points` are what `search` found for its order."""
        orders = attributed.made
        return BrittlenessRecord(
            **record_fields(self.task, self.grader, attributed),
            sizes=self.sizes,
            n_eligible=self.n_eligible,
            n_degenerate=orders.n_degenerate if orders else 0,
            search_seeds=self._seeds,
            confirm_seeds=self._fresh,
            points=points,
        )

    def answers(self, record: BrittlenessRecord) -> bool:
        """Whether a finished record is of this task, ground truth and plan, whatever its attributor."""
        return (
            same_question(record, self.task, self.grader)
            and (record.sizes, record.search_seeds, record.confirm_seeds) == (self.sizes, self._seeds, self._fresh)
            and (record.status == "failed" or len(record.points) + record.n_degenerate == len(self.points))
        )

    def _wrong(
        self,
        orders: Sequence[Orders],
        sizes: dict[tuple[int, int], int],
        seeds: Sequence[int],
        executor: Executor,
    ) -> dict[tuple[int, int], int]:
        """How many of the seeds get a point wrong after its removal, for every (order, position) → size."""
        requests = {}
        for (which, position), size in sizes.items():
            row = orders[which].rows[position]
            assert row is not None, "only ordered points are searched"
            kept = np.sort(row[size:])
            requests[which, position] = [RetrainRequest(kept, seed) for seed in seeds]
        self._retrains.train([r for several in requests.values() for r in several], executor)
        return {
            key: int((self._retrains.outputs("correct", several)[:, self.points[key[1]]] == 0).sum()) if several else 0
            for key, several in requests.items()
        }


def brittleness_records(
    workspace: Workspace,
    bench: BrittlenessBench,
    attributors: Sequence[str | Path],
    variants: Sequence[Variant],
    results: Path,
) -> list[BrittlenessRecord]:
    """Records of every attributor's variants, in order: from the folder, or made now and written there.

    Args:
        workspace: the task.
        bench: what is searched.
        attributors: names or files.
        variants: wanted ones.
        results: folder of records.
    """
    for name in attributors:
        attributor_spec(name)  # a wrong name is found before models are trained
    choose_points(workspace, bench)
    found = known_or_made(workspace, attributors, variants, results, BrittlenessRecord, bench.answers, bench.order)
    return searched(workspace, bench, list(found), results)


def choose_points(workspace: Workspace, bench: BrittlenessBench) -> None:
    """Draw the points that are searched, with progress on the display."""
    with workspace.display.progress(f"full-data models of {workspace.task.card.name}") as progress:
        bench.choose_points(workspace.executor(progress.say), progress)


def searched(
    workspace: Workspace,
    bench: BrittlenessBench,
    found: Sequence[BrittlenessRecord | Attributed[Orders]],
    results: Path,
) -> list[BrittlenessRecord]:
    """Search under the orders, and write their records; records that are there already stay."""
    waiting = [item for item in found if not isinstance(item, BrittlenessRecord)]
    with workspace.display.progress(f"points of {workspace.task.card.name}") as progress:
        orders = [item.made for item in waiting if item.made is not None]
        points = iter(bench.search(orders, workspace.executor(progress.say), progress))
    records = [
        item if isinstance(item, BrittlenessRecord) else bench.record(item, next(points) if item.made else ())
        for item in found
    ]
    for record in records:
        write_record(record, results)
    return records
