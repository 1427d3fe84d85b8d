"""The plain trainer: any module, one model after the other, by autograd."""

from collections.abc import Iterator, Sequence

import torch

from attriboard.contracts.run import TrainingState
from attriboard.contracts.schedule import learning_rate, n_steps, steps_per_epoch
from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.optimisation import SGD, AdamW, build_optimizer, finished_epochs
from attriboard.retraining.randomness import drawing_from
from attriboard.retraining.request import RetrainRequest, batches
from attriboard.retraining.trainer import State, blank_model, new_model, state_parts


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
        self._channels_last = self._try_channels_last()

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, State]]:
        """See `Trainer`."""
        return [self._train_one(request, epochs) for request in requests]

    def _train_one(self, request: RetrainRequest, epochs: Sequence[int]) -> dict[int, State]:
        per_epoch = steps_per_epoch(self._task.card.recipe, len(request.indices))
        model, optimizer, trained = self._begin(request, None)
        with drawing_from(request.noise_seed):
            steps = self._steps(request, model, optimizer, trained, 0, per_epoch * epochs[-1])
            return {epoch: _state(model) for epoch in finished_epochs(steps, per_epoch, epochs)}

    def replay(self, request: RetrainRequest, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """See `Trainer`."""
        model, optimizer, trained = self._begin(request, start)
        named = {name: value for name, value in model.named_parameters() if value.requires_grad}

        def state(step: int) -> TrainingState:
            parts, tensors = state_parts(model), _state(model)
            parameters, buffers = (
                {name: value for name, value in tensors.items() if parts[name] == part}
                for part in ("parameters", "buffers")
            )
            moments = tuple(
                {name: value.detach().clone() for name, value in zip(named, moment, strict=True)}
                for moment in optimizer.moments()
            )
            return TrainingState(step, parameters, moments, buffers)

        yield from map(state, self._steps(request, model, optimizer, trained, start.step if start else 0, stop))

    def _begin(
        self, request: RetrainRequest, start: TrainingState | None
    ) -> tuple[torch.nn.Module, SGD | AdamW, list[torch.nn.Parameter]]:
        """A model, its optimizer and what it trains, new or as they were."""
        model = self._new_model(request.seed, self._channels_last)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = build_optimizer(self._task.card.recipe, trained)
        if start is not None:
            tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
            with torch.no_grad():
                for name, value in {**start.parameters, **start.buffers}.items():
                    tensors[name].copy_(value)
            names = [name for name, value in model.named_parameters() if value.requires_grad]
            optimizer.remember([[moment[name] for name in names] for moment in start.moments], start.step)
        return model, optimizer, trained

    def _steps(
        self,
        request: RetrainRequest,
        model: torch.nn.Module,
        optimizer: SGD | AdamW,
        trained: list[torch.nn.Parameter],
        first: int,
        stop: int,
    ) -> Iterator[int]:
        """Update after update; yields how many have been made, `first` included."""
        recipe = self._task.card.recipe
        rows = torch.from_numpy(request.indices)
        weights = None if request.weights is None else torch.from_numpy(request.weights)
        total = n_steps(recipe, len(rows))
        yield first
        for step, batch in batches(len(rows), request.seed, recipe.batch_size, first, stop):
            optimizer.zero_grad()
            self._loss(model, rows[batch], None if weights is None else weights[batch]).backward()  # type: ignore[no-untyped-call]
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(trained, recipe.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, total)
            optimizer.step()
            yield step + 1

    def _loss(self, model: torch.nn.Module, rows: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        """Mean loss of a batch; indexing has copied the examples, so that a model may write into them."""
        reduced = self._task.card.recipe.precision == "bfloat16"
        examples = self._data.train[rows]
        with torch.autocast(examples.inputs.device.type, torch.bfloat16, enabled=reduced):
            outputs = model(examples.inputs)
        losses = self._task.loss(outputs.float() if reduced else outputs, examples.targets)
        return losses.mean() if weights is None else weighted_mean(losses, weights)

    def _new_model(self, seed: int, channels_last: bool) -> torch.nn.Module:
        model = new_model(self._task, seed).train().to(self._data.train.inputs.device)
        if channels_last:
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.dim() == 4:
                    tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        return model

    def _try_channels_last(self) -> bool:
        """Whether the model has kernels with four axes, and its code works where they lie channels-last.

        Convolutions are fastest then, but their outputs lie so too, which `view` does not take.
        """
        if not any(tensor.dim() == 4 for tensor in blank_model(self._task).parameters()):
            return False
        recipe = self._task.card.recipe
        try:
            with drawing_from(0):
                rows = torch.arange(min(2, recipe.batch_size, len(self._data.train)))
                self._loss(self._new_model(0, channels_last=True), rows).backward()  # type: ignore[no-untyped-call]
        except RuntimeError:
            return False
        return True


def weighted_mean(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Σ wᵢ ℓᵢ / B of a batch of B losses."""
    return (losses * weights.to(losses.device, losses.dtype)).sum() / len(losses)


def _state(model: torch.nn.Module) -> State:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: tensors[name].detach().clone(memory_format=torch.contiguous_format) for name in state_parts(model)}
