"""ASTRA: the damped Gauss–Newton system by stochastic descent, preconditioned by EK-FAC.

Wang et al., "Better Training Data Attribution via Better Inverse Hessian-Vector Products" (arXiv 2507.14740):

    x₀ = P g',   v ← β v + P ((C_B + λI) x − g'),   x ← x − η v,   P = (Û Λ Ûᵀ + λI)⁻¹ of EK-FAC
    τ_λ(z', i) = −g_iᵀ x,   averaged over checkpoints

with C_B the Gauss–Newton matrix of a batch, another one in each step: Neumann series iterations, as the paper calls
them, which are gradient steps on the quadratic that `ekfac_cg` minimizes. With all examples in every batch both end at
(C + λI)⁻¹ g'.

η falls linearly from η₀ to 0. The default is η₀ = (1 − β)/L, with L the largest eigenvalue of P (C_B + λI) that power
iterations find in a few of the batches. Batches are far from their mean: on digits_mlp L is 10 for all examples, but
24 to 131 for batches of 16, whose matrix has the few directions of 16 examples, sixteenfold. A step is a contraction
in mean square while η/(1 − β) ≤ 1/L, by E(I − ηM)² ≼ I − η(2 − ηL) E M for M = P^½ (C_B + λI) P^½ ≼ L; and with η
going to 0 the noise of the batches averages out.

Deviations: all test points see the same batches, which are drawn once for every λ; the learning rate is ours, since a
constant .01 diverges on digits_mlp. λ is absolute; the test side is the gradient of the attributed f. Layers that are
not one matrix product are left out, as in `ekfac`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attriboard.attributors.ekfac import ekfac_blocks
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs
from attriboard.toolkit.damped import Coordinates, DampedInfluence, DampedSolver, dot, fit_damped
from attriboard.toolkit.kronecker_influence import Fisher, fisher_labels
from attriboard.toolkit.layerwise import layer_regularization, matrix_layers

MEASURED_BATCHES = 8
"""Batches whose largest eigenvalue is measured."""

POWER_ITERATIONS = 12
"""For each of them."""


@dataclass(frozen=True)
class Descent(DampedSolver):
    """One checkpoint.

    Attributes:
        batches: rows of the training examples, (steps, B).
        learning_rate: η₀; `None` for (1 − β)/L.
        momentum: β.
        seed: of the vectors that estimate L.
    """

    batches: Tensor
    learning_rate: float | None
    momentum: float
    seed: int

    def solve(
        self, b: Coordinates, damping: dict[str, float], inverse: Coordinates, *args: Any, **values: Any
    ) -> Coordinates:
        """All steps for some test points."""
        rate, steps = self.learning_rate, len(self.batches)
        if rate is None:
            rate = (1 - self.momentum) / self.largest_eigenvalue(damping, inverse)
        x = {name: value * inverse[name] for name, value in b.items()}
        velocity = {name: torch.zeros_like(value) for name, value in x.items()}
        for step, batch in enumerate(track(list(self.batches), "steps")):
            product = self.curvature.product(x, self._examples(batch), damping)
            for name, value in x.items():
                velocity[name].mul_(self.momentum).add_(product[name].sub_(b[name]).mul_(inverse[name]))
                value.sub_(velocity[name], alpha=rate * (1 - step / steps))
        return x

    def largest_eigenvalue(self, damping: dict[str, float], inverse: Coordinates) -> float:
        """L of P (C_B + D), the largest among a few batches, by power iterations."""
        generator = torch.Generator().manual_seed(self.seed)
        roots = {name: value.sqrt() for name, value in inverse.items()}
        largest = 0.0
        for batch in self.batches[:MEASURED_BATCHES]:
            examples, size = self._examples(batch), 1.0
            u = {
                name: torch.randn(1, *root.shape, generator=generator, dtype=root.dtype).to(root.device)
                for name, root in roots.items()
            }
            for _ in range(POWER_ITERATIONS):
                product = self.curvature.product(
                    {name: u[name] * root / size for name, root in roots.items()}, examples, damping
                )
                u = {name: product[name] * root for name, root in roots.items()}
                size = float(dot(u, u).sqrt())
                if not size > 0:
                    break
            largest = max(largest, size)
        return largest or 1.0

    def _examples(self, batch: Tensor) -> Examples:
        train = self.curvature.model.context.train
        return train[batch.to(train.inputs.device)]


class ASTRA(DampedInfluence):
    """Stochastic descent on the Gauss–Newton quadratic, preconditioned by EK-FAC."""

    name = "astra"
    paper = "arXiv:2507.14740"
    family = "influence function"
    hyperparameters = (
        layer_regularization(0.011, "arXiv 2507.14740, as its implementations have it: damping .011", every=2),
        Hyperparameter(
            "max_iterations",
            300,
            "arXiv 2507.14740: 300 steps",
            minimum=1,
            grid=(50, 100, 300, 1000),
            description="steps of descent, each one product with the Gauss–Newton matrix of a batch",
        ),
        Hyperparameter(
            "batch_size",
            16,
            "arXiv 2507.14740: 16",
            minimum=1,
            grid=(4, 16, 64, 256),
            description="training examples in each step",
        ),
        Hyperparameter(
            "learning_rate",
            None,
            "ours: (1 − momentum)/L, with L measured, is stable for every λ and batch size",
            type=float,
            minimum=0.0,
            grid=(1e-4, 3e-4, 1e-3, 3e-3, 0.01),
            description="η of the first preconditioned step, which falls linearly to 0; none for (1 − momentum)/L",
        ),
        Hyperparameter(
            "momentum",
            0.9,
            "arXiv 2507.14740: .9",
            minimum=0.0,
            maximum=0.999,
            grid=(0.0, 0.9),
            description="β of the steps",
        ),
        fisher_labels("true", "arXiv 2308.03296: the Fisher matrix of the preconditioner"),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self,
        context: Context,
        checkpoint: Checkpoint,
        stream: int,
        *,
        max_iterations: int,
        batch_size: int,
        learning_rate: float | None,
        momentum: float,
        fisher: Fisher,
    ) -> Descent:
        """EK-FAC, and the batches of all steps."""
        sizes = matrix_layers(context, checkpoint)
        curvature = fit_damped(context, checkpoint, sizes, ekfac_blocks(context, checkpoint, sizes, fisher))
        batches = draw_batches(context, stream, max_iterations, batch_size)
        return Descent(curvature, batches, learning_rate, momentum, context.seed + stream)


def draw_batches(context: Context, stream: int, steps: int, size: int) -> Tensor:
    """Rows of every step's batch, (steps, B): an epoch after the other, each in an order of its own."""
    n = len(context.train)
    size = min(size, n)
    generator = torch.Generator().manual_seed(context.seed + stream)
    found: list[Tensor] = []
    while len(found) < steps:
        order = torch.randperm(n, generator=generator)
        found += [rows.sort()[0] for rows in torch.split(order, size) if len(rows) == size]
    return torch.stack(found[:steps])
