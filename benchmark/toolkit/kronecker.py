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
        a, δ = factors.extended, factors.deltas
        return LayerFactors(a @ self.inputs.to(a), δ @ self.deltas.to(δ), bias=False)

    def coordinates(self, factors: LayerFactors) -> Tensor:
        """Coordinates v (n, P, Q), by way of factors or of gradients, whichever takes fewer multiplications."""
        T = factors.deltas.shape[1] if factors.deltas.dim() == 3 else 1
        (d_in, P), (d_out, Q) = self.inputs.shape, self.deltas.shape
        if T * (d_in * P + d_out * Q + P * Q) <= d_in * d_out * T + d_in * d_out * Q + d_in * P * Q:
            return self.rotate(factors).matrices().transpose(1, 2)
        gradients = factors.matrices().transpose(1, 2)
        return self.inputs.to(gradients).T @ (gradients @ self.deltas.to(gradients))

    def gradients(self, coordinates: Tensor) -> Tensor:
        """Back: (n, P, Q) → flat (n, d_out · d_in), as `LayerFactors.dense` has them."""
        U_A, U_S = self.inputs.to(coordinates), self.deltas.to(coordinates)
        return (U_S @ (U_A @ coordinates).transpose(1, 2)).flatten(1)

    def squares(self, factors: LayerFactors, weights: Tensor, scale: Tensor | None = None) -> Tensor:
        """Σ_i w_i v_i², (P, Q), float64; of gradients times `scale` (d_out, d_in), element by element, if given."""
        if scale is not None:
            gradients = factors.matrices()
            scaled = (gradients * scale.to(gradients)).transpose(1, 2)
            v = self.inputs.to(scaled).T @ (scaled @ self.deltas.to(scaled))
            return torch.einsum("npq,n->pq", v.square_(), weights.to(v)).double()
        if factors.deltas.dim() == 2:
            rotated = self.rotate(factors)
            return rotated.inputs.square().double().T @ (rotated.deltas.square().double() * weights[:, None])
        v = self.coordinates(factors)
        return torch.einsum("npq,n->pq", v.square_(), weights.to(v)).double()


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
    for draw in draws:
        for weights, chunk in weighted_factors(context, checkpoint, draw, bases):
            for name, factors in chunk.items():
                squares = bases[name].squares(factors, weights, scales.get(name)).div_(n)
                totals[name] = totals[name] + squares if name in totals else squares
    return totals


def gradient_moments(
    context: Context, checkpoint: Checkpoint, draws: Sequence[Draw], layers: Collection[str]
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """E[G Gᵀ] (d_out, d_out), E[Gᵀ G] (d_in, d_in) and E[G] (d_out, d_in) of matrix layers, float64.

    Means over training examples, sums over draws.
    """
    n = len(context.train)
    moments: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for draw in draws:
        for weights, chunk in weighted_factors(context, checkpoint, draw, layers):
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
