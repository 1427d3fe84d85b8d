"""One update of an optimizer, and its derivative: how a change after it looks before it.

SGD with momentum μ, weight decay w and rate η, from (θ, v), and AdamW, from (θ, m, v) at its t-th update:

    v' = μ v + g + w θ,  θ' = θ − η v'
    m' = β₁ m + (1 − β₁) g,  v' = β₂ v + (1 − β₂) g²
    θ' = (1 − η w) θ − η m̂/(√v̂ + ε),  m̂ = m'/(1 − β₁ᵗ),  v̂ = v'/(1 − β₂ᵗ)

where g, the gradient of the batch's loss at θ, may be clipped to a largest norm first. Going backward, an adjoint
holds ∂f/∂θ' and ∂f/∂m' for k functions f; `Update.back` turns it into that before the update, but for what goes
through g(θ), and gives c = ∂f/∂g: the rest is Σ_i w_i ∇²ℓ_i c / B to be added to ∂f/∂θ, and ⟨c, ∇ℓ_i⟩/B is ∂f/∂w_i.

At v' = 0, where AdamW's root has no derivative, that of the root is taken as 0: there the gradient has been 0 ever
since.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.card import Recipe
from attriboard.contracts.run import TrainingState

Stack = dict[str, Tensor]
"""Name → (k, *shape)."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of every recipe with AdamW."""


@dataclass
class Adjoint:
    """Derivatives of k functions with respect to a state: `parameters`, and one stack for each moment."""

    parameters: Stack
    moments: tuple[Stack, ...]


class Update(ABC):
    """An optimizer of a recipe.

    Args:
        recipe: whose numbers it has.
    """

    n_moments: int

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def forth(self, state: TrainingState, gradient: Mapping[str, Tensor], rate: float) -> TrainingState:
        """The state after the update."""

    @abstractmethod
    def back(self, adjoint: Adjoint, state: TrainingState, gradient: Mapping[str, Tensor], rate: float) -> Stack:
        """Take the adjoint back, in place, and return c.

        Args:
            adjoint: of the state after the update.
            state: before the update.
            gradient: of the batch's loss at `state`; only where `needs_gradient`.
            rate: η.
        """

    @abstractmethod
    def finish(self, adjoint: Adjoint) -> None:
        """What is left to do once c is no longer needed."""

    @property
    def needs_gradient(self) -> bool:
        """Whether `back` looks at the gradient."""
        return self.recipe.clip_norm is not None

    def clipped(self, gradient: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scaled down as `torch.nn.utils.clip_grad_norm_` does."""
        scale = self._scale(gradient)[0]
        return {name: value * scale for name, value in gradient.items()}

    def _scale(self, gradient: Mapping[str, Tensor]) -> tuple[float, float]:
        """The factor, and the norm; 1 and 0 where nothing is clipped."""
        if self.recipe.clip_norm is None:
            return 1.0, 0.0
        norm = float(torch.stack([value.norm() for value in gradient.values()]).norm())
        factor = self.recipe.clip_norm / (norm + 1e-6)
        return (factor, norm) if factor < 1 else (1.0, 0.0)

    def _before_clipping(self, c: Stack, gradient: Mapping[str, Tensor]) -> Stack:
        """∂f/∂g from that with respect to the clipped gradient, in place."""
        factor, norm = self._scale(gradient)
        if norm:
            along = sum((c[name] * gradient[name]).flatten(1).sum(1) for name in c)
            assert isinstance(along, Tensor)
            for name, value in c.items():
                shape = (-1, *[1] * (value.dim() - 1))
                value.mul_(factor).sub_(along.view(shape) * gradient[name], alpha=factor / (norm * (norm + 1e-6)))
        return c


class SGDUpdate(Update):
    """SGD, with or without momentum."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.n_moments = 1 if recipe.momentum else 0

    def forth(self, state: TrainingState, gradient: Mapping[str, Tensor], rate: float) -> TrainingState:
        """See `Update`."""
        recipe, clipped = self.recipe, self.clipped(gradient)
        change = {name: g + recipe.weight_decay * state.parameters[name] for name, g in clipped.items()}
        if recipe.momentum:
            change = {name: recipe.momentum * state.moments[0][name] + g for name, g in change.items()}
        moved = {name: state.parameters[name] - rate * v for name, v in change.items()}
        moments = (change,) if recipe.momentum else ()
        return TrainingState(state.step + 1, {**state.parameters, **moved}, moments, state.buffers)

    def back(self, adjoint: Adjoint, state: TrainingState, gradient: Mapping[str, Tensor], rate: float) -> Stack:
        """See `Update`; with momentum c is the velocity's own stack."""
        if self.recipe.momentum:
            c = adjoint.moments[0]
            for name, value in c.items():
                value.sub_(adjoint.parameters[name], alpha=rate)
        else:
            c = {name: value * -rate for name, value in adjoint.parameters.items()}
        if self.recipe.weight_decay:
            for name, value in adjoint.parameters.items():
                value.add_(c[name], alpha=self.recipe.weight_decay)
        if self.recipe.clip_norm is None:
            return c
        return self._before_clipping({name: value.clone() for name, value in c.items()}, gradient)

    def finish(self, adjoint: Adjoint) -> None:
        """See `Update`."""
        for stack in adjoint.moments:
            for value in stack.values():
                value.mul_(self.recipe.momentum)


class AdamWUpdate(Update):
    """AdamW."""

    n_moments = 2
    needs_gradient = True

    def forth(self, state: TrainingState, gradient: Mapping[str, Tensor], rate: float) -> TrainingState:
        """See `Update`."""
        (β1, β2), t, clipped = BETAS, state.step + 1, self.clipped(gradient)
        first = {name: β1 * state.moments[0][name] + (1 - β1) * g for name, g in clipped.items()}
        second = {name: β2 * state.moments[1][name] + (1 - β2) * g * g for name, g in clipped.items()}
        moved = {}
        for name, m in first.items():
            step = (m / (1 - β1**t)) / ((second[name] / (1 - β2**t)).sqrt() + EPSILON)
            moved[name] = (1 - rate * self.recipe.weight_decay) * state.parameters[name] - rate * step
        return TrainingState(t, {**state.parameters, **moved}, (first, second), state.buffers)

    def back(self, adjoint: Adjoint, state: TrainingState, gradient: Mapping[str, Tensor], rate: float) -> Stack:
        """See `Update`."""
        (β1, β2), t, clipped = BETAS, state.step + 1, self.clipped(gradient)
        after = self.forth(state, gradient, rate)
        c = {}
        for name, of_parameter in adjoint.parameters.items():
            g, root = clipped[name], (after.moments[1][name] / (1 - β2**t)).sqrt()
            m = after.moments[0][name] / (1 - β1**t)
            slope = (rate * m / (root + EPSILON).square() / (2 * root * (1 - β2**t))).masked_fill(root == 0, 0)
            first = adjoint.moments[0][name].sub_(of_parameter * (rate / (1 - β1**t) / (root + EPSILON)))
            second = adjoint.moments[1][name].add_(of_parameter * slope)
            c[name] = first * (1 - β1) + second * (2 * (1 - β2) * g)
            first.mul_(β1)
            second.mul_(β2)
            of_parameter.mul_(1 - rate * self.recipe.weight_decay)
        return self._before_clipping(c, gradient)

    def finish(self, adjoint: Adjoint) -> None:
        """Nothing."""


def update_of(recipe: Recipe) -> Update:
    """The update of a recipe.

    Raises:
        NotApplicableError: there is none, or its products have a lower precision.
    """
    if recipe.precision != "float32":
        raise NotApplicableError(f"training has products in {recipe.precision}: its updates cannot be followed")
    if recipe.optimizer == "none":
        raise NotApplicableError("the models were trained elsewhere: there is no run to follow")
    return AdamWUpdate(recipe) if recipe.optimizer == "adamw" else SGDUpdate(recipe)
