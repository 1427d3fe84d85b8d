"""The plain trainer: any module, one model after the other, by autograd."""

from collections.abc import Sequence

import torch
from torch.func import functional_call

from attriboard.contracts import Dataset, Task
from attriboard.retraining.request import RetrainRequest, epoch_order
from attriboard.retraining.trainer import Parameters, initial_parameters

__all__ = ["LoopTrainer"]


class LoopTrainer:
    """Any module whose loss is a mean over examples, one model after the other."""

    @staticmethod
    def supports(task: Task) -> bool:
        """Every task."""
        return True

    @staticmethod
    def stack_size(task: Task) -> int:
        """One: nothing is shared between models."""
        return 1

    def __init__(self, task: Task, data: Dataset) -> None:
        self._task, self._data = task, data
        self._model = task.build_model().train()

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, Parameters]]:
        """See `Trainer`."""
        return [self._train_one(request, epochs) for request in requests]

    def _train_one(self, request: RetrainRequest, epochs: Sequence[int]) -> dict[int, Parameters]:
        recipe = self._task.card.recipe
        rows = torch.from_numpy(request.indices)
        parameters = initial_parameters(self._task, request.seed)
        for value in parameters.values():
            value.requires_grad_()
        optimizer = torch.optim.SGD(
            parameters.values(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        kept = {}
        for epoch in range(1, epochs[-1] + 1):
            order = rows[torch.from_numpy(epoch_order(len(rows), request.seed, epoch))]
            for batch in torch.split(order, recipe.batch_size):
                examples = self._data.train[batch]
                outputs = functional_call(self._model, parameters, (examples.inputs,))
                optimizer.zero_grad()
                self._task.loss(outputs, examples.targets).mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            if epoch in epochs:
                kept[epoch] = {name: value.detach().clone() for name, value in parameters.items()}
        return kept
