"""The retraining engine: requests in, a store that has them all out.

Ground truth, checkpoints, data selection, brittleness and verification are all lists of requests against one
store. The engine asks the store what is missing, cuts that into stacks, lets an executor train them and adds
each finished stack as a shard.

What depends on what: a retrain's bits are a function of (task, indices, seed), the PyTorch build and the
processor's kind. They do not depend on which requests share its stack, on their order, on workers, shards or
resumption: random streams come from the request alone and training runs on one thread.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from attriboard.base.digests import canonical_json
from attriboard.contracts.task import Dataset, Task, TaskSpec
from attriboard.retraining.device import place, training_device
from attriboard.retraining.executors import Executor, InProcess
from attriboard.retraining.loop import LoopTrainer
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


def trainer_class(task: Task, device: str = "cpu") -> type[Trainer]:
    """The fastest trainer that fits the task; stacks are laid out for processors."""
    if device != "cpu":
        return LoopTrainer
    return next(trainer for trainer in TRAINERS if trainer.supports(task))


def describe_training(task: Task) -> str:
    """How many models are trained at once on a processor, or why one after the other, as a predicate."""
    size = trainer_class(task).stack_size(task)
    if size > 1:
        return f"trains up to {size} models at once in each process"
    return f"trains one model after the other in each process: {obstacle(task) or 'one fills the cache'}"


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
    """
    executor = executor or InProcess()
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
    payloads = [_payload(task, stack) for stack in _stacks(task, missing, executor.n_workers)]
    # closing: an interrupt that arrives here, between two results, must end the workers too.
    with closing(executor.map(_train_stack, payloads)) as finished:
        for content in finished:
            done += store.add(content)
            progress(done, len(wanted))
    return len(missing)


def _union(one: RetrainRequest, other: RetrainRequest) -> RetrainRequest:
    """One request for what two requests for the same retrain want kept."""
    return replace(one, keep_epochs=tuple(sorted({*one.keep_epochs, *other.keep_epochs})))


def _stacks(task: Task, requests: Sequence[RetrainRequest], n_workers: int) -> Iterator[list[RetrainRequest]]:
    """Requests that train in step: one subset size, the same kept epochs, enough stacks for every worker."""
    groups: dict[tuple[int, tuple[int, ...]], list[RetrainRequest]] = {}
    for request in requests:
        groups.setdefault((len(request.indices), request.keep_epochs), []).append(request)
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
        rows = [_measure(task, data, epochs[last]) for epochs in trained]
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
    return task, data, trainer_class(task, device.type)(task, data)


def _measure(task: Task, data: Dataset, state: State) -> dict[str, NDArray[np.generic]]:
    model = task.build_model().eval().to(data.test.inputs.device)
    parts = []
    with torch.no_grad():
        for start in range(0, len(data.test), task.measured_rows):
            examples = data.test[start : start + task.measured_rows]
            parts.append(task.measure(functional_call(model, state, (examples.inputs,)), examples.targets))
    return {f"outputs/{name}": torch.cat([part[name] for part in parts]).cpu().numpy() for name in task.measurements}


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
