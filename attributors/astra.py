"""ASTRA: the damped Gauss–Newton system by stochastic descent, preconditioned by EK-FAC.

Wang et al., "Better Training Data Attribution via Better Inverse Hessian-Vector Products" (arXiv 2507.14740):

    x₀ = P g',   v ← β v + P ((C_B + λI) x − g'),   x ← x − η v,   P = (Û Λ Ûᵀ + λI)⁻¹ of EK-FAC
    τ_λ(z', i) = −g_iᵀ x,   averaged over checkpoints

with C_B the Gauss–Newton matrix of a batch, another one in each step: Neumann series iterations, as the paper calls
them, which are gradient steps on the quadratic that `ekfac_cg` minimizes. With all examples in every batch both end at
(C + λI)⁻¹ g'.

Deviations: all test points see the same batches, which are drawn once for every λ; the learning rate is constant, and
ours. λ is absolute; the test side is the gradient of the attributed f. Layers that are not one matrix product are left
out, as in `ekfac`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attriboard.attributors.ekfac import ekfac_blocks
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.progress import track
from attriboard.toolkit import knobs
from attriboard.toolkit.damped import Coordinates, DampedCurvature, damped_need, fit_damped
from attriboard.toolkit.eigenbasis import Fisher, MatrixLayers, fisher_labels
from attriboard.toolkit.layerwise import layer_regularization, matrix_layers


@dataclass(frozen=True)
class Descent:
    """One checkpoint, ready for every λ.

    Attributes:
        curvature: the quadratic.
        batches: rows of the training examples, (steps, B).
        learning_rate: η.
        momentum: β.
    """

    curvature: DampedCurvature
    batches: Tensor
    learning_rate: float
    momentum: float

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the matrix layers."""
        return self.curvature.layers

    @property
    def spectrum(self) -> None:
        """Nobody knows C's eigenvalues."""
        return None

    def scores(self, regularization: float | None) -> Tensor:
        """−G x, (n_test, n_train)."""
        solved = self.curvature.empty()
        for rows, gradients in track(list(self.curvature.gradients()), "test points"):
            for name, value in self._descend(gradients, regularization).items():
                solved[name][rows] = value
        return self.curvature.scores(solved)

    def _descend(self, b: Coordinates, regularization: float | None) -> Coordinates:
        """All steps for some test points."""
        curvature, damping = self.curvature, self.curvature.damping(regularization)
        inverse = curvature.preconditioner(regularization)
        x = {name: value * inverse[name] for name, value in b.items()}
        velocity = {name: torch.zeros_like(value) for name, value in x.items()}
        train = curvature.model.context.train
        for batch in track(list(self.batches), "steps"):
            product = curvature.product(x, train[batch.to(train.inputs.device)], damping)
            for name, value in x.items():
                velocity[name].mul_(self.momentum).add_(product[name].sub_(b[name]).mul_(inverse[name]))
                value.sub_(velocity[name], alpha=self.learning_rate)
        return x


class ASTRA(MatrixLayers):
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
            0.01,
            "ours: a tenth of a step in all, with the momentum",
            minimum=0.0,
            grid=(0.003, 0.01, 0.03, 0.1),
            description="η of the preconditioned steps",
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
        learning_rate: float,
        momentum: float,
        fisher: Fisher,
    ) -> Descent:
        """EK-FAC, and the batches of all steps."""
        sizes = matrix_layers(context, checkpoint)
        curvature = fit_damped(context, checkpoint, sizes, ekfac_blocks(context, checkpoint, sizes, fisher))
        return Descent(curvature, draw_batches(context, stream, max_iterations, batch_size), learning_rate, momentum)

    def memory_need(self, context: Context, **values: Any) -> dict[str, int] | None:
        """Those of EK-FAC, and the solver's vectors."""
        need = super().memory_need(context, **values)
        return None if need is None else {**need, **damped_need(context)}


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
