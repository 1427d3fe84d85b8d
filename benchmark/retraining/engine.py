"""The retraining engine: requests in, a store that has them all out.

Ground truth, checkpoints, data selection, brittleness and verification are all lists of requests against one
store. The engine asks the store what is missing, cuts that into stacks, lets an executor train them and adds
each finished stack as a shard.

What depends on what: a retrain's bits are a function of (task, indices, seed), the PyTorch build and the
CPU's kind. They do not depend on which requests share its stack, on their order, on workers, shards or
resumption: random streams come from the request alone and training runs on one thread.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from attriboard.base.digests import canonical_json
from attriboard.base.errors import AttriboardError, InputError
from attriboard.contracts.task import Dataset, Task, TaskSpec
from attriboard.retraining.agreement import disagreement
from attriboard.retraining.device import place, training_device
from attriboard.retraining.executors import Executor, InProcess
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.opening import check_task, has_batch_norm
from attriboard.retraining.randomness import drawing_from
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacked_gpt2 import StackedGPT2Trainer
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from attriboard.retraining.store import RetrainStore, Shard
from attriboard.retraining.trainer import State, Trainer, state_parts
from attriboard.retraining.vmapped import VmapTrainer, obstacle

Progress = Callable[[int, int], None]

TRAINERS: tuple[type[Trainer], ...] = (
    StackedMLPTrainer,
    StackedGPT2Trainer,
    VmapTrainer,
    LoopTrainer,
)  # fastest first; the last fits every task


@dataclass(frozen=True)
class Choice:
    """Which trainer a task gets.

    Attributes:
        trainer: the fastest that computes what the task says.
        reasons: why faster ones were tried and left.
    """

    trainer: type[Trainer]
    reasons: tuple[str, ...] = ()


_CHOICES: WeakKeyDictionary[Task, Choice] = WeakKeyDictionary()


def choose_trainer(task: Task, data: Dataset | None = None) -> Choice:
    """The fastest trainer on a CPU that is found to compute the task's own loss, model and recipe.

    Each candidate is tried beside the plain loop, once per process and task; see `attriboard.retraining.agreement`.

    Args:
        task: the task.
        data: its data; loaded where it is absent and a candidate must be tried. Without data on this machine, the first
            candidate is taken; whoever trains has data, and tries it.
    """
    if task in _CHOICES:
        return _CHOICES[task]
    reasons: list[str] = []
    for trainer in TRAINERS:
        if not trainer.supports(task):
            continue
        if trainer is LoopTrainer:
            break
        if data is None and not task.data_available():
            return Choice(trainer)
        data = data or task.load_data()
        reason = disagreement(trainer, task, data)
        if reason is None:
            break
        reasons.append(f"{trainer.__name__} is not used: {reason}")
    choice = _CHOICES[task] = Choice(trainer, tuple(reasons))
    return choice


def trainer_class(task: Task, device: str = "cpu", data: Dataset | None = None) -> type[Trainer]:
    """The trainer of a task on a device; stacks are laid out for CPUs. See `choose_trainer`."""
    return choose_trainer(task, data).trainer if device == "cpu" else LoopTrainer


def describe_training(task: Task) -> str:
    """How many models are trained at once on a CPU, or why one after the other, as a predicate."""
    choice = choose_trainer(task)
    size = choice.trainer.stack_size(task)
    reasons = "; ".join(choice.reasons)
    if size > 1:
        return f"trains up to {size} models at once in each process" + (f" ({reasons})" if reasons else "")
    return f"trains one model after the other in each process: {obstacle(task) or reasons or 'one fills the cache'}"


def array_names(task: Task, request: RetrainRequest) -> list[str]:
    """Names of the store's arrays that answer a request."""
    names = [f"outputs/{name}" for name in task.measurements]
    if request.keep_epochs:
        parts = state_parts(task.build_model())
        names += [f"{part}/{epoch}/{name}" for epoch in request.keep_epochs for name, part in parts.items()]
    return names


def retrain(
    task: Task,
    requests: Iterable[RetrainRequest],
    store: RetrainStore,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> int:
    """Train what the store does not have yet.

    Args:
        task: the task; its class must be importable in the executor's processes.
        requests: any number, any sizes, repeats allowed.
        store: where finished retrains go, stack by stack.
        executor: in this process by default.
        progress: called with (retrains done, retrains asked for) at the start and after every stack.

    Returns:
        The number of retrains that had to be trained.

    Raises:
        InputError: the task has no recipe, or cannot be trained; see `check_task`.
    """
    executor = executor or InProcess()
    if task.card.recipe.optimizer == "none":
        raise InputError(
            f"task {task.card.name}: has no recipe, so nothing can be trained; give recipe=ab.Recipe(…) and a "
            "function that "
            "builds the model"
        )
    fingerprint = task.card.fingerprint
    wanted: dict[str, RetrainRequest] = {}
    for request in requests:
        digest = request.digest(fingerprint)
        wanted[digest] = _union(wanted.get(digest, request), request)
    missing = [r for d, r in wanted.items() if not store.has(d, array_names(task, r))]
    done = len(wanted) - len(missing)
    progress(done, len(wanted))
    if not missing:
        return 0
    _open(task, missing)
    payloads = [_payload(task, stack) for stack in _stacks(task, missing, executor.n_workers)]
    # closing: an interrupt that arrives here, between two results, must end the workers too.
    with closing(executor.map(_train_stack, payloads)) as finished:
        for content in finished:
            done += store.add(content)
            progress(done, len(wanted))
    return len(missing)


def _open(task: Task, requests: Sequence[RetrainRequest]) -> None:
    """Refuse, before any training, what cannot be trained; where this machine has no data, its workers will.

    Raises:
        InputError: see `check_task`; or weights for a model whose examples are not independent of each other.
    """
    if any(request.weights is not None for request in requests) and has_batch_norm(task.build_model()):
        raise InputError(
            f"task {task.card.name}: examples of a model with batch norm have no weights of their own, because each "
            "changes the others' outputs; leave weights out, or use another normalization"
        )
    if task.data_available():
        check_task(task, task.load_data())


def _union(one: RetrainRequest, other: RetrainRequest) -> RetrainRequest:
    """One request for what two requests for the same retrain want kept."""
    return replace(one, keep_epochs=tuple(sorted({*one.keep_epochs, *other.keep_epochs})))


def _stacks(task: Task, requests: Sequence[RetrainRequest], n_workers: int) -> Iterator[list[RetrainRequest]]:
    """Requests that train in step: one subset size, the same kept epochs, weights or none; enough for every worker."""
    groups: dict[tuple[int, tuple[int, ...], bool], list[RetrainRequest]] = {}
    for request in requests:
        key = len(request.indices), request.keep_epochs, request.weights is None
        groups.setdefault(key, []).append(request)
    fastest = trainer_class(task).stack_size(task)
    for group in groups.values():
        size = min(fastest, -(-len(group) // n_workers))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _payload(task: Task, stack: Sequence[RetrainRequest]) -> str:
    requests = [request.to_json(task.card.data.n_train) for request in stack]
    return canonical_json({"task": TaskSpec.of(task).model_dump(mode="json"), "requests": requests})


def _train_stack(payload: str) -> bytes:
    """Train one stack and return it as a shard's bytes; runs in the executor's process."""
    work = json.loads(payload)
    task, data, trainer = _workshop(canonical_json(work["task"]))
    requests = [RetrainRequest.from_json(request, len(data.train)) for request in work["requests"]]
    keep, last = requests[0].keep_epochs, task.card.recipe.epochs
    started = time.perf_counter()
    with _one_thread():
        trained = trainer.train(requests, sorted({*keep, last}))
        rows = [_measure(task, data, e[last], r.noise_seed) for e, r in zip(trained, requests, strict=True)]
    for request, row in zip(requests, rows, strict=True):
        _check_outputs(task, request, row)
    parts = state_parts(task.build_model())
    for row, epochs in zip(rows, trained, strict=True):
        for epoch in keep:
            row.update({f"{parts[name]}/{epoch}/{name}": value.cpu().numpy() for name, value in epochs[epoch].items()})
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    fingerprint = task.card.fingerprint
    digests = tuple(request.digest(fingerprint) for request in requests)
    return Shard(fingerprint, digests, arrays, time.perf_counter() - started).to_bytes()


@lru_cache(maxsize=1)
def _workshop(spec: str) -> tuple[Task, Dataset, Trainer]:
    """A task with its data loaded, once per process."""
    task = TaskSpec.model_validate_json(spec).load()
    device = training_device()
    data = place(task.load_data(), device)
    check_task(task, data)
    return task, data, trainer_class(task, device.type, data)(task, data)


def _measure(task: Task, data: Dataset, state: State, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Outputs of a trained model on the test examples, in copies: a model may write into its input."""
    model = task.build_model().eval().to(data.test.inputs.device)
    parts = []
    with torch.no_grad(), drawing_from(seed):
        for start in range(0, len(data.test), task.measured_rows):
            rows = slice(start, start + task.measured_rows)
            inputs, targets = data.test.inputs[rows].clone(), data.test.targets[rows].clone()
            parts.append(task.measure(functional_call(model, state, (inputs,)), targets))
    return {
        f"outputs/{name}": torch.cat([part[name] for part in parts]).float().cpu().numpy() for name in task.measurements
    }


def _check_outputs(task: Task, request: RetrainRequest, row: Mapping[str, NDArray[np.generic]]) -> None:
    """Refuse a retrain that diverged; it is not written.

    Raises:
        AttriboardError: an output is NaN or infinite.
    """
    for name, values in row.items():
        broken = np.flatnonzero(~np.isfinite(values))
        if len(broken):
            raise AttriboardError(
                f"task {task.card.name}: the retrain with seed {request.seed} on {len(request.indices):,} examples "
                f"(digest {request.digest(task.card.fingerprint)[:12]}…) has {name.removeprefix('outputs/')} = "
                f"{values[broken[0]]} at test point {broken[0]}, and at {len(broken) - 1} more; training diverged: "
                "lower recipe.learning_rate or set recipe.clip_norm. Finished retrains are kept"
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
