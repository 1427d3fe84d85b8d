"""Derivatives written out: no hooks, no vmap over directions, no blocks. What methods are compared with."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev
from torch.nn.functional import pad

from attriboard.attribution.plugins import Registry
from attriboard.attributors import ATTRIBUTORS
from attriboard.contracts.attributor import Attributor, BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.factored import Factors

REGISTRY: Registry[type[Attributor]] = Registry("attributor", ATTRIBUTORS, "attriboard.attributors")


def flat_parameters(context: Context, checkpoint: Checkpoint) -> Tensor:
    return torch.cat([checkpoint.parameters[name].flatten() for name, _ in context.model.named_parameters()])


def unflatten(context: Context, flat: Tensor) -> dict[str, Tensor]:
    named = dict(context.model.named_parameters())
    pieces = flat.split([value.numel() for value in named.values()])
    return {name: piece.view(value.shape) for (name, value), piece in zip(named.items(), pieces, strict=True)}


def dense_gradients(context: Context, checkpoint: Checkpoint, function: BatchFunction, data: Examples) -> Tensor:
    """(n, n_params)."""

    def values(flat: Tensor) -> Tensor:
        return function(functional_call(context.model, unflatten(context, flat), (data.inputs,)), data.targets)

    return jacrev(values)(flat_parameters(context, checkpoint))


def dense_hessian(context: Context, checkpoint: Checkpoint, data: Examples) -> Tensor:
    """Of the mean loss, (n_params, n_params)."""

    def mean(flat: Tensor) -> Tensor:
        outputs = functional_call(context.model, unflatten(context, flat), (data.inputs,))
        return context.loss(outputs, data.targets).mean()

    return jacrev(grad(mean))(flat_parameters(context, checkpoint))


def dense_gauss_newton(context: Context, examples: Examples) -> Tensor:
    """E[Jᵀ (∂²ℓ/∂z²) J], (n_params, n_params)."""
    flat = flat_parameters(context, context.checkpoints[0])
    total = torch.zeros(len(flat), len(flat), dtype=torch.float64)
    for row in range(len(examples)):
        one = examples[row : row + 1]

        def outputs(parameters: Tensor, one: Examples = one) -> Tensor:
            return functional_call(context.model, unflatten(context, parameters), (one.inputs,))

        J = jacrev(outputs)(flat)[0]
        H = jacrev(grad(lambda z, one=one: context.loss(z, one.targets).sum()))(outputs(flat))[0, :, 0]
        total += J.T @ H @ J
    return total / len(examples)


def fitted(name: str, context: Context, **values: object) -> Callable[..., Tensor]:
    """A registered method, fitted: score-stage values → scores, float64."""
    method = REGISTRY.load(name)
    attributor = method()
    state = attributor.fit(context, **method.stage(method.configure(values), "fit"))

    def score(**others: object) -> Tensor:
        configuration = method.configure({**values, **others})
        return attributor.score(state, **method.stage(configuration, "score")).double()

    return score


def attribute(name: str, context: Context, **values: object) -> Tensor:
    """Scores of a registered method, float64."""
    return fitted(name, context, **values)()


def without_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model as one that has no gradient factors."""

    monkeypatch.setattr(Factors, "cover", lambda *_: False)


def assert_rows_close(actual: Tensor, expected: Tensor, tolerance: float = 2e-6) -> None:
    """Rows agree relative to their own size; scores are float32."""
    assert actual.shape == expected.shape
    errors = (actual.double() - expected.double()).norm(dim=1) / expected.double().norm(dim=1)
    assert errors.max() < tolerance, float(errors.max())


def assert_proportional(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Equal up to one positive factor."""
    assert_rows_close(actual / actual.norm(), expected / expected.norm(), tolerance)


def dense_layers(context: Context, function: BatchFunction, data: Examples) -> list[Tensor]:
    """Gradients (n, d_out, d_in + 1) of every layer, the bias last, by reverse-mode Jacobians: no hooks, no factors."""

    def values(parameters: dict[str, Tensor]) -> Tensor:
        return function(functional_call(context.model, parameters, (data.inputs,)), data.targets)

    jacobian = jacrev(values)(dict(context.checkpoints[0].parameters))
    weights = [name for name in jacobian if name.endswith("weight")]
    return [
        torch.cat([jacobian[name], jacobian[name.replace("weight", "bias")][:, :, None]], dim=2)
        if name.replace("weight", "bias") in jacobian
        else jacobian[name]
        for name in weights
    ]


def layer_inputs(context: Context) -> list[Tensor]:
    """Training inputs (n, d_in + 1) of every layer of an `nn.Sequential`, by running it piece by piece."""
    assert isinstance(context.model, nn.Sequential)
    found, hidden = [], context.train.inputs
    for position, module in enumerate(context.model):
        own = {
            name.split(".")[1]: value
            for name, value in context.checkpoints[0].parameters.items()
            if name.startswith(f"{position}.")
        }
        if own:
            found.append(pad(hidden, (0, 1), value=1.0) if "bias" in own else hidden)
        hidden = functional_call(module, own, (hidden,))
    return found


def class_draws(context: Context, fisher: str) -> list[tuple[Tensor, list[Tensor]]]:
    """Weights (n,) and gradients of the labels that the Fisher matrix is an expectation over."""
    if fisher == "empirical":
        ones = torch.ones(len(context.train), dtype=torch.float64)
        return [(ones, dense_layers(context, context.loss, context.train))]
    outputs = functional_call(context.model, dict(context.checkpoints[0].parameters), (context.train.inputs,))
    draws = []
    for label in range(outputs.shape[1]):
        examples = Examples(context.train.inputs, torch.full_like(context.train.targets, label))
        draws.append((outputs.softmax(1)[:, label], dense_layers(context, context.loss, examples)))
    return draws


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.double().flatten(), other.double().flatten()]))[0, 1])


def with_model(context: Context, model: nn.Module, epochs: int = 100) -> Context:
    """The same examples with one trained float64 model of another architecture."""
    model = model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(epochs):
        optimizer.zero_grad()
        context.loss(model(context.train.inputs), context.train.targets).mean().backward()
        optimizer.step()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    checkpoint = Checkpoint(parameters, epoch=epochs, seed=0)
    return replace(context, model=model.eval().requires_grad_(False), checkpoints=(checkpoint,))
