"""A retrain again, state by state: with the trainer of the task, so with the bits of a plain retrain here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import Context
from attriboard.contracts.run import Run, TrainingState
from attriboard.contracts.schedule import learning_rate, n_steps
from attriboard.contracts.task import Task
from attriboard.retraining.choosing import opened
from attriboard.retraining.request import RetrainRequest, epoch_order


@dataclass(frozen=True)
class SeededOrder:
    """The order of a retrain with a seed on some rows."""

    indices: tuple[int, ...] | None
    n: int
    seed: int

    def __call__(self, epoch: int) -> torch.Tensor:
        """See `attriboard.contracts.run.Order`."""
        return _order(self, epoch)


@lru_cache(maxsize=8)
def _order(order: SeededOrder, epoch: int) -> torch.Tensor:
    rows = torch.from_numpy(epoch_order(order.n, order.seed, epoch))
    return rows if order.indices is None else torch.tensor(order.indices)[rows]


@dataclass(frozen=True, eq=False)
class TaskReplay:
    """Trains a task's models again."""

    task: Task

    def __deepcopy__(self, memo: dict[int, Any]) -> TaskReplay:
        return self

    def __call__(self, context: Context, run: Run, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """See `attriboard.contracts.run.Replay`.

        Raises:
            NotApplicableError: training draws random numbers, which a replay from the middle would draw anew.
        """
        found = opened(self.task)
        if found.draws:
            raise NotApplicableError("training draws random numbers, as dropout does: it cannot be followed by steps")
        indices = np.arange(run.n) if run.indices is None else run.indices.cpu().numpy()
        yield from _on_one_thread(found.trainer.replay(RetrainRequest(indices, run.seed), start, stop))


def _on_one_thread(states: Iterator[TrainingState]) -> Iterator[TrainingState]:
    """Each step on one thread, as in training: its bits depend on that."""
    threads = torch.get_num_threads()
    while True:
        torch.set_num_threads(1)
        try:
            state = next(states, None)
        finally:
            torch.set_num_threads(threads)
        if state is None:
            return
        yield state


def run_of(task: Task, seed: int, indices: NDArray[np.int64] | None) -> Run:
    """The run of a retrain.

    Args:
        task: whose recipe is meant.
        seed: the retrain's.
        indices: training rows; `None` for all.
    """
    recipe = task.card.recipe
    n = task.card.data.n_train if indices is None else len(indices)
    total = n_steps(recipe, n)
    return Run(
        recipe=recipe,
        seed=seed,
        n=n,
        rates=tuple(learning_rate(recipe, step, total) for step in range(total)),
        order=SeededOrder(None if indices is None else tuple(indices.tolist()), n, seed),
        replayer=TaskReplay(task),
        indices=None if indices is None else torch.from_numpy(indices),
    )
