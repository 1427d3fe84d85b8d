"""Which trainer a model gets, and that models beside it change nothing."""

import re

import pytest
import torch
from plain_training import (
    Modelled,
    convolutional,
    double_precision,
    identical,
    largest_difference,
    plain_loop,
    subset_requests,
    threads,
    train,
)
from tiny import NormedTinyTask, PlainTinyTask, tiny_card, tiny_task
from torch import nn

from attriboard.retraining.choosing import candidates, describe_training, trainer_class
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from attriboard.retraining.vmapped import VmapTrainer


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)),
        nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(5, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)),
        nn.Sequential(nn.ReLU(), nn.Linear(5, 3), nn.ReLU()),
        nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)),
        nn.Sequential(nn.Linear(5, 1), nn.ReLU(), nn.Linear(1, 3)),
        nn.Linear(5, 3),
    ],
    ids=str,
)
def test_a_model_that_is_no_plain_perceptron_is_stacked_by_vmap(model: nn.Module) -> None:
    assert trainer_class(Modelled(model)) is VmapTrainer
    with double_precision():
        task, requests = Modelled(model.double()), subset_requests(2)
        for request, trained in zip(requests, train(VmapTrainer, task, requests), strict=True):
            assert largest_difference(trained[3], plain_loop(task, request, 3)) < 1e-12


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3)),
        nn.Sequential(nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 3)),
        nn.Sequential(nn.Linear(5, 33), nn.SiLU(), nn.Linear(33, 17), nn.Softplus(), nn.Linear(17, 3)),
    ],
    ids=["layer norm", "one unit", "odd"],
)
def test_vmap_gives_a_retrain_the_same_bits_in_any_stack_and_company(model: nn.Module) -> None:
    task = Modelled(model, momentum=0.9, weight_decay=0.01, clip_norm=0.1)
    requests = subset_requests(17)
    with threads(1):
        alone = [train(VmapTrainer, task, [request])[0][3] for request in requests]
        for size in (2, 3, 16):
            for start in range(0, len(requests), size):
                trained = train(VmapTrainer, task, requests[start : start + size])
                assert len(trained) == len(requests[start : start + size])
                for offset, epochs in enumerate(trained):
                    assert identical(epochs[3], alone[start + offset])


class Looking(nn.Linear):
    """Asks for a value, which vmap cannot give."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs = super().forward(inputs)
        return outputs if float(outputs.detach().sum()) > 0 else outputs + 0


def test_what_vmap_refuses_is_trained_one_by_one_and_says_so() -> None:
    task = Modelled(Looking(5, 3))
    assert trainer_class(task) is LoopTrainer
    said = describe_training(task)
    assert re.match(r"trains one model after the other in each process: VmapTrainer is not used: .*\.item\(\)", said)


@pytest.mark.parametrize(
    ("model", "recipe", "why"),
    [
        (nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.1)), {}, "1 draws random numbers"),
        (convolutional(), {}, "the convolution 1 has other bits beside other models"),
        (NormedTinyTask(tiny_card()).build_model(), {}, "training may change the buffer 1.running_mean"),
        (nn.Sequential(), {}, "0 parameters are nothing to train"),
        (nn.Sequential(nn.Linear(5, 40_000), nn.Tanh()), {}, "240,000 parameters are more than gain from it"),
        (nn.Linear(5, 3), {"precision": "bfloat16"}, "its products are in bfloat16"),
    ],
)
def test_the_plain_trainer_is_left_with_what_does_not_stack_and_the_reason_is_said(
    model: nn.Module, recipe: dict[str, object], why: str
) -> None:
    task = Modelled(model, **recipe)
    assert trainer_class(task) is LoopTrainer
    assert describe_training(task) == f"trains one model after the other in each process: {why}"


def test_how_many_models_are_trained_at_once_is_said() -> None:
    assert describe_training(tiny_task()) == "trains up to 128 models at once in each process"
    tanh = Modelled(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)))
    assert describe_training(tanh) == "trains up to 16 models at once in each process"


def test_perceptrons_and_logistic_regression_are_stacked() -> None:
    assert trainer_class(tiny_task()) is StackedMLPTrainer
    assert trainer_class(tiny_task(hidden=[])) is StackedMLPTrainer
    assert trainer_class(PlainTinyTask(tiny_card())) is LoopTrainer


def test_stacks_are_many_for_small_models_and_never_empty() -> None:
    assert StackedMLPTrainer.stack_size(tiny_task()) == 128
    assert StackedMLPTrainer.stack_size(tiny_task(hidden=[4000, 4000])) == 1


def test_a_trainer_that_could_stack_one_model_only_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Modelled(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)))
    monkeypatch.setattr(VmapTrainer, "stack_size", staticmethod(lambda task: 1))
    assert candidates(task) == [LoopTrainer]
    assert trainer_class(task) is LoopTrainer
