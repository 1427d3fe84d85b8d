"""A recipe's optimizer and its epochs, for all trainers."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import torch

from attriboard.contracts.card import Recipe


def finished_epochs(steps: Iterable[int], per_epoch: int, wanted: Collection[int]) -> Iterator[int]:
    """The wanted epochs, each as soon as its last update has been made.

    Args:
        steps: how many updates have been made, ascending by one.
        per_epoch: see `steps_per_epoch`.
        wanted: epochs, from 1 on.
    """
    for done in steps:
        if done and done % per_epoch == 0 and done // per_epoch in wanted:
            yield done // per_epoch


class SGD:
    """`torch.optim.SGD` to the last bit: v ← μv + g + wd·θ, θ ← θ − ηv, where v starts as the first gradient.

    PyTorch's own imports its compiler when it is made, which takes longer than training many a small model.

    Args:
        parameters: what is trained; those without a gradient are left alone, as in PyTorch.
        lr: η, which `param_groups` has for every step.
        momentum: μ.
        weight_decay: wd.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float, momentum: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._velocities: dict[int, torch.Tensor] = {}
        self._momentum, self._weight_decay = momentum, weight_decay
        self.param_groups: list[dict[str, Any]] = [{"lr": lr}]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def moments(self) -> tuple[list[torch.Tensor], ...]:
        """The velocity of every parameter, zero before the first update; nothing without momentum."""
        if not self._momentum:
            return ()
        return ([self._velocities.get(k, torch.zeros_like(value)) for k, value in enumerate(self._parameters)],)

    def remember(self, moments: Sequence[Sequence[torch.Tensor]], step: int) -> None:
        """Go on from the moments after `step` updates."""
        if moments and step:
            self._velocities = {k: value.detach().clone() for k, value in enumerate(moments[0])}

    @torch.no_grad()
    def step(self) -> None:
        """One update."""
        for number, parameter in enumerate(self._parameters):
            change = parameter.grad
            if change is None:
                continue
            if self._weight_decay:
                change = change.add(parameter, alpha=self._weight_decay)
            if self._momentum:
                if number in self._velocities:
                    change = self._velocities[number].mul_(self._momentum).add_(change)
                else:
                    change = self._velocities[number] = change.detach().clone()
            parameter.add_(change, alpha=-self.param_groups[0]["lr"])


class AdamW(torch.optim.AdamW):
    """PyTorch's, whose moments can be read and set."""

    @property
    def _all(self) -> list[torch.Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def moments(self) -> tuple[list[torch.Tensor], ...]:
        """Both moments of every parameter, zero before the first update."""
        return tuple(
            [self.state[p].get(name, torch.zeros_like(p)) for p in self._all] for name in ("exp_avg", "exp_avg_sq")
        )

    def remember(self, moments: Sequence[Sequence[torch.Tensor]], step: int) -> None:
        """Go on from the moments after `step` updates."""
        if moments and step:
            for parameter, m, v in zip(self._all, *moments, strict=True):
                counted = torch.tensor(float(step), dtype=torch.float32)
                self.state[parameter] = {"step": counted, "exp_avg": m.clone(), "exp_avg_sq": v.clone()}


def build_optimizer(recipe: Recipe, parameters: Iterable[torch.Tensor]) -> SGD | AdamW:
    """PyTorch's optimizer for a recipe; its learning rate is for `learning_rate` to set."""
    if recipe.optimizer == "adamw":
        return AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return SGD(parameters, recipe.learning_rate, recipe.momentum, recipe.weight_decay)
