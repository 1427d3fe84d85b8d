"""Other models of a task than the published ones: more of them, or at other epochs.

The models that attributors are given are not part of a task's fingerprint, so its ground truth stays valid.
"""

import copy
from collections.abc import Callable, Collection
from typing import Any

from attriboard.base.errors import InputError
from attriboard.base.paths import write_atomically
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Task
from attriboard.groundtruth.build import build_checkpoints
from attriboard.groundtruth.listing import BundleEntry, BundleRegistry
from attriboard.groundtruth.opening import TaskBundles
from attriboard.retraining.engine import Progress
from attriboard.retraining.executors import Executor
from attriboard.retraining.store import RetrainStore


def other_models(task: Task, **changes: Any) -> Task:
    """The same task with other models for attributors.

    Args:
        task: the task.
        changes: of its card's `checkpoints`.

    Raises:
        InputError: the task brings models of its own, or other processes cannot make it.
    """
    card = task.card
    if task.trained or not task.portable:
        raise InputError(
            f"task {card.name}: brings its own models, or lives in this process alone; only a task that is made from a "
            "card or a file can get other models"
        )
    found = copy.copy(task)
    found.card = TaskCard.model_validate(card.model_dump() | {"checkpoints": card.checkpoints.model_dump() | changes})
    return found


def at_epochs(task: Task, epochs: Collection[int]) -> Task:
    """The same task, whose models are kept after these epochs and the last one.

    Raises:
        InputError: a number is not an epoch of the recipe; or see `other_models`.
    """
    last = task.card.recipe.epochs
    for epoch in sorted(epochs):
        if not 1 <= epoch <= last:
            raise InputError(f"epoch {epoch} of {task.card.name}: must be from 1 to {last}, the last one")
    return other_models(task, epochs=sorted({*epochs, last}))


def build_epochs(
    bundles: TaskBundles,
    registry: BundleRegistry,
    epochs: Collection[int],
    store: RetrainStore,
    *,
    executor: Callable[[], Executor],
    progress: Progress = lambda done, total: None,
) -> list[BundleEntry]:
    """Fill a folder of bundles in which methods can ask for these epochs: the models, and a copy of the ground truth.

    The models of the last epoch are trained with the others, so that all come from the same runs.

    Args:
        bundles: what is published of the task.
        registry: the folder.
        epochs: which ones; the last is added.
        store: where retrains are kept.
        executor: returns the executor that trains them.
        progress: see `retrain`.

    Raises:
        DataError: there is no ground truth.
        InputError: a number is not an epoch, or the folder has other models or another ground truth of the task; see
            also `other_models`. Nothing is trained then.
    """
    task = at_epochs(bundles.task, epochs)
    path = registry.folder / registry.file_name(task.card, "groundtruth")
    listed = registry.listed(path)
    if listed and listed.sha256 != bundles.truth.sha256:
        raise InputError(f"{path}: is published, and is not {bundles.truth.path}; name another folder")
    truth = bundles.truth.path.read_bytes()
    build_checkpoints(
        task,
        registry.folder / registry.file_name(task.card, "checkpoints"),
        store,
        executor=executor(),
        progress=progress,
    )
    models = registry.register(task.card, "checkpoints")
    write_atomically(path, truth)
    return [models, registry.register(task.card, "groundtruth")]
