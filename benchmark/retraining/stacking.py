"""Training a stack of models with autograd: what `stacked_gpt2` and `vmapped` share beside their gradients."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from attriboard.contracts.task import Task
from attriboard.retraining.optimisation import build_optimizer, learning_rate, n_steps
from attriboard.retraining.request import RetrainRequest, epoch_order
from attriboard.retraining.trainer import State, new_model

Backward = Callable[[Mapping[str, Tensor], Tensor, Tensor | None], None]
"""Adds every model's gradient: from name → parameters (M, …), (M, B) rows of the training set and their weights."""


def train_stacked(
    task: Task, requests: Sequence[RetrainRequest], epochs: Sequence[int], backward: Backward
) -> list[dict[int, State]]:
    """Train requests of one subset size under the task's recipe; see `Trainer.train`."""
    recipe = task.card.recipe
    models = [dict(new_model(task, request.seed).named_parameters()) for request in requests]
    stacked = {
        name: torch.stack([model[name].detach() for model in models]).requires_grad_(parameter.requires_grad)
        for name, parameter in models[0].items()
    }
    trained = [value for value in stacked.values() if value.requires_grad]
    optimizer = build_optimizer(recipe, trained)
    rows = torch.stack([torch.from_numpy(request.indices) for request in requests])  # [M, n]
    weights = stacked_weights(requests)  # [M, n]
    n = rows.shape[1]
    total, step = n_steps(recipe, n), 0
    kept: list[dict[int, State]] = [{} for _ in requests]
    for epoch in range(1, epochs[-1] + 1):
        order = torch.stack([torch.from_numpy(epoch_order(n, request.seed, epoch)) for request in requests])
        for batch in torch.split(order, recipe.batch_size, dim=1):
            optimizer.zero_grad()
            backward(stacked, rows.gather(1, batch), None if weights is None else weights.gather(1, batch))
            if recipe.clip_norm is not None:
                _clip(trained, recipe.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, total)
            optimizer.step()
            step += 1
        if epoch in epochs:
            for m, states in enumerate(kept):
                states[epoch] = {name: value.detach()[m].clone() for name, value in stacked.items()}
    return kept


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
