"""Methods that follow a run against training itself: reweighted retrains, closed forms, sums written out."""

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from dense import (
    assert_rows_close,
    attribute,
    dense_gauss_newton,
    dense_gradients,
)
from runs import ADAMW, SGD, QuadraticTask, SmoothTask, context_of, trained
from tiny import N_TRAIN, NormedTinyTask, TinyTask, tiny_card
from torch import Tensor, nn
from torch.func import functional_call

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Task
from attriboard.retraining.replay import run_of
from attriboard.toolkit import replaying, unrolling

RECIPES: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.0},
    "momentum, decay, schedule": SGD,
    "momentum, clipped": {"momentum": 0.5, "clip_norm": 0.3},
    "adamw": {**ADAMW, "clip_norm": None},
    "adamw, clipped, one cycle": {**ADAMW, "schedule": "cosine", "warmup": 0.3},
}


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def by_differences(task: Task, example: int, step: float = 1e-4) -> Tensor:
    """∂f/∂w of all test points, by training with the example's weight a little larger and smaller."""
    test, model = task.load_data().test, task.build_model()
    found = []
    for sign in (1, -1):
        weights = np.ones(task.card.data.n_train)
        weights[example] += sign * step
        (parameters,) = trained(task, weights=weights)
        found.append(task.target(functional_call(model, parameters, (test.inputs,)), test.targets))
    return (found[0] - found[1]) / (2 * step)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_magic_is_the_derivative_of_reweighted_training(recipe: dict[str, Any]) -> None:
    task = SmoothTask(tiny_card(**recipe))
    scores = attribute("magic", context_of(task))
    for example in (0, 17, N_TRAIN - 1):
        expected = by_differences(task, example)
        assert (scores[:, example] - expected).norm() < 1e-6 * expected.norm()


def test_magic_on_a_stacked_perceptron_is_the_derivative_of_reweighted_training() -> None:
    """With ReLU, whose kinks a step this small does not meet."""
    task = TinyTask(tiny_card(hidden=[7, 6], learning_rate=0.05))
    scores = attribute("magic", context_of(task))
    for example in (1, 20):
        expected = by_differences(task, example, 1e-5)
        assert (scores[:, example] - expected).norm() < 1e-6 * expected.norm()


def test_magic_on_a_convex_quadratic_is_the_closed_form() -> None:
    """θ_T is linear in what each step adds: ∂θ_T/∂w_i = −Σ_t η (1/B) Π_{k>t} (I − η x̄x̄ᵀ_k) x_i (x_iᵀθ_t − y_i)."""
    task = QuadraticTask(tiny_card(momentum=0.0, learning_rate=0.02))
    context, (run,) = context_of(task), (run_of(task, 3, None),)
    X, y = context.train.inputs, context.train.targets.double()
    states = [state.parameters["0.weight"][0] for state in run.replay(context)]
    influence = torch.zeros(N_TRAIN, 5)
    for step, rate in enumerate(run.rates):
        rows = run.batch(step)
        influence -= rate / len(rows) * influence @ X[rows].T @ X[rows]
        influence[rows] -= rate / len(rows) * X[rows] * (X[rows] @ states[step] - y[rows])[:, None]
    assert_rows_close(attribute("magic", context), context.test.inputs @ influence.T)


def test_magic_of_several_models_is_their_mean_and_of_an_earlier_epoch_is_that_training() -> None:
    task = SmoothTask(tiny_card(**SGD))
    context = context_of(task, (3, 4))
    singles = [attribute("magic", replace(context, checkpoints=context.checkpoints[k : k + 1])) for k in range(2)]
    assert_rows_close(attribute("magic", context, checkpoints=2), (singles[0] + singles[1]) / 2)
    short = SmoothTask(tiny_card(momentum=0.9, epochs=2))
    longer = SmoothTask(tiny_card(momentum=0.9, epochs=3))
    earlier = Checkpoint(trained(short)[0], 2, 3)
    found = attribute("magic", replace(context_of(longer), checkpoints=(earlier,)))
    assert_rows_close(found, attribute("magic", context_of(short)))


def test_test_points_in_groups_have_the_same_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(SmoothTask(tiny_card(**SGD)))
    expected = {name: attribute(name, context) for name in ("magic", "dvemb")}
    monkeypatch.setattr(unrolling, "ADJOINT_BYTES", 1)
    for name, scores in expected.items():
        assert_rows_close(attribute(name, context), scores)


def stepwise(context: Context) -> list[tuple[float, Tensor, Tensor]]:
    """η/(1 − μ), rows and gradients (B, n_params) of every update."""
    (run,) = context.runs
    found = []
    for state, rate in zip(run.replay(context), run.rates, strict=False):
        rows = run.batch(state.step)
        at = Checkpoint(state.parameters, 0, 0)
        gradients = dense_gradients(context, at, context.loss, context.train[rows])
        found.append((rate / (1 - run.recipe.momentum), rows, gradients))
    return found


def stepwise_curvature(context: Context, kind: str) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
    """η, rows, gradients (B, n_params) and the curvature written out, of every update."""
    (run,) = context.runs
    for state, rate in zip(run.replay(context), run.rates, strict=False):
        rows = run.batch(state.step)
        at = replace(context, checkpoints=(Checkpoint(state.parameters, 0, 0),))
        G = dense_gradients(at, at.checkpoints[0], context.loss, context.train[rows])
        yield rate, rows, G, G.T @ G / len(G) if kind == "fisher" else dense_gauss_newton(at, context.train[rows])


@pytest.mark.parametrize("kind", ["fisher", "gauss_newton"])
def test_dvemb_is_its_product_of_matrices(kind: str) -> None:
    context = context_of(SmoothTask(tiny_card(momentum=0.0, learning_rate=0.05)))
    steps = list(stepwise_curvature(context, kind))
    influence = torch.zeros(N_TRAIN, len(steps[0][3]))
    for rate, rows, G, H in steps:
        influence -= rate * influence @ H
        influence[rows] -= rate / len(G) * G
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    assert_rows_close(attribute("dvemb", context, curvature=kind), g @ influence.T)


def test_dvemb_with_momentum_is_the_linear_system_of_parameters_and_velocity() -> None:
    """∂v' = μ ∂v + (H + w I) ∂θ + g_i/B, ∂θ' = ∂θ − η ∂v'."""
    context = context_of(SmoothTask(tiny_card(**SGD, learning_rate=0.05)))
    steps = list(stepwise_curvature(context, "gauss_newton"))
    of_θ = torch.zeros(N_TRAIN, len(steps[0][3]))
    of_v = torch.zeros_like(of_θ)
    for rate, rows, G, H in steps:
        of_v = 0.9 * of_v + of_θ @ H + 0.01 * of_θ
        of_v[rows] += G / len(G)
        of_θ = of_θ - rate * of_v
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    assert_rows_close(attribute("dvemb", context), g @ of_θ.T)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_dvemb_is_magic_where_the_gauss_newton_matrix_is_the_hessian(recipe: dict[str, Any]) -> None:
    context = context_of(QuadraticTask(tiny_card(**{"learning_rate": 0.02, **recipe})))
    assert_rows_close(attribute("dvemb", context), attribute("magic", context))


def test_dvemb_without_curvature_is_the_sum_over_the_steps_that_contain_the_example() -> None:
    context = context_of(SmoothTask(tiny_card(momentum=0.0)))
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    expected = torch.zeros(len(context.test), N_TRAIN)
    for rate, rows, G, _ in stepwise_curvature(context, "fisher"):
        expected[:, rows] -= rate / len(G) * g @ G.T
    assert_rows_close(attribute("dvemb", context, curvature="none"), expected)


def test_the_product_of_empirical_fisher_matrices_diverges_where_training_does_not_and_is_noted() -> None:
    """Large residuals: g gᵀ grows with their square, the curvature x xᵀ does not know them."""

    class FarTask(QuadraticTask):
        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs.squeeze(1) - 30 * targets).square() / 2

    context = context_of(FarTask(tiny_card(momentum=0.0, learning_rate=0.02)))
    assert_rows_close(attribute("dvemb", context), attribute("magic", context))
    assert not any("diverged" in remark for remark in context.remarks)
    attribute("dvemb", context, curvature="fisher")
    assert re.fullmatch(r"diverged: test gradients grew .*-fold on the way back .*", context.remarks[-1])


def test_the_distance_to_the_published_model_is_reported_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(SmoothTask(tiny_card()))
    attribute("dvemb", context)
    (remark,) = context.remarks
    assert re.fullmatch(r"training seed 3 again ends \d\.\de(\+00|-1\d) of its way from the published model", remark)
    (checkpoint,) = context.checkpoints
    moved = {name: value + 0.3 for name, value in checkpoint.parameters.items()}
    with pytest.raises(NotApplicableError, match=r"published model; at most .* is allowed"):
        attribute("dvemb", replace(context, checkpoints=(replace(checkpoint, parameters=moved),)))


def test_runs_that_cannot_be_followed_are_refused() -> None:
    with pytest.raises(NotApplicableError, match="BatchNorm1d lets the examples of a training batch interact"):
        attribute("magic", context_of(NormedTinyTask(tiny_card())))
    context = context_of(SmoothTask(tiny_card()))
    with pytest.raises(NotApplicableError, match="how the models were trained is not known"):
        attribute("magic", replace(context, runs=()))
    with pytest.raises(NotApplicableError, match="with all the parameters that it trains"):
        attribute("magic", replace(context, parameters=("2.weight", "2.bias")))


def test_about_two_roots_of_the_states_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(SmoothTask(tiny_card(epochs=12)))
    run = context.runs[0]
    steps, replays = [], 0

    def count(*args: Any, **values: Any) -> Any:
        nonlocal replays
        replays += 1
        return original(*args, **values)

    original = type(run).replay
    monkeypatch.setattr(type(run), "replay", count)
    steps = [state.step for state in replaying.backward(context, run, context.checkpoints[0])]
    assert steps == list(range(run.n_steps, -1, -1))
    assert replays == 1 + -(-run.n_steps // int(run.n_steps**0.5))


def test_less_takes_the_gradient_of_sgd_and_the_direction_of_adamw() -> None:
    sgd = context_of(SmoothTask(tiny_card(momentum=0.0)))
    assert_rows_close(attribute("less", sgd), attribute("grad_cos", sgd))
    context = context_of(SmoothTask(tiny_card(**{**ADAMW, "clip_norm": None})))
    (run,) = context.runs
    *_, last = run.replay(context)
    m, v = (torch.cat([moment[name].flatten() for name in context.attributed]) for moment in last.moments)
    G = dense_gradients(context, context.checkpoints[0], context.loss, context.train)
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    t = run.n_steps + 1
    first = (0.9 * m + 0.1 * G) / (1 - 0.9**t)
    Γ = first / (((0.999 * v + 0.001 * G**2) / (1 - 0.999**t)).sqrt() + 1e-8)
    expected = -nn.functional.normalize(g) @ nn.functional.normalize(Γ).T
    assert_rows_close(attribute("less", context), expected)


def test_tracin_weighs_checkpoints_by_the_recipes_learning_rates() -> None:
    task = SmoothTask(tiny_card(momentum=0.0, schedule="linear"))
    context, (run,) = context_of(task), (run_of(task, 3, None),)
    states = {state.step: state for state in run.replay(context)}
    kept = tuple(Checkpoint(states[epoch * run.steps_per_epoch].parameters, epoch, 3) for epoch in (1, 2, 3))
    context = replace(context, checkpoints=kept)
    expected = torch.zeros(len(context.test), N_TRAIN)
    for one in kept:
        rate = run.rates[one.epoch * run.steps_per_epoch - 1] / 0.1
        G, g = (
            dense_gradients(context, one, *side) for side in ((task.loss, context.train), (task.target, context.test))
        )
        expected -= rate * g @ G.T
    assert_rows_close(attribute("tracin", context), expected)
    equal = attribute("tracin", replace(context, runs=()))
    assert not torch.allclose(equal, attribute("tracin", context))
