"""Building a task's published artifacts: requests to the engine, then one file from the store."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.digests import digest
from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import cache_folder, store_root
from attriboard.contracts.card import TaskCard
from attriboard.contracts.question import Question
from attriboard.contracts.task import Task
from attriboard.groundtruth import checkpoints
from attriboard.groundtruth.bundle import read_ground_truth, write_ground_truth
from attriboard.groundtruth.identity import check_identity
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.groundtruth.plan import as_masks, checkpoint_requests, planned, truth_requests
from attriboard.groundtruth.sealed import Tensors, content_digest, read_sealed, write_sealed
from attriboard.records.model import Provenance
from attriboard.records.provenance import provenance
from attriboard.retraining.engine import Progress, retrain
from attriboard.retraining.executors import Executor
from attriboard.retraining.opening import has_batch_norm
from attriboard.retraining.store import RetrainStore, Shard
from attriboard.retraining.trainer import blank_model, state_parts


def default_store(task: Task) -> Path:
    """Where a task's retrains are kept when nobody says."""
    return store_root() / f"{task.card.name}-{task.card.fingerprint[:12]}"


def open_store(task: Task, folder: Path | None) -> RetrainStore:
    """The task's store in `folder`, or in its default place.

    Raises:
        InputError: its retrains are of a task of the same name, data and recipe that computes something else.
    """
    place = folder or default_store(task)
    check_identity(task, place)
    return RetrainStore(place, task.card.fingerprint)


def build_ground_truth(
    task: Task,
    path: Path,
    store: RetrainStore,
    *,
    question: Question | None = None,
    n_masks: int | None = None,
    n_repeats: int | None = None,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Retrain on every mask with every repeat, as far as the store does not have it, and write the bundle.

    A published bundle is extended: its retrains are taken from it, and none of its rows changes.

    Args:
        task: the task.
        path: the bundle's file.
        store: where retrains are kept.
        question: what is asked; the usual one by default.
        n_masks: number of subsets; the card's by default.
        n_repeats: seeds for each; the card's by default.
        executor: see `retrain`.
        progress: see `retrain`.

    Raises:
        InputError: sizes out of range, or the same seed is asked for where batch norm sees removed examples; or a
            published bundle has other rows, or more.
    """
    card = task.card
    check_question(task, question)
    size = card.size_of(question)
    n_masks = size.n_masks if n_masks is None else n_masks
    n_repeats = size.n_repeats if n_repeats is None else n_repeats
    requests = truth_requests(card, n_masks, n_repeats, question)
    code = provenance()  # now: hours may pass, and the checkout may change
    _take_published(task, path, store, question)
    retrain(task, requests, store, executor, progress)
    digests = [r.digest(card.fingerprint) for r in requests]
    outputs = read_outputs(task, store, digests, n_masks)
    masks, seeds = planned(requests, n_masks, card.data.n_train)
    asked = question.name if question else ""
    write_ground_truth(path, masks, seeds, outputs, question=asked, **origin(task, code, store.seconds(digests)))


def _take_published(task: Task, path: Path, store: RetrainStore, question: Question | None) -> None:
    """Add the retrains of the published bundle that is to be extended, as far as the store does not have them."""
    card = task.card
    if BundleRegistry(path.parent).listed(path) is None or not path.is_file():
        return
    try:
        truth = read_ground_truth(path)
    except FormatError:  # damaged: it is built anew
        return
    names = {f"outputs/{name}": name for name in task.measurements}
    same = truth.card.fingerprint == card.fingerprint and truth.question == question
    if not same or set(names.values()) - set(truth.outputs):
        return
    n_masks, n_repeats = truth.seeds.shape
    digests = [r.digest(card.fingerprint) for r in truth_requests(card, n_masks, n_repeats, question)]
    rows = [row for row, digest in enumerate(digests) if not store.has(digest, names)]
    if not rows:
        return
    # As requests go: repeat by repeat.
    arrays = {key: truth.outputs[name].swapaxes(0, 1).reshape(len(digests), -1)[rows] for key, name in names.items()}
    seconds = truth.card.retrain_seconds * len(rows) / len(digests)
    store.add(Shard(card.fingerprint, tuple(digests[row] for row in rows), arrays, seconds).to_bytes())


def check_question(task: Task, question: Question | None) -> None:
    """Check that a task can answer a question.

    Raises:
        InputError: the same seed is asked for, and the model has batch norm.
    """
    if question is not None and question.same_seed and has_batch_norm(blank_model(task)):
        raise InputError(
            f"task {task.card.name}, question {question.name}: its model has batch norm, so a removed example of "
            "weight 0 would still move the statistics of its batch; ask with fresh seeds"
        )


def read_outputs(
    task: Task, store: RetrainStore, digests: Sequence[str], n_masks: int
) -> dict[str, NDArray[np.float32]]:
    """What retrains that go repeat by repeat are remembered by: name → (n_masks, n_repeats, n_test)."""
    return {
        name: store.read(f"outputs/{name}", digests).reshape(-1, n_masks, task.card.data.n_test).swapaxes(0, 1)
        for name in task.measurements
    }


def build_checkpoints(
    task: Task,
    path: Path,
    store: RetrainStore,
    *,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> None:
    """Train the models that attributors are given and write their bundle; a published one that has them stays.

    Args:
        task: the task.
        path: the bundle's file.
        store: where retrains are kept.
        executor: see `retrain`.
        progress: see `retrain`.

    Raises:
        InputError: the published one is damaged or has other models.
    """
    card = task.card
    requests = checkpoint_requests(card)
    code = provenance()  # now: hours may pass, and the checkout may change
    seen = as_masks([request.indices for request in requests], card.data.n_train)
    tensors = {
        "subsets": np.packbits(seen, axis=1),
        "seeds": np.array([request.seed for request in requests]),
    }
    if BundleRegistry(path.parent).listed(path):
        if not _has_models(path, card, tensors):
            raise InputError(
                f"{path}: is published, and is damaged or has other models; "
                "raise the card's version or use another folder"
            )
        progress(len(requests), len(requests))
        return
    retrain(task, requests, store, executor, progress)
    digests = [request.digest(card.fingerprint) for request in requests]
    compact = card.checkpoints.stored == "bfloat16"
    start = (task.pretrained() if compact else None) or {}
    for epoch in card.checkpoints.epochs:
        for name, part in state_parts(blank_model(task)).items():
            key = f"{part}/{epoch}/{name}"
            tensors[key] = store.read(key, digests)
            if compact and part == "parameters":
                tensors[key] = checkpoints.rounded(tensors[key], start[name].numpy() if start else None)
    sealed = checkpoints.CheckpointCard(
        format=checkpoints.FORMAT,
        content_sha256=content_digest(tensors),
        n_models=len(requests),
        start_sha256=checkpoints.start_digest(start) if start else None,
        **origin(task, code, store.seconds(digests)),
    )
    write_sealed(path, tensors, sealed)


def _has_models(path: Path, card: TaskCard, models: Tensors) -> bool:
    """Whether a bundle has the models of these subsets and seeds, at the epochs of a card."""
    try:
        tensors, found = read_sealed(path, checkpoints.CheckpointCard, checkpoints.FORMAT)
    except FormatError:
        return False
    same = all(np.array_equal(tensors[name], wanted) for name, wanted in models.items())
    return same and found.fingerprint == card.fingerprint and found.task.checkpoints.epochs == card.checkpoints.epochs


def keep_checkpoints(task: Task) -> Path:
    """The bundle of models that were trained elsewhere, in the cache; its name has the digest of their numbers."""
    card, epoch = task.card, task.card.recipe.epochs
    parts = state_parts(task.build_model())
    tensors: dict[str, NDArray[Any]] = {
        "subsets": np.packbits(np.ones((len(task.trained), card.data.n_train), dtype=bool), axis=1),
        "seeds": np.arange(len(task.trained)),
    }
    for name, part in parts.items():
        tensors[f"{part}/{epoch}/{name}"] = np.stack([state[name].detach().cpu().numpy() for state in task.trained])
    content = content_digest(tensors)
    path = cache_folder() / "checkpoints" / f"{card.name}-{card.fingerprint[:12]}-{content[:12]}.safetensors"
    if not path.exists():
        sealed = checkpoints.CheckpointCard(
            format=checkpoints.FORMAT,
            content_sha256=content,
            n_models=len(task.trained),
            **origin(task, provenance(), 0.0),
        )
        write_sealed(path, tensors, sealed)
    return path


def train_checkpoints(
    task: Task, *, executor: Callable[[], Executor], progress: Progress = lambda done, total: None
) -> Path:
    """This machine's own checkpoints of a task, trained once and kept in the cache."""
    path = own_checkpoints(task)
    store = open_store(task, None)
    if not path.exists():
        build_checkpoints(task, path, store, executor=executor(), progress=progress)
    return path


def own_checkpoints(task: Task) -> Path:
    """Where this machine keeps its own checkpoints of a task, once they are trained."""
    card = task.card
    # Which checkpoints there are is no part of the fingerprint, so it is part of the name.
    kept = card.checkpoints.model_dump(mode="json", exclude={"stored"} if card.checkpoints.stored == "exact" else None)
    which = digest({"task": card.fingerprint, "checkpoints": kept})
    return cache_folder() / "checkpoints" / f"{card.name}-{which[:12]}.safetensors"


def origin(task: Task, code: Provenance, seconds: float) -> dict[str, Any]:
    """What the card of a bundle says of where it comes from; `seconds` of all its retrains."""
    return {
        "fingerprint": task.card.fingerprint,
        "task": task.card,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "retrain_seconds": round(seconds, 3),
        "provenance": code,
    }
