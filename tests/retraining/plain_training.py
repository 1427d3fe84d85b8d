"""Training written out in full with PyTorch's own parts, and what trainers are compared on."""

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from tiny import N_TRAIN, TinyTask, tiny_card
from torch import nn

from attriboard.contracts.card import Recipe
from attriboard.retraining.request import RetrainRequest, epoch_order, random_subset
from attriboard.retraining.trainer import State, Trainer

LOOP_RECIPES = {
    "clipped": {"clip_norm": 0.1},
    "adamw": {"optimizer": "adamw", "momentum": 0.0, "learning_rate": 0.01},
    "adamw, decay, one cycle, clipped": {
        "optimizer": "adamw",
        "momentum": 0.0,
        "learning_rate": 0.05,
        "weight_decay": 0.1,
        "schedule": "linear",
        "warmup": 0.2,
        "clip_norm": 0.5,
    },
}


def subset_requests(count: int, size: int = N_TRAIN // 2) -> list[RetrainRequest]:
    return [RetrainRequest(random_subset(N_TRAIN, size, 0, k), 1000 + k) for k in range(count)]


def train(
    trainer: type[Trainer], task: TinyTask, requests: Sequence[RetrainRequest], epochs: Sequence[int] = (3,)
) -> list[dict[int, State]]:
    return trainer(task, task.load_data()).train(requests, epochs)


def plain_loop(task: TinyTask, request: RetrainRequest, n_epochs: int) -> State:
    """PyTorch's own modules, loss, optimizers and schedules; only the order of examples is AttriBoard's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.seed)
        model = task.build_model()
    recipe, train = task.card.recipe, task.load_data().train
    common: Any = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    optimizer: torch.optim.Optimizer
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **common)
    else:
        optimizer = torch.optim.AdamW(model.parameters(), **common)
    n = len(request.indices)
    scheduler = pytorch_schedule(recipe, optimizer, recipe.epochs * math.ceil(n / recipe.batch_size))
    for epoch in range(1, n_epochs + 1):
        order = request.indices[epoch_order(n, request.seed, epoch)]
        for start in range(0, n, recipe.batch_size):
            rows = order[start : start + recipe.batch_size]
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train.inputs[rows]), train.targets[rows]).backward()
            if recipe.clip_norm:
                nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
            optimizer.step()
            scheduler.step()
    return {name: value.detach() for name, value in model.state_dict().items()}


def pytorch_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    schedules = torch.optim.lr_scheduler
    rising = round(recipe.warmup * total)
    falling = {
        "constant": lambda: schedules.ConstantLR(optimizer, factor=1, total_iters=1),
        "linear": lambda: schedules.LinearLR(optimizer, 1, 0, total_iters=total - rising),
        "cosine": lambda: schedules.CosineAnnealingLR(optimizer, total - rising),
    }[recipe.schedule]()
    if not rising:
        return falling
    warmup = schedules.LinearLR(optimizer, 1 / (rising + 1), 1, total_iters=rising)
    return schedules.SequentialLR(optimizer, [warmup, falling], milestones=[rising])


def largest_difference(a: State, b: State) -> float:
    assert a.keys() == b.keys()
    assert all(a[name].shape == b[name].shape for name in a)
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def identical(a: State, b: State) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextmanager
def double_precision() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    images = [nn.Unflatten(1, (1, 1, 5)), nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    return nn.Sequential(*images, nn.Conv2d(4, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Modelled(TinyTask):
    """A tiny task with any model."""

    def __init__(self, model: nn.Module, **recipe: object) -> None:
        super().__init__(tiny_card(**recipe))
        self._model = model

    def build_model(self) -> nn.Module:
        return copy.deepcopy(self._model)
