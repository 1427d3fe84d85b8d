"""Replays have the bits of a plain retrain, with every trainer, from the start or from the middle."""

from typing import Any

import numpy as np
import pytest
import torch
from language_tasks import TinyLanguageTask
from language_tasks import tiny_card as language_card
from tiny import N_TRAIN, NormedTinyTask, PlainTinyTask, TinyTask, tiny_card
from torch import nn

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context
from attriboard.contracts.run import TrainingState
from attriboard.contracts.task import Task
from attriboard.retraining.choosing import opened
from attriboard.retraining.replay import run_of
from attriboard.retraining.request import RetrainRequest, random_subset

ADAMW = {"optimizer": "adamw", "momentum": 0.0, "learning_rate": 0.02, "clip_norm": 0.5, "schedule": "linear"}


class SmoothTask(TinyTask):
    """Without ReLU, so that `VmapTrainer` takes it."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


class NoisyTask(TinyTask):
    """With dropout."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Linear(6, 3))


TASKS: dict[str, tuple[type[Task], dict[str, Any]]] = {
    "stacked perceptron": (TinyTask, {"weight_decay": 0.01}),
    "stacked perceptron without momentum": (TinyTask, {"momentum": 0.0}),
    "vmap, sgd": (SmoothTask, {}),
    "vmap, adamw": (SmoothTask, ADAMW),
    "loop, sgd": (PlainTinyTask, {}),
    "loop, adamw": (PlainTinyTask, ADAMW),
    "loop, running statistics": (NormedTinyTask, {}),
}


def context() -> Context:
    return None  # type: ignore[return-value]  # replays of tasks have their own data


def assert_same(one: TrainingState, other: TrainingState) -> None:
    assert one.step == other.step
    assert len(one.moments) == len(other.moments)
    pairs = [
        (one.parameters, other.parameters),
        (one.buffers, other.buffers),
        *zip(one.moments, other.moments, strict=True),
    ]
    for left, right in pairs:
        assert left.keys() == right.keys()
        assert all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("kind", [*TASKS, "stacked gpt2"])
@pytest.mark.parametrize("half", [False, True])
def test_replays_have_the_bits_of_a_retrain(kind: str, half: bool) -> None:
    if kind == "stacked gpt2":
        task: Task = TinyLanguageTask(language_card())
    else:
        make, changes = TASKS[kind]
        task = make(tiny_card(**changes))
    n = task.card.data.n_train
    rows = random_subset(n, n // 2, 0, 3) if half else np.arange(n)
    last = task.card.recipe.epochs
    (expected,) = opened(task).trainer.train([RetrainRequest(rows, 5)], list(range(1, last + 1)))
    run = run_of(task, 5, rows if half else None)
    states = list(run.replay(context()))
    assert [state.step for state in states] == list(range(run.n_steps + 1))
    for epoch in range(1, last + 1):
        found = states[epoch * run.steps_per_epoch]
        for name, value in {**found.parameters, **found.buffers}.items():
            assert torch.equal(value, expected[epoch][name]), (epoch, name)
    middle = run.n_steps // 2 + 1
    again = list(run.replay(context(), states[middle]))
    assert len(again) == run.n_steps - middle + 1
    for one, other in zip(again, states[middle:], strict=True):
        assert_same(one, other)
    part = list(run.replay(context(), states[1], 3))
    assert [state.step for state in part] == [1, 2, 3]


def test_a_runs_batches_and_rates_are_those_of_training() -> None:
    """Plain gradient steps with them end where the replay ends."""
    torch.set_default_dtype(torch.float64)
    try:
        task = SmoothTask(tiny_card(momentum=0.0, schedule="cosine", batch_size=7))
        run, data = run_of(task, 3, random_subset(N_TRAIN, 20, 0, 1)), task.load_data().train
        first, *_, last = run.replay(context())
        parameters = {name: value.clone() for name, value in first.parameters.items()}
        model = task.build_model()
        for step, rate in enumerate(run.rates):
            batch = data[run.batch(step)]

            def loss(values: dict[str, torch.Tensor], batch: Any = batch) -> torch.Tensor:
                return task.loss(torch.func.functional_call(model, values, (batch.inputs,)), batch.targets).mean()

            gradients = torch.func.grad(loss)(parameters)
            parameters = {name: value - rate * gradients[name] for name, value in parameters.items()}
        for name, value in last.parameters.items():
            torch.testing.assert_close(parameters[name], value)
    finally:
        torch.set_default_dtype(torch.float32)


def test_training_that_draws_random_numbers_is_not_replayed() -> None:
    run = run_of(NoisyTask(tiny_card()), 0, None)
    with pytest.raises(NotApplicableError, match="draws random numbers"):
        next(run.replay(context()))
