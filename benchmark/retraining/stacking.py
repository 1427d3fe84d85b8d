"""Training a stack of models with autograd: what `stacked_gpt2` and `vmapped` share beside their gradients."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from attriboard.contracts.run import TrainingState
from attriboard.contracts.schedule import learning_rate, n_steps, steps_per_epoch
from attriboard.contracts.task import Task
from attriboard.retraining.optimisation import build_optimizer, finished_epochs
from attriboard.retraining.request import RetrainRequest, batches
from attriboard.retraining.trainer import State, new_model

Backward = Callable[[Mapping[str, Tensor], Tensor, Tensor | None], None]
"""Adds every model's gradient: from name → parameters (M, …), (M, B) rows of the training set and their weights."""


def train_stacked(
    task: Task, requests: Sequence[RetrainRequest], epochs: Sequence[int], backward: Backward
) -> list[dict[int, State]]:
    """Train requests of one subset size under the task's recipe; see `Trainer.train`."""
    stack = _Stack(task, requests, backward, None)
    per_epoch = steps_per_epoch(task.card.recipe, len(requests[0].indices))
    kept: list[dict[int, State]] = [{} for _ in requests]
    for epoch in finished_epochs(stack.steps(0, per_epoch * epochs[-1]), per_epoch, epochs):
        for m, states in enumerate(kept):
            states[epoch] = stack.parameters(m)
    return kept


def replay_stacked(
    task: Task, requests: Sequence[RetrainRequest], start: TrainingState | None, stop: int, backward: Backward
) -> Iterator[TrainingState]:
    """The first request's training, state by state; see `Trainer.replay`. The others are company."""
    stack = _Stack(task, requests, backward, start)
    yield from map(stack.state, stack.steps(start.step if start else 0, stop))


class _Stack:
    """Models in training, new or as they were."""

    def __init__(
        self, task: Task, requests: Sequence[RetrainRequest], backward: Backward, start: TrainingState | None
    ) -> None:
        self._recipe, self._requests, self._backward = task.card.recipe, requests, backward
        models = [dict(new_model(task, request.seed).named_parameters()) for request in requests]
        self._stacked = {
            name: torch.stack(
                [model[name].detach() if start is None else start.parameters[name] for model in models]
            ).requires_grad_(parameter.requires_grad)
            for name, parameter in models[0].items()
        }
        self._trained = {name: value for name, value in self._stacked.items() if value.requires_grad}
        self._optimizer = build_optimizer(self._recipe, list(self._trained.values()))
        if start is not None:
            M = len(requests)
            moments = [[torch.stack([moment[name]] * M) for name in self._trained] for moment in start.moments]
            self._optimizer.remember(moments, start.step)

    def steps(self, first: int, stop: int) -> Iterator[int]:
        """Update after update; yields how many have been made, `first` included."""
        recipe, requests = self._recipe, self._requests
        rows = torch.stack([torch.from_numpy(request.indices) for request in requests])  # [M, n]
        weights = stacked_weights(requests)  # [M, n]
        n = rows.shape[1]
        total, trained = n_steps(recipe, n), list(self._trained.values())
        yield first
        orders = [batches(n, request.seed, recipe.batch_size, first, stop) for request in requests]
        for of_each in zip(*orders, strict=True):
            step, batch = of_each[0][0], torch.stack([order for _, order in of_each])
            self._optimizer.zero_grad()
            self._backward(self._stacked, rows.gather(1, batch), None if weights is None else weights.gather(1, batch))
            if recipe.clip_norm is not None:
                _clip(trained, recipe.clip_norm)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, total)
            self._optimizer.step()
            yield step + 1

    def parameters(self, m: int) -> State:
        """One model's, as they are now."""
        return {name: value.detach()[m].clone() for name, value in self._stacked.items()}

    def state(self, step: int) -> TrainingState:
        """The first model's."""
        moments = tuple(
            {name: value.detach()[0].clone() for name, value in zip(self._trained, moment, strict=True)}
            for moment in self._optimizer.moments()
        )
        return TrainingState(step, self.parameters(0), moments)


def stacked_weights(requests: Sequence[RetrainRequest]) -> Tensor | None:
    """Weights of every model's examples, (M, n) float64; `None` where no request has any."""
    given = [request.weights for request in requests]
    if all(weights is None for weights in given):
        return None
    ones = np.ones(len(requests[0].indices))
    return torch.from_numpy(np.stack([ones if weights is None else weights for weights in given]))


def _clip(stacked: Sequence[Tensor], largest: float) -> None:
    """Scale each model's gradient down to a norm of `largest`, as `torch.nn.utils.clip_grad_norm_` does."""
    gradients = [value.grad for value in stacked if value.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients], dim=1)  # [M, n_tensors]
    scale = (largest / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
