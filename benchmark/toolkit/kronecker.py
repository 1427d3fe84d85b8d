"""Kronecker-factored eigenbases of a layer's Fisher matrix.

With A = E[Σ_t a aᵀ] = U_A · U_Aᵀ and S = E[Σ_t δ δᵀ] = U_S · U_Sᵀ, a gradient Σ_t δ_t a_tᵀ has coordinates

    v = Σ_t (U_Aᵀ a_t)(U_Sᵀ δ_t)ᵀ,   (P, Q)

and Λ = E[v²], element by element, is the best diagonal in that basis. George et al., "Fast Approximate Natural
Gradient Descent in a Kronecker-factored Eigenbasis", NeurIPS 2018 (arXiv 1806.03884).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.contracts.context import Checkpoint, Context
from attriboard.toolkit.labels import Draw
from attriboard.toolkit.layers import LayerFactors
from attriboard.toolkit.layerwise import weighted_factors


@dataclass(frozen=True)
class KroneckerBasis:
    """One layer's eigenbasis: `inputs` U_A (d_in, P) and `deltas` U_S (d_out, Q), float64."""

    inputs: Tensor
    deltas: Tensor

    def rotate(self, factors: LayerFactors) -> LayerFactors:
        """The factors' coordinates: their gradients are those of the layer, rotated."""
        return self._with(self.rotate_inputs(factors), factors)

    def rotate_inputs(self, factors: LayerFactors) -> Tensor:
        """The inputs' coordinates, (n, P) or (n, T, P)."""
        a = factors.extended
        return a @ self.inputs.to(a)

    def by_factors(self, factors: LayerFactors, n_draws: int = 1) -> bool:
        """Whether coordinates take fewer multiplications by way of factors than of gradients.

        Args:
            factors: of a chunk.
            n_draws: how many labels share the rotation of the inputs.
        """
        T = factors.deltas.shape[1] if factors.deltas.dim() == 3 else 1
        (d_in, P), (d_out, Q) = self.inputs.shape, self.deltas.shape
        return T * (d_in * P / n_draws + d_out * Q + P * Q) <= d_in * d_out * T + d_in * d_out * Q + d_in * P * Q

    def coordinates(self, factors: LayerFactors) -> Tensor:
        """Coordinates v (n, P, Q)."""
        if self.by_factors(factors):
            return self.rotate(factors).matrices().transpose(1, 2)
        return self._of_gradients(factors.matrices().transpose(1, 2))

    def gradients(self, coordinates: Tensor) -> Tensor:
        """Back: (n, P, Q) → flat (n, d_out · d_in), as `LayerFactors.dense` has them."""
        U_A, U_S = self.inputs.to(coordinates), self.deltas.to(coordinates)
        return (U_S @ (U_A @ coordinates).transpose(1, 2)).flatten(1)

    def squares(
        self, factors: LayerFactors, weights: Tensor, inputs: Tensor | None = None, scale: Tensor | None = None
    ) -> Tensor:
        """Σ_i w_i v_i², (P, Q), float64.

        Args:
            factors: of n examples.
            weights: w, (n,).
            inputs: their rotated inputs; by way of gradients where `None`.
            scale: (d_out, d_in); what the gradients are multiplied by first, element by element. It needs gradients.
        """
        if inputs is None:
            gradients = factors.matrices()
            scaled = gradients if scale is None else gradients * scale.to(gradients)
            return _weighted(self._of_gradients(scaled.transpose(1, 2)).square_(), weights)
        assert scale is None, "scaled gradients are no products of factors"
        rotated = self._with(inputs, factors)
        if rotated.deltas.dim() == 2:
            return inputs.square().double().T @ (rotated.deltas.square().double() * weights[:, None])
        return _weighted(rotated.matrices().square_(), weights).T

    def _of_gradients(self, gradients: Tensor) -> Tensor:
        """Coordinates of gradients (n, d_in, d_out)."""
        return self.inputs.to(gradients).T @ (gradients @ self.deltas.to(gradients))

    def _with(self, inputs: Tensor, factors: LayerFactors) -> LayerFactors:
        """Rotated factors, of rotated inputs."""
        return LayerFactors(inputs, factors.deltas @ self.deltas.to(factors.deltas), bias=False)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Σ_i w_i x_i of x (n, …), as one product with a matrix that is not copied; float64."""
    return (weights.to(values) @ values.flatten(1)).view(values.shape[1:]).double()


def eigenbasis(A: Tensor, S: Tensor) -> KroneckerBasis:
    """The eigenvectors of both second moments, without directions in which there are no inputs.

    There every training gradient is zero, and so is their share of a score.
    """
    return eigenpairs(A, S)[0]


def eigenpairs(A: Tensor, S: Tensor) -> tuple[KroneckerBasis, Tensor]:
    """`eigenbasis`, and the products of both sides' eigenvalues, (P, Q)."""
    values, vectors = torch.linalg.eigh(A)
    others, rotation = torch.linalg.eigh(S)
    occurring = values > len(A) * torch.finfo(torch.float64).eps * values[-1]
    return KroneckerBasis(vectors[:, occurring], rotation), torch.outer(values[occurring], others.clamp_min(0))


def mean_squares(
    context: Context,
    checkpoint: Checkpoint,
    draws: Sequence[Draw],
    bases: Mapping[str, KroneckerBasis],
    scales: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """E[v²] of every layer, (P, Q), float64, mean over training examples and sum over draws.

    Of gradients times the layer's `scales` (d_out, d_in), element by element, if given.
    """
    n, scales = len(context.train), scales or {}
    totals: dict[str, Tensor] = {}
    inputs: dict[str, Tensor | None] = {}  # the same in every draw of a chunk
    for number, weights, chunk in weighted_factors(context, checkpoint, draws, bases):
        for name, factors in chunk.items():
            basis, scale = bases[name], scales.get(name)
            if number == 0:
                by_factors = scale is None and basis.by_factors(factors, len(draws))
                inputs[name] = basis.rotate_inputs(factors) if by_factors else None
            squares = basis.squares(factors, weights, inputs[name], scale).div_(n)
            totals[name] = totals[name].add_(squares) if name in totals else squares
    return totals


def gradient_moments(
    context: Context, checkpoint: Checkpoint, draws: Sequence[Draw], layers: Collection[str]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """E[G Gᵀ] (d_out, d_out), E[Gᵀ G] (d_in, d_in) and E[G] (d_out, d_in) of matrix layers, float64.

    Means over training examples, sums over draws.
    """
    n = len(context.train)
    moments: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for _, weights, chunk in weighted_factors(context, checkpoint, draws, layers):
        for name, factors in chunk.items():
            found = _moments(factors, weights / n)
            if name in moments:
                for total, part in zip(moments[name], found, strict=True):
                    total += part
            else:
                moments[name] = found
    return moments


def _moments(factors: LayerFactors, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ_i w_i G_i G_iᵀ, Σ_i w_i G_iᵀ G_i and Σ_i w_i G_i."""
    if factors.deltas.dim() == 2:
        a, δ, w = factors.extended.double(), factors.deltas.double(), weights[:, None]
        by_input, by_delta = (w * side.square().sum(1, keepdim=True) for side in (a, δ))
        return δ.T @ (δ * by_input), a.T @ (a * by_delta), (δ * w).T @ a
    G = factors.matrices().double()
    weighted = G * weights[:, None, None]
    return torch.einsum("nij,nkj->ik", weighted, G), torch.einsum("nij,nik->jk", weighted, G), weighted.sum(0)
