"""Tiny trained models with their runs, in float64."""

import numpy as np
from tiny import TinyTask
from torch import Tensor, nn

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Task
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.replay import run_of
from attriboard.retraining.request import RetrainRequest

SGD = {"momentum": 0.9, "weight_decay": 0.01, "schedule": "linear"}
ADAMW = {"optimizer": "adamw", "momentum": 0.0, "learning_rate": 0.02, "weight_decay": 0.05, "clip_norm": 0.3}


class SmoothTask(TinyTask):
    """Without the kinks of ReLU."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


class QuadraticTask(TinyTask):
    """Linear regression on the class: training is a linear map, whose derivative has a closed form."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 1, bias=False))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1) - targets).square() / 2

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.squeeze(1)


def trained(task: Task, seeds: tuple[int, ...] = (3,), weights: np.ndarray | None = None) -> list[dict[str, Tensor]]:
    """Final parameters, by the plain loop."""
    loop, rows = LoopTrainer(task, task.load_data()), np.arange(task.card.data.n_train)
    requests = [RetrainRequest(rows, seed, weights=weights) for seed in seeds]
    return [states[task.card.recipe.epochs] for states in loop.train(requests, [task.card.recipe.epochs])]


def context_of(task: Task, seeds: tuple[int, ...] = (3,)) -> Context:
    data, epochs = task.load_data(), task.card.recipe.epochs
    return Context(
        train=data.train,
        test=data.test,
        model=task.build_model().eval().requires_grad_(False),
        checkpoints=tuple(
            Checkpoint(state, epochs, seed) for state, seed in zip(trained(task, seeds), seeds, strict=True)
        ),
        loss=task.loss,
        margin=task.margin,
        target=task.target,
        runs=tuple(run_of(task, seed, None) for seed in seeds),
    )
