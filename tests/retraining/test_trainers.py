"""Trainers against each other and against a loop written out in full."""

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain_training import (
    LOOP_RECIPES,
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
from tiny import NormedTinyTask, tiny_card, tiny_task
from torch import nn

from attriboard.contracts.schedule import learning_rate
from attriboard.retraining.choosing import trainer_class
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from attriboard.retraining.trainer import Trainer, initial_parameters, state_parts
from attriboard.retraining.vmapped import VmapTrainer

RECIPES = {
    "plain": {"momentum": 0.0},
    "momentum": {"momentum": 0.9},
    "weight decay": {"momentum": 0.9, "weight_decay": 0.01},
    "short last batch": {"batch_size": 5},  # 22 = 4 × 5 + 2
    "one batch, larger than the subset": {"batch_size": 64},
    "logistic regression": {"hidden": []},
    "logistic regression, weight decay": {"hidden": [], "weight_decay": 0.1, "momentum": 0.5},
    "deep": {"hidden": [7, 6, 5], "learning_rate": 0.05},
    "linear decay": {"schedule": "linear"},
    "one cycle": {"schedule": "cosine", "warmup": 0.25, "weight_decay": 0.01},
    "warm-up, then constant": {"warmup": 0.5},
}
recipes = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


@recipes
@pytest.mark.parametrize("trainer", [StackedMLPTrainer, LoopTrainer])
def test_in_float64_a_trainer_computes_what_plain_pytorch_does(
    trainer: type[Trainer], recipe: dict[str, object]
) -> None:
    with double_precision():
        task, requests = tiny_task(**recipe), subset_requests(3)
        for request, trained in zip(requests, train(trainer, task, requests), strict=True):
            assert largest_difference(trained[3], plain_loop(task, request, 3)) < 1e-12


@pytest.mark.parametrize("trainer", [VmapTrainer, LoopTrainer])
@pytest.mark.parametrize("recipe", LOOP_RECIPES.values(), ids=LOOP_RECIPES.keys())
def test_other_recipes_than_the_stacks_are_computed_as_pytorch_does(
    trainer: type[Trainer], recipe: dict[str, object]
) -> None:
    with double_precision():
        task, requests = tiny_task(**recipe), subset_requests(3)
        assert trainer_class(task) is VmapTrainer
        for request, trained in zip(requests, train(trainer, task, requests), strict=True):
            assert largest_difference(trained[3], plain_loop(task, request, 3)) < 1e-12


def test_clipping_bounds_every_update_and_leaves_smaller_gradients_alone() -> None:
    task = tiny_task(momentum=0.0, learning_rate=1.0, epochs=1, batch_size=64, clip_norm=0.01)
    request = subset_requests(1)[0]
    start, end = initial_parameters(task, request.seed), train(LoopTrainer, task, [request], (1,))[0][1]
    moved = torch.cat([(end[name] - start[name]).flatten() for name in start]).norm()
    assert 0.0099 < float(moved) < 0.0101
    free = tiny_task(momentum=0.0, learning_rate=1.0, epochs=1, batch_size=64)
    loose = tiny_task(momentum=0.0, learning_rate=1.0, epochs=1, batch_size=64, clip_norm=100.0)
    a, b = (train(LoopTrainer, t, [request], (1,))[0][1] for t in (free, loose))
    assert identical(a, b)


@given(
    recipe=st.fixed_dictionaries(
        {"schedule": st.sampled_from(["constant", "linear", "cosine"]), "warmup": st.floats(0, 0.99)}
    ),
    total=st.integers(1, 300),
)
def test_a_learning_rate_rises_to_its_peak_once_and_then_never_again(recipe: dict[str, Any], total: int) -> None:
    card = tiny_card(learning_rate=0.3, **recipe).recipe
    rates = [learning_rate(card, step, total) for step in range(total)]
    peak = round(card.warmup * total)
    assert all(0 < rate <= 0.3 for rate in rates)
    assert all(a < b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))
    if peak < total:
        assert rates[peak] == 0.3


@recipes
def test_in_float32_the_stacked_trainer_stays_near_the_plain_one(recipe: dict[str, object]) -> None:
    task, requests = tiny_task(**recipe), subset_requests(3)
    stacked, looped = train(StackedMLPTrainer, task, requests), train(LoopTrainer, task, requests)
    for a, b in zip(stacked, looped, strict=True):
        assert largest_difference(a[3], b[3]) < 1e-5


@pytest.mark.parametrize("trainer", [StackedMLPTrainer, VmapTrainer, LoopTrainer])
def test_parameters_kept_on_the_way_are_those_of_a_shorter_training(trainer: type[Trainer]) -> None:
    requests = subset_requests(2)
    long = train(trainer, tiny_task(epochs=4), requests, (1, 2, 4))
    short = train(trainer, tiny_task(epochs=2), requests, (2,))
    for a, b in zip(long, short, strict=True):
        assert sorted(a) == [1, 2, 4]
        assert identical(a[2], b[2])
        assert not identical(a[2], a[4])


def test_training_starts_from_pytorchs_initialisation_and_leaves_its_generator_alone() -> None:
    task = tiny_task()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, again, other = (initial_parameters(task, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert identical(first, again)
    assert not identical(first, other)


# Shapes whose products and sums have remainders in every vector width, and the digits' own.
SHAPES: dict[str, list[int]] = {"logistic": [], "odd": [7], "deep": [17, 33, 5], "digits": [64, 32]}


@pytest.mark.parametrize(
    ("hidden", "weight_decay"), [*((hidden, 0.01) for hidden in SHAPES.values()), ([7], 0.0)], ids=str
)
def test_a_retrain_has_the_same_bits_in_any_stack_order_and_company(hidden: list[int], weight_decay: float) -> None:
    task, requests = tiny_task(hidden=hidden, weight_decay=weight_decay), subset_requests(33)
    with threads(1):
        alone = [train(StackedMLPTrainer, task, [request])[0][3] for request in requests]
        for size in (2, 3, 8, 17):
            for start in range(0, len(requests), size):
                trained = train(StackedMLPTrainer, task, requests[start : start + size])
                for offset, epochs in enumerate(trained):
                    assert identical(epochs[3], alone[start + offset])
        order = np.random.default_rng(0).permutation(17)
        shuffled = train(StackedMLPTrainer, task, [requests[i] for i in order])
    assert all(identical(epochs[3], alone[i]) for epochs, i in zip(shuffled, order, strict=True))


@pytest.mark.parametrize("trainer", [StackedMLPTrainer, VmapTrainer])
def test_a_diverging_neighbour_does_not_reach_a_retrain(trainer: type[Trainer]) -> None:
    task, requests = tiny_task(), subset_requests(2)
    data = task.load_data()
    sick = copy.deepcopy(data)
    only_second = sorted(set(requests[1].indices.tolist()) - set(requests[0].indices.tolist()))
    sick.train.inputs[only_second] = float("nan")
    healthy = trainer(task, data).train(requests, (3,))
    beside = trainer(task, sick).train(requests, (3,))
    assert identical(beside[0][3], healthy[0][3])
    assert beside[1][3]["0.weight"].isnan().any()


def test_more_threads_stay_within_rounding() -> None:
    # The engine always trains on one thread; this only shows that nothing but rounding hangs on it.
    task, requests = tiny_task(hidden=[64, 32]), subset_requests(9)
    with threads(1):
        one = train(StackedMLPTrainer, task, requests)
    with threads(2):
        two = train(StackedMLPTrainer, task, requests)
    assert max(largest_difference(a[3], b[3]) for a, b in zip(one, two, strict=True)) < 1e-5


def test_running_statistics_are_part_of_the_state_and_those_of_pytorch() -> None:
    with double_precision():
        task, request = NormedTinyTask(tiny_card()), subset_requests(1)[0]
        trained, plain = train(LoopTrainer, task, [request])[0][3], plain_loop(task, request, 3)
    assert largest_difference(trained, plain) < 1e-12
    assert int(trained["1.num_batches_tracked"]) == 9  # 3 epochs of 8 + 8 + 6
    assert float(trained["1.running_var"].sub(1).abs().max()) > 0.1


def test_running_statistics_do_not_leak_from_one_retrain_into_the_next() -> None:
    task, requests = Modelled(nn.Sequential(nn.BatchNorm1d(5, momentum=None), nn.Linear(5, 3))), subset_requests(2)
    alone = train(LoopTrainer, task, requests[1:])[0][3]
    assert identical(train(LoopTrainer, task, requests)[1][3], alone)


def test_convolutions_are_trained_as_pytorch_does_and_their_kernels_come_back_in_plain_order() -> None:
    with double_precision():
        task, request = Modelled(convolutional().double()), subset_requests(1)[0]
        trained = train(LoopTrainer, task, [request])[0][3]
        assert largest_difference(trained, plain_loop(task, request, 3)) < 1e-12
    assert all(value.is_contiguous() for value in trained.values())


@pytest.mark.parametrize("model", [convolutional(), NormedTinyTask(tiny_card()).build_model()], ids=["conv", "linear"])
def test_in_bfloat16_a_retrain_repeats_to_the_last_bit_and_stays_near_float32(model: nn.Module) -> None:
    requests = subset_requests(2)
    reduced, whole = Modelled(model, precision="bfloat16"), Modelled(model)
    assert trainer_class(reduced) is LoopTrainer
    with threads(1):
        once, again = train(LoopTrainer, reduced, requests)[1][3], train(LoopTrainer, reduced, requests[1:])[0][3]
    exact = train(LoopTrainer, whole, requests[1:])[0][3]
    assert identical(once, again)
    assert all(once[name].dtype == exact[name].dtype for name in exact)
    assert 1e-5 < largest_difference(once, exact) < 0.1


def test_the_stack_leaves_bfloat16_to_the_plain_trainer() -> None:
    assert trainer_class(tiny_task(precision="bfloat16")) is LoopTrainer


def test_a_buffer_that_a_module_does_not_save_is_no_state() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.ones(2), persistent=False)
    model.register_buffer("mean", torch.ones(2))
    assert state_parts(model) == {"weight": "parameters", "bias": "parameters", "mean": "buffers"}
