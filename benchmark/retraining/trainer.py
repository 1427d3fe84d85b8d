"""What a trainer is, and the parameters that every trainer starts from."""

from collections.abc import Sequence
from typing import Protocol

import torch

from attriboard.contracts import Dataset, Task
from attriboard.retraining.request import RetrainRequest

__all__ = ["Parameters", "Trainer", "initial_parameters"]

Parameters = dict[str, torch.Tensor]


class Trainer(Protocol):
    """Trains requests that all have the same subset size."""

    def __init__(self, task: Task, data: Dataset) -> None: ...

    @staticmethod
    def supports(task: Task) -> bool:
        """Whether this trainer computes the task's model, loss and recipe."""

    @staticmethod
    def stack_size(task: Task) -> int:
        """How many requests to hand over at once for the best speed."""

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, Parameters]]:
        """For each request, epoch → parameters, for the given ascending epochs; the last is the recipe's."""


def initial_parameters(task: Task, seed: int) -> Parameters:
    """Parameters of a newly built model under PyTorch's CPU generator seeded with `seed`, in module order."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return {name: value.detach() for name, value in task.build_model().named_parameters()}
