"""Whether a fast trainer computes what the task says: its own loss, model and recipe.

A stacked trainer has the loss, the model or the way to call it written into it. Before it is used it trains two models
for two steps at the recipe's peak learning rate, over labels of every kind, and the plain loop trains the same two. The
parameters must be the same to `TOLERANCE` of the distance that they moved: from the task's own initialization, and from
one stretched threefold, where losses are far from their start. In float64, where the task's code takes it, so that
rounding hides nothing.

Two more things must hold: a model has the same bits alone and beside others, and its training draws no random numbers
from generators that all models of a stack would share.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch

from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Dataset, Examples, Task
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.randomness import drawing_from, generator_states
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.trainer import State, Trainer, initial_parameters

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}
"""Largest distance between two trainers' parameters, relative to how far the plain loop moved them."""

STRETCH = (1.0, 3.0)
MAX_KINDS = 512
MAX_ROWS = 64  # beside those that show every kind of label


class Probe(Task):
    """A task at its peak learning rate for one epoch of two steps, perhaps in float64 and with stretched parameters.

    Args:
        task: whose loss and model it has.
        batch_size: of each step.
        dtype: of the model's floating-point parameters and buffers; `None` for its own.
        stretch: factor of the initial parameters.
    """

    measurements = ("loss", "margin")

    def __init__(self, task: Task, batch_size: int, dtype: torch.dtype | None, stretch: float) -> None:
        super().__init__(_at_peak(task.card, batch_size))
        self._task, self._dtype, self._stretch = task, dtype, stretch

    def build_model(self) -> torch.nn.Module:
        """The task's model, stretched."""
        model = self._task.build_model()
        if self._dtype is not None:
            model = model.to(self._dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(self._stretch)
        return model

    def pretrained(self) -> Mapping[str, torch.Tensor] | None:
        """The task's own start, stretched."""
        start = self._task.pretrained()
        return start and {name: value * self._stretch for name, value in start.items()}

    def load_data(self) -> Dataset:
        """The task's own."""
        return self._task.load_data()

    def data_available(self) -> bool:
        """The task's own answer."""
        return self._task.data_available()

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The task's own."""
        return self._task.loss(outputs, targets)

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The task's own."""
        return self._task.measure(outputs, targets)

    def margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The task's own."""
        return self._task.margin(outputs, targets)


def _at_peak(card: TaskCard, batch_size: int) -> TaskCard:
    recipe = {"epochs": 1, "batch_size": batch_size, "schedule": "constant", "warmup": 0.0}
    return card.model_copy(update={"recipe": card.recipe.model_copy(update=recipe)})


def telling_rows(targets: torch.Tensor, limit: int = MAX_KINDS) -> torch.Tensor:
    """Rows whose targets show every kind of label, or `limit` kinds from the smallest to the largest.

    Args:
        targets: (n, …).
        limit: number of kinds.

    Returns:
        Ascending rows, at least one.
    """
    values = targets.detach().cpu().reshape(len(targets), -1)
    kinds, first = np.unique(
        values.double().numpy() if values.is_floating_point() else values.numpy(), return_index=True
    )
    if len(kinds) > limit:
        first = first[np.linspace(0, len(kinds) - 1, limit).round().astype(int)]
    return torch.from_numpy(np.unique(first // max(1, values.shape[1])))


def disagreement(trainer: type[Trainer], task: Task, data: Dataset) -> str | None:
    """Why a trainer must not be used for a task, found out by training; `None` where it may be."""
    rows = _rows(task, data.train)
    with _quiet_threads():
        if draws_random_numbers(task, data):
            return "its training draws random numbers"
        for stretch in STRETCH:
            if reason := _differs(trainer, task, data.train[rows], stretch):
                return reason
        return _company(trainer, task, data.train[rows])


def _rows(task: Task, train: Examples) -> torch.Tensor:
    """Rows of every kind of label, filled up to two ordinary batches."""
    telling = telling_rows(train.targets)
    wanted = min(len(train), max(len(telling), min(2 * task.card.recipe.batch_size, MAX_ROWS)), 2**12)
    others = np.setdiff1d(np.arange(len(train)), telling.numpy())[: wanted - len(telling)]
    return torch.from_numpy(np.sort(np.concatenate([telling.numpy(), others])))


def draws_random_numbers(task: Task, data: Dataset) -> bool:
    """Whether a few epochs of the plain loop on a few examples move a global generator."""
    few = data.train[torch.arange(min(len(data.train), 2 * task.card.recipe.batch_size, MAX_ROWS))]
    probe = Probe(task, -(-len(few) // 2), None, 1.0)
    model = probe.build_model().train()
    with drawing_from(0):
        before = generator_states()
        for _ in range(3):
            probe.loss(model(few.inputs.clone()), few.targets.clone())
        return generator_states() != before


def _differs(trainer: type[Trainer], task: Task, examples: Examples, stretch: float) -> str | None:
    for dtype in TOLERANCE:
        given = _cast(examples, dtype)
        probe = Probe(task, _half(given), dtype, stretch)
        requests = _requests(len(given), 2)
        try:
            wanted = LoopTrainer(probe, Dataset(given, given)).train(requests, (1,))
        except (RuntimeError, TypeError, ValueError):  # the task's code does not take float64
            continue
        try:
            found = trainer(probe, Dataset(given, given)).train(requests, (1,))
        except Exception as error:  # whatever vmap or a stack's own code cannot do
            return f"{type(error).__name__}: {_first_line(error)}"
        for request, one, other in zip(requests, found, wanted, strict=True):
            start = initial_parameters(probe, request.seed)
            if reason := _distance(one[1], other[1], start, TOLERANCE[dtype]):
                return reason
        return None
    return "the plain loop does not train it in float32 or float64"


def _distance(found: State, wanted: State, start: State, tolerance: float) -> str | None:
    """Which tensor is further from the plain loop's than it may be."""
    if found.keys() != wanted.keys():
        return f"it keeps other tensors: {', '.join(sorted(found.keys() ^ wanted.keys())[:3])}"
    if not all(value.isfinite().all() for value in wanted.values()):
        return None  # the recipe diverges from here, whichever trainer is used
    moved = {name: float((wanted[name] - start[name]).double().norm()) for name in start}
    whole = sum(distance**2 for distance in moved.values()) ** 0.5
    for name, value in wanted.items():
        apart = float((found[name].double() - value.double()).norm())
        scale = max(moved.get(name, float(value.double().norm())), 1e-3 * whole)
        if not apart <= tolerance * scale + 1e-12:
            return f"its {name} is off by {apart / scale if scale else apart:.1e} of what two steps move it"
    return None


def _company(trainer: type[Trainer], task: Task, examples: Examples) -> str | None:
    """Whether a model has other bits beside other models."""
    probe, requests = Probe(task, _half(examples), None, 1.0), _requests(len(examples), 3)
    dataset = Dataset(examples, examples)
    together = trainer(probe, dataset).train(requests, (1,))
    alone = trainer(probe, dataset).train(requests[1:2], (1,))[0][1]
    same = all(torch.equal(alone[name], value) for name, value in together[1][1].items())
    return None if same else "a model has other bits beside other models"


def _requests(n: int, count: int) -> list[RetrainRequest]:
    """Requests of one subset size that see different examples."""
    size = max(1, n - 1)
    return [RetrainRequest(np.arange(size) + (k % 2) * (n - size), 7 + k) for k in range(count)]


def _half(examples: Examples) -> int:
    return max(1, -(-(len(examples) - 1) // 2))


def _cast(examples: Examples, dtype: torch.dtype) -> Examples:
    def cast(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    return Examples(cast(examples.inputs), cast(examples.targets))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]


@contextmanager
def _quiet_threads() -> Iterator[None]:
    """One thread, as in training, and the caller's generators left alone."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with drawing_from(0):
            yield
    finally:
        torch.set_num_threads(before)
