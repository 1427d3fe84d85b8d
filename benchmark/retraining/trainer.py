"""What a trainer is, and what every trainer starts from and returns."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch

from attriboard.contracts.run import TrainingState
from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.randomness import drawing_from
from attriboard.retraining.request import RetrainRequest

State = dict[str, torch.Tensor]
"""A model's parameters and buffers by name, as `torch.func.functional_call` takes them; see `state_parts`."""


class Trainer(Protocol):
    """Trains requests that all have the same subset size."""

    def __init__(self, task: Task, data: Dataset) -> None: ...

    @staticmethod
    def supports(task: Task) -> bool:
        """Whether this trainer computes the task's model, loss and recipe."""

    @staticmethod
    def stack_size(task: Task) -> int:
        """How many requests to pass at once for the best speed."""

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, State]]:
        """For each request, epoch → state, for the given ascending epochs; the last is the recipe's."""

    def replay(self, request: RetrainRequest, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """The same training of one request, state by state; see `attriboard.contracts.run.Run.replay`."""


def new_model(task: Task, seed: int) -> torch.nn.Module:
    """A newly built model, initialized by PyTorch's CPU generator seeded with `seed`, in module order.

    NumPy's and Python's generators are seeded too. Where the task has pretrained parameters, the model starts from
    them, and the seed moves only the order. Parameters that the task froze (`requires_grad=False`) stay frozen.
    """
    with drawing_from(seed):
        model = task.build_model()
    start = task.pretrained()
    if start is not None:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(start[name])
    return model


def blank_model(task: Task) -> torch.nn.Module:
    """A model of the task with arbitrary parameters; the caller's generators are left as they are."""
    with drawing_from(0):
        return task.build_model()


def initial_parameters(task: Task, seed: int) -> State:
    """Parameters of a newly built model; see `new_model`."""
    return {name: value.detach() for name, value in new_model(task, seed).named_parameters()}


def state_parts(model: torch.nn.Module) -> dict[str, str]:
    """Name of each tensor of a model's state → "parameters" or "buffers".

    Buffers that the module itself does not save, such as a causal mask, are constants and no state.
    """
    saved = model.state_dict().keys()
    parts = dict.fromkeys((name for name, _ in model.named_parameters()), "parameters")
    return parts | {name: "buffers" for name, _ in model.named_buffers() if name in saved}
