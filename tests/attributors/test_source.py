"""SOURCE against its product of exponentials, and where it coincides with other methods."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from dense import assert_rows_close, attribute, class_draws, dense_gradients, dense_layers, layer_inputs
from runs import ADAMW, QuadraticTask, SmoothTask, context_of
from tiny import N_TRAIN, tiny_card
from torch import Tensor

from attriboard.attributors import source
from attriboard.attributors.source import integral
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.run import TrainingState


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def segment_matrices(
    context: Context, models: list[Checkpoint], P: list[Tensor]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """U = U_S ⊗ U_A, Λ of the mean over models, and ḡ (n, d_out · d_in), for every layer; labels of the model's own.

    U and Λ are those of gradients times P^½ (d_out, d_in).
    """
    layers = []
    for number in range(2):
        A, S, squares, gradients = 0.0, 0.0, [], []
        for one in models:
            at = replace(context, checkpoints=(one,))
            a, n = layer_inputs(at)[number], N_TRAIN
            draws = [(p, found[number]) for p, found in class_draws(at, "true")]
            deltas = [(p, torch.einsum("noi,ni->no", G, a) / a.square().sum(1, keepdim=True)) for p, G in draws]
            S = S + sum(torch.einsum("n,no,nq->oq", p, d, d) / n for p, d in deltas) / len(models)
            A = A + a.T @ a / n / len(models)
            squares.append(draws)
            gradients.append(dense_layers(at, context.loss, context.train)[number].flatten(1))
        r, c = (P[number].mean(1) / P[number].mean()).sqrt(), P[number].mean(0).sqrt()
        S, A = torch.diag(r) @ S @ torch.diag(r), torch.diag(c) @ A @ torch.diag(c)
        U = torch.kron(torch.linalg.eigh(S)[1], torch.linalg.eigh(A)[1])
        root = P[number].sqrt()
        Λ = [sum((p[:, None] * ((G * root).flatten(1) @ U).square()).mean(0) for p, G in draws) for draws in squares]
        layers.append((U, torch.stack(Λ).mean(0), torch.stack(gradients).mean(0)))
    return layers


SEGMENTED: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.5, "learning_rate": 0.05, "schedule": "linear"},
    "adamw": {**ADAMW, "weight_decay": 0.0, "clip_norm": None},
}


@pytest.mark.parametrize("recipe", SEGMENTED.values(), ids=SEGMENTED.keys())
@pytest.mark.parametrize(("segments", "each"), [(1, 1), (3, 2)])
def test_source_is_its_product_of_exponentials(segments: int, each: int, recipe: dict[str, Any]) -> None:
    """exp(−ηK H P) and P ∫ exp(−s H P) ds, with H = P^−½ U Λ Uᵀ P^−½ written out; for SGD P is the identity."""
    context = context_of(SmoothTask(tiny_card(**recipe)))
    (run,) = context.runs
    states, T = list(run.replay(context)), run.n_steps
    places = [T * (k + 1) // (segments * each) for k in range(segments * each)]
    models = [Checkpoint(states[place].parameters, 1, 3) for place in places]
    g = dense_layers(context, context.target, context.test)

    def preconditioners(state: TrainingState) -> list[Tensor]:
        if run.recipe.optimizer == "sgd":
            return [torch.ones_like(one[0]) for one in g]
        v = {name: value / (1 - 0.999**state.step) for name, value in state.moments[1].items()}
        joined = [torch.cat([v[f"{layer}.weight"], v[f"{layer}.bias"][:, None]], 1) for layer in (0, 2)]
        return [1 / (one.sqrt() + 1e-8) for one in joined]

    expected = torch.zeros(len(context.test), N_TRAIN)
    x = [one.flatten(1) for one in g]
    for segment in reversed(range(segments)):
        horizon = sum(run.rates[T * segment // segments : T * (segment + 1) // segments]) / (1 - run.recipe.momentum)
        own = slice(segment * each, (segment + 1) * each)
        each_P = [preconditioners(states[place]) for place in places[own]]
        P = [torch.stack(one).mean(0) for one in zip(*each_P, strict=True)]
        for layer, (U, Λ, mean) in enumerate(segment_matrices(context, models[own], P)):
            D = torch.diag(P[layer].flatten())
            F = torch.where(Λ > 1e-14, -torch.expm1(-horizon * Λ) / Λ.clamp_min(1e-14), horizon)
            expected -= x[layer] @ D.sqrt() @ U @ torch.diag(F) @ U.T @ D.sqrt() @ mean.T / N_TRAIN
            H = D.sqrt().inverse() @ U @ torch.diag(Λ) @ U.T @ D.sqrt().inverse()
            x[layer] = x[layer] @ torch.linalg.matrix_exp(-horizon * D @ H)
    assert_rows_close(attribute("source", context, segments=segments, checkpoints_per_segment=each), expected, 1e-5)


def test_a_constant_preconditioner_of_source_is_another_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(SmoothTask(tiny_card(momentum=0.0, learning_rate=0.05)))
    (run,) = context.runs
    faster = replace(context, runs=(replace(run, rates=tuple(3 * rate for rate in run.rates)),))
    expected = attribute("source", faster)
    monkeypatch.setattr(
        source, "preconditioner", lambda run, state: {name: 3.0 + 0 * p for name, p in state.parameters.items()}
    )
    assert_rows_close(attribute("source", context), expected)


def test_source_for_adam_with_a_short_horizon_is_the_preconditioned_gradient() -> None:
    context = context_of(SmoothTask(tiny_card(**{**ADAMW, "clip_norm": None})))
    (run,) = context.runs
    short = replace(context, runs=(replace(run, rates=(1e-12,) * run.n_steps),))
    *_, last = run.replay(context)
    v = torch.cat([last.moments[1][name].flatten() for name in context.attributed]) / (1 - 0.999**run.n_steps)
    G = dense_gradients(context, context.checkpoints[0], context.loss, context.train)
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    expected = -1e-12 * run.n_steps / N_TRAIN * (g / (v.sqrt() + 1e-8)) @ G.T
    assert_rows_close(attribute("source", short, segments=1, checkpoints_per_segment=1), expected, 1e-5)


def test_one_segment_with_a_long_horizon_is_the_undamped_influence_function() -> None:
    """Where H is positive definite: a linear layer with one output, whose EK-FAC matrix is U Λ Uᵀ."""
    context = context_of(QuadraticTask(tiny_card(momentum=0.0, learning_rate=0.02)))
    (run,) = context.runs
    long = replace(context, runs=(replace(run, rates=(1e9,) * run.n_steps),))
    values = {"segments": 1, "checkpoints_per_segment": 1, "fisher": "empirical"}
    undamped = attribute("ekfac", context, regularization=0.0, fisher="empirical") / N_TRAIN
    assert_rows_close(attribute("source", long, **values), undamped, 1e-5)
    short = replace(context, runs=(replace(run, rates=(1e-12,) * run.n_steps),))
    first_order = attribute("grad_dot", context) * 1e-12 * run.n_steps / N_TRAIN
    assert_rows_close(attribute("source", short, **values), first_order, 1e-5)


def test_the_integral_is_the_horizon_at_zero_and_the_inverse_in_the_limit() -> None:
    σ = torch.tensor([0.0, 1e-300, 1e-9, 0.5])
    torch.testing.assert_close(integral(σ, 3.0)[:3], torch.full((3,), 3.0))
    torch.testing.assert_close(integral(σ, 1e6)[3], torch.tensor(2.0))
