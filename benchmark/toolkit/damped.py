"""The damped Gauss–Newton quadratic of every test point, in EK-FAC's eigenbases.

    ½ xᵀ (C + D) x − xᵀ g',   C = E_i[J_iᵀ (∂²ℓ_i/∂z²) J_i],  D = λI, or a λ of its own for every layer

over the parameters of matrix layers. Vectors are coordinates x (n_test, P, Q) of every layer in its eigenbasis, where
EK-FAC's (Λ + λ)⁻¹ is a division. C is made of products alone and couples layers, which EK-FAC does not.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit import needs
from attriboard.toolkit.batches import BatchLosses
from attriboard.toolkit.effort import PRODUCT, forward_operations
from attriboard.toolkit.eigenbasis import Model
from attriboard.toolkit.factored import working_precision
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.kronecker_influence import Block, MatrixLayers, fit_model
from attriboard.toolkit.layerwise import MatrixLayout, layer_damping, matrix_layout

SOLVE_BYTES = 2**30
"""Memory for the vectors of the test points that are solved together."""

VECTORS = 10
"""Vectors that a solver holds for each test point, with what a product needs."""

Coordinates = dict[str, Tensor]
"""Layer → (k, P, Q)."""


@dataclass(frozen=True)
class DampedCurvature:
    """C, D and g' of one checkpoint.

    Attributes:
        model: the fitted eigenbases, with EK-FAC's Λ.
        losses: where products with C come from.
        layout: how layers make up parameters.
    """

    model: Model
    losses: BatchLosses
    layout: MatrixLayout

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the matrix layers."""
        return tuple(self.model.layers)

    def damping(self, regularization: float | None) -> dict[str, float]:
        """λ of every layer."""
        return {name: layer_damping(regularization, one.curvature.mean) for name, one in self.model.layers.items()}

    def preconditioner(self, regularization: float | None) -> Coordinates:
        """EK-FAC's 1/(Λ + λ), (P, Q); zero in directions that are numerically none at λ = 0."""
        return {
            name: layer.curvature.weights(regularization).to(self.losses.dtype)
            for name, layer in self.model.layers.items()
        }

    def groups(self) -> list[slice]:
        """All test points, as many together as are solved together."""
        n_test = len(self.model.context.test)
        size = self.losses.dtype.itemsize * sum(one.curvature.corrected.numel() for one in self.model.layers.values())
        step = max(1, SOLVE_BYTES // (VECTORS * size))
        return [slice(start, min(start + step, n_test)) for start in range(0, n_test, step)]

    def gradients(self, points: slice) -> Coordinates:
        """Test gradients g' of some test points."""
        return {name: v.to(self.losses.dtype) for name, v in self.model.coordinates(points).items()}

    def product(self, x: Coordinates, examples: Examples, damping: dict[str, float]) -> Coordinates:
        """(C + D) x, C the mean over some examples."""
        bases = {name: layer.basis for name, layer in self.model.layers.items()}
        k = len(next(iter(x.values())))
        matrices = {
            name: bases[name].gradients(value).view(k, len(bases[name].deltas), len(bases[name].inputs))
            for name, value in x.items()
        }
        directions = self.layout.parameters(matrices)
        into = {name: torch.zeros_like(value) for name, value in directions.items()}
        rows = self.losses.rows(k)
        for start in range(0, len(examples), rows):
            batch = self.losses.at(self.model.checkpoint.parameters, examples[start : start + rows])
            batch.add_gauss_newton(directions, into, 1 / len(examples))
        found = self.layout.layers(into)
        result = {}
        for name, basis in bases.items():
            U_A, U_S = basis.inputs.to(found[name]), basis.deltas.to(found[name])
            result[name] = (U_A.T @ found[name].transpose(1, 2) @ U_S).add_(x[name], alpha=damping[name])
        return result

    def scores(self, solved: Coordinates) -> Tensor:
        """−G x, (n_test, n_train)."""
        return self.model.contracted(solved)

    def empty(self) -> Coordinates:
        """Room for the solutions of all test points."""
        n_test = len(self.model.context.test)
        shapes = {name: layer.curvature.corrected.shape for name, layer in self.model.layers.items()}
        return {name: torch.empty(n_test, *shape, device=self.model.context.device) for name, shape in shapes.items()}


@dataclass(frozen=True)
class DampedSolver(ABC):
    """One checkpoint, ready for every λ.

    Attributes:
        curvature: the quadratic.
    """

    curvature: DampedCurvature

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the matrix layers."""
        return self.curvature.layers

    @property
    def spectrum(self) -> None:
        """Nobody knows C's eigenvalues."""
        return None

    def scores(self, regularization: float | None, **values: Any) -> Tensor:
        """−G x, (n_test, n_train)."""
        solved = self.curvature.empty()
        damping, inverse = self.curvature.damping(regularization), self.curvature.preconditioner(regularization)
        for rows in track(self.curvature.groups(), "test points"):
            for name, value in self.solve(self.curvature.gradients(rows), damping, inverse, **values).items():
                solved[name][rows] = value
        return self.curvature.scores(solved)

    @abstractmethod
    def solve(
        self, b: Coordinates, damping: dict[str, float], inverse: Coordinates, *args: Any, **values: Any
    ) -> Coordinates:
        """Approximate solutions x of (C + D) x = b for some test points, from EK-FAC's on.

        Args:
            b: test gradients g'.
            damping: λ of every layer.
            inverse: EK-FAC's 1/(Λ + λ), (P, Q).
            args: none.
            values: the method's other score-stage values.
        """


class DampedInfluence(MatrixLayers):
    """A method whose fits are `DampedSolver`s."""

    def memory_need(self, context: Context, **values: Any) -> dict[str, int] | None:
        """Those of EK-FAC, and the solver's vectors."""
        need = super().memory_need(context, **values)
        return None if need is None else {**need, **damped_need(context)}

    def work_need(
        self, context: Context, *, max_iterations: int, batch_size: int | None, checkpoints: int, **others: Any
    ) -> dict[str, float]:
        """One Gauss–Newton product for each test point and step, into the parameters' basis and back.

        Rotations count with half of each layer's inputs: constant ones, as at the border of images, are left out.
        """
        examples = min(batch_size or len(context.train), len(context.train))
        points = checkpoints * max_iterations * len(context.test)
        sizes = needs.linear_sizes(context.model) or []
        rotations = sum(2 * 2 * (d_in // 2) * d_out * (d_in + d_out) for d_in, d_out in sizes)
        return {
            "Gauss–Newton products": PRODUCT * forward_operations(context) * examples * points,
            "rotations": rotations * points,
        }


def fit_damped(
    context: Context, checkpoint: Checkpoint, sizes: dict[str, tuple[int, int]], blocks: dict[str, Block]
) -> DampedCurvature:
    """One checkpoint's, from EK-FAC's blocks.

    Raises:
        NotApplicableError: a curvature is zero or not finite, or the model cannot be differentiated.
    """
    layout = matrix_layout(context, checkpoint, sizes)
    losses = BatchLosses(context, checkpoint, tuple(layout.shapes), working_precision(context))
    return DampedCurvature(fit_model(context, checkpoint, sizes, blocks), losses, layout)


def dot(one: Coordinates, other: Coordinates) -> Tensor:
    """⟨x, y⟩ of every test point, (k,), float64."""
    pairs = ((one[name].flatten(1), other[name].flatten(1)) for name in one)
    return torch.stack([torch.linalg.vecdot(x, y).double() for x, y in pairs]).sum(0)


def damped_need(context: Context) -> dict[str, int]:
    """Solutions and test gradients of all test points, and the vectors of those that are solved together."""
    numbers = len(context.test) * count_parameters(context)
    return {
        "test gradients and solutions": 3 * needs.DOUBLE * numbers,
        "vectors of the solver": min(2 * SOLVE_BYTES, 2 * VECTORS * needs.DOUBLE * numbers),
        "Gauss–Newton products": needs.sweep(context, len(context.test)),
    }
