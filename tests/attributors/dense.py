"""Derivatives written out: no hooks, no vmap over directions, no blocks. What methods are compared with."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, jacrev

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
