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
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from attriboard.base.digests import canonical_json
from attriboard.base.errors import AttriboardError, InputError
from attriboard.base.processes import begin_work
from attriboard.contracts.task import Dataset, Task, TaskSpec
from attriboard.retraining.choosing import opened, trainer_class
from attriboard.retraining.executors import Executor, InProcess, LocalProcesses
from attriboard.retraining.opening import has_batch_norm
from attriboard.retraining.randomness import drawing_from
from attriboard.retraining.request import RetrainRequest, check_rows
from attriboard.retraining.store import RetrainStore, Shard
from attriboard.retraining.trainer import State, blank_model, new_model, state_parts

Progress = Callable[[int, int], None]


def array_names(task: Task, request: RetrainRequest) -> list[str]:
    """Names of the store's arrays that answer a request."""
    names = [f"outputs/{name}" for name in task.measurements]
    if request.keep_epochs:
        parts = state_parts(blank_model(task))
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
    _check(task, missing)
    with closing(_results(task, missing, executor)) as finished:
        for content in finished:
            done += store.add(content)
            progress(done, len(wanted))
    return len(missing)


def _results(task: Task, requests: Sequence[RetrainRequest], executor: Executor) -> Generator[bytes, None, None]:
    """Shards as they come; closing the generator ends the workers, also after an interrupt between two results.

    Raises:
        InputError: a cluster cannot make the task.
    """
    spec = None
    if not isinstance(executor, InProcess):
        try:
            spec = TaskSpec.of(task)
        except InputError:
            if not isinstance(executor, LocalProcesses):
                raise
    by_class = spec is not None and task.home is None and spec.folder is None
    here = spec is None or not task.portable or (by_class and not _same_elsewhere(task, spec))
    if here or spec is None:
        stacks = list(_stacks(task, requests, 1))
        numbers = [str(number) for number in range(len(stacks))]
        yield from InProcess().map(lambda number: _train_stack(task, stacks[int(number)]), numbers)
        return
    payloads = [_payload(spec, stack) for stack in _stacks(task, requests, executor.n_workers)]
    yield from executor.map(_train_payload, payloads)


def _same_elsewhere(task: Task, spec: TaskSpec) -> bool:
    """Whether what another process makes from the class and the card is this task, and not one with other arguments."""
    twin = spec.load()
    for name in vars(task).keys() | vars(twin).keys():
        if isinstance(getattr(type(task), name, None), cached_property):
            continue
        mine, its = vars(task).get(name), vars(twin).get(name)
        plain = isinstance(mine, (int, float, str, tuple, list, dict)) or mine is None or its is None
        if type(mine) is not type(its) or (plain and repr(mine) != repr(its)):
            return False
    ours, theirs = new_model(task, 0).state_dict(), new_model(twin, 0).state_dict()
    return ours.keys() == theirs.keys() and all(
        isinstance(value, torch.Tensor)
        and value.shape == theirs[name].shape
        and torch.equal(value.nan_to_num(), theirs[name].nan_to_num())
        for name, value in ours.items()
    )


def _check(task: Task, requests: Sequence[RetrainRequest]) -> None:
    """Refuse, before any training, what cannot be trained; where this machine has no data, its workers will.

    Raises:
        InputError: see `check_task`; or weights for a model whose examples are not independent of each other.
    """
    begin_work()
    for request in requests:
        check_rows(request.indices, task.card.data.n_train)
    if any(request.weights is not None for request in requests) and has_batch_norm(blank_model(task)):
        raise InputError(
            f"task {task.card.name}: examples of a model with batch norm have no weights of their own, because each "
            "changes the others' outputs; leave weights out, or use another normalization"
        )
    if task.data_available():
        _ = opened(task).data


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


def _payload(spec: TaskSpec, stack: Sequence[RetrainRequest]) -> str:
    requests = [request.to_json(spec.card.data.n_train) for request in stack]
    return canonical_json({"task": spec.model_dump(mode="json", exclude_none=True), "requests": requests})


def _train_payload(payload: str) -> bytes:
    """Train one stack and return it as a shard's bytes; runs in the executor's process."""
    work = json.loads(payload)
    task = _task(canonical_json(work["task"]))
    n_train = task.card.data.n_train
    return _train_stack(task, [RetrainRequest.from_json(request, n_train) for request in work["requests"]])


@lru_cache(maxsize=1)
def _task(spec: str) -> Task:
    """A task, once per process."""
    return TaskSpec.model_validate_json(spec).load()


def _train_stack(task: Task, requests: Sequence[RetrainRequest]) -> bytes:
    data, trainer = opened(task).data, opened(task).trainer
    keep, last = requests[0].keep_epochs, task.card.recipe.epochs
    started = time.perf_counter()
    with _one_thread():
        trained = trainer.train(requests, sorted({*keep, last}))
        rows = [_measure(task, data, e[last], r.noise_seed) for e, r in zip(trained, requests, strict=True)]
    for request, row in zip(requests, rows, strict=True):
        _check_outputs(task, request, row)
    parts = state_parts(blank_model(task))
    for row, epochs in zip(rows, trained, strict=True):
        for epoch in keep:
            row.update({f"{parts[name]}/{epoch}/{name}": value.cpu().numpy() for name, value in epochs[epoch].items()})
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    fingerprint = task.card.fingerprint
    digests = tuple(request.digest(fingerprint) for request in requests)
    return Shard(fingerprint, digests, arrays, time.perf_counter() - started).to_bytes()


def _measure(task: Task, data: Dataset, state: State, seed: int = 0) -> dict[str, NDArray[np.generic]]:
    """Outputs of a trained model on the test examples, in copies: a model may write into its input."""
    model = blank_model(task).eval().to(data.test.inputs.device)
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
