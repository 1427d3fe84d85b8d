"""The plain trainer: any module, one model after the other, by autograd."""

from collections.abc import Sequence

import torch

from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.optimisation import build_optimizer, learning_rate, n_steps
from attriboard.retraining.request import RetrainRequest, epoch_order
from attriboard.retraining.trainer import State, new_model, state_parts


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

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, State]]:
        """See `Trainer`."""
        return [self._train_one(request, epochs) for request in requests]

    def _train_one(self, request: RetrainRequest, epochs: Sequence[int]) -> dict[int, State]:
        recipe = self._task.card.recipe
        rows = torch.from_numpy(request.indices)
        total, step = n_steps(recipe, len(rows)), 0
        device = self._data.train.inputs.device
        reduced = recipe.precision == "bfloat16"
        # Convolutions are fastest on channels-last kernels; nothing else has four axes.
        model = new_model(self._task, request.seed).train()
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = build_optimizer(recipe, model.parameters())
        kept = {}
        for epoch in range(1, epochs[-1] + 1):
            order = rows[torch.from_numpy(epoch_order(len(rows), request.seed, epoch))]
            for batch in torch.split(order, recipe.batch_size):
                examples = self._data.train[batch]
                optimizer.zero_grad()
                with torch.autocast(device.type, torch.bfloat16, enabled=reduced):
                    outputs = model(examples.inputs)
                loss = self._task.loss(outputs.float() if reduced else outputs, examples.targets).mean()
                loss.backward()  # type: ignore[no-untyped-call]
                if recipe.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(recipe, step, total)
                optimizer.step()
                step += 1
            if epoch in epochs:
                kept[epoch] = _state(model)
        return kept


def _state(model: torch.nn.Module) -> State:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensors[name].detach().clone(memory_format=torch.contiguous_format) for name in state_parts(model)}
