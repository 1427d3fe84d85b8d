"""Training a stack of models with autograd: what `stacked_gpt2` and `vmapped` share beside their gradients."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from attriboard.contracts.task import Task
from attriboard.retraining.optimisation import build_optimizer, learning_rate, n_steps
from attriboard.retraining.request import RetrainRequest, epoch_order
from attriboard.retraining.trainer import State, initial_parameters

Backward = Callable[[Mapping[str, Tensor], Tensor], None]
"""Adds every model's gradient: from name → parameters (M, …), and (M, B) rows of the training set."""


def train_stacked(
    task: Task, requests: Sequence[RetrainRequest], epochs: Sequence[int], backward: Backward
) -> list[dict[int, State]]:
    """Train requests of one subset size under the task's recipe; see `Trainer.train`."""
    recipe = task.card.recipe
    models = [initial_parameters(task, request.seed) for request in requests]
    stacked = {name: torch.stack([m[name] for m in models]).requires_grad_() for name in models[0]}
    optimizer = build_optimizer(recipe, stacked.values())
    rows = torch.stack([torch.from_numpy(request.indices) for request in requests])  # [M, n]
    n = rows.shape[1]
    total, step = n_steps(recipe, n), 0
    kept: list[dict[int, State]] = [{} for _ in requests]
    for epoch in range(1, epochs[-1] + 1):
        order = torch.stack([torch.from_numpy(epoch_order(n, request.seed, epoch)) for request in requests])
        for batch in torch.split(rows.gather(1, order), recipe.batch_size, dim=1):
            optimizer.zero_grad()
            backward(stacked, batch)
            if recipe.clip_norm is not None:
                _clip(list(stacked.values()), recipe.clip_norm)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, total)
            optimizer.step()
            step += 1
        if epoch in epochs:
            for m, states in enumerate(kept):
                states[epoch] = {name: value.detach()[m].clone() for name, value in stacked.items()}
    return kept


def _clip(stacked: Sequence[Tensor], largest: float) -> None:
    """Scale each model's gradient down to a norm of `largest`, as `torch.nn.utils.clip_grad_norm_` does."""
    gradients = [value.grad for value in stacked if value.grad is not None]
    norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients], dim=1)  # [M, n_tensors]
    scale = (largest / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
    for g in gradients:
        g.mul_(scale.view(-1, *[1] * (g.dim() - 1)))
