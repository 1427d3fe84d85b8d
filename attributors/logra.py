"""LoGra: influence functions on gradients projected as a Kronecker product per layer.

Choe et al., "What is Your Data Worth to GPT? LLM-Scale Data Valuation with Influence Functions" (arXiv 2405.13954):

    τ_λ(z', i) = −Σ_layers φ(z_i)ᵀ (ΦᵀΦ/n + λI)⁻¹ φ(z'),   averaged over checkpoints

A gradient of a linear layer is an outer product δ aᵀ, with a the layer's input and a 1 appended to it where there is
a bias; φ = (P_o δ) ⊗ (P_i a) costs no more than the two small projections, and Φ (n_train, k_in · k_out) holds the φ
of the training losses. The curvature is the empirical Fisher matrix of the projected gradients, one block per layer,
as in the authors' library, logix.

Random P have orthonormal rows, scaled by √(d/k) so that inner products are kept in expectation: with k_in = d_in and
k_out = d_out nothing is lost, and a network of one layer gets `iffim`'s scores. `initialization = pca` takes the
leading eigenvectors of E[a aᵀ] and E[δ δᵀ], unscaled.

Deviations: the test side is the gradient of the attributed f; biases are projected with the weights (logix ignores
them); sides smaller than k are kept whole, one by one (logix cuts both to the smaller); P is orthogonal, not uniform.
λ is absolute here; logix's default, a tenth of each layer's mean eigenvalue, is λ = none. dattri's damping is always
relative: λ = damping × mean eigenvalue of the layer. Linear layers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, sqrt
from typing import Literal

import torch
from torch import Tensor

from attriboard.contracts import Attributor, Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs
from attriboard.toolkit.gradients import LayerFactors, linear_factors
from attriboard.toolkit.kernel import cross_kernel, gram_kernel
from attriboard.toolkit.layerwise import layer_damping, layer_regularization, with_bias
from attriboard.toolkit.spectrum import KernelSolution, Spectrum, solve_features, solve_kernel

__all__ = ["LoGra"]


@dataclass(frozen=True)
class Layer:
    """One layer's solved kernel, and the mean of all k_in · k_out eigenvalues of its Fisher block."""

    solution: KernelSolution
    mean: float


class LoGra(Attributor):
    """Influence functions with low-rank projected gradients."""

    name = "logra"
    paper = "arXiv:2405.13954"
    family = "influence function"
    hyperparameters = (
        layer_regularization(
            "regularization", None, "logix: damping=None, 0.1 × the mean eigenvalue of a layer's covariance"
        ),
        Hyperparameter(
            "projection_dim",
            4096,
            "logix: LoRAConfig.rank=64 on both sides of a layer",
            optional=True,
            minimum=1,
            grid=(16, 64, 256, 1024, 4096),
            description="dimension of a layer's projected gradients, k² with k on either side; none for no projection",
        ),
        Hyperparameter(
            "initialization",
            "random",
            "logix: LoRAConfig.init='random'",
            choices=("random", "pca"),
            grid=("random", "pca"),
            description="random projections, or leading eigenvectors of the layer's inputs and output gradients",
        ),
        knobs.checkpoints(1, "dattri's benchmark: one model trained on all data"),
        knobs.epoch(),
    )

    def fit(
        self,
        context: Context,
        *,
        projection_dim: int | None,
        initialization: Literal["random", "pca"],
        checkpoints: int,
        epoch: int | None,
    ) -> list[list[Layer]]:
        """Solve the projected kernel of every checkpoint's layers."""
        rank = None if projection_dim is None else isqrt(projection_dim)
        generator = torch.Generator().manual_seed(context.seed)
        return [
            fit_layers(context, checkpoint, rank, None if initialization == "pca" else generator)
            for checkpoint in context.select_checkpoints(checkpoints, epoch=epoch)
        ]

    def score(self, state: list[list[Layer]], *, regularization: float | None) -> Tensor:
        """Sum over layers, average over checkpoints."""
        layers = [layer for checkpoint in state for layer in checkpoint]
        parts = (layer.solution.scores(layer_damping(regularization, layer.mean)) for layer in layers)
        scores = next(parts)
        for part in parts:
            scores += part
        return scores.div_(len(state))

    def spectrum(self, state: list[list[Layer]]) -> list[Spectrum]:
        """Of each checkpoint's block-diagonal Fisher matrix: the layers' spectra side by side."""
        return [side_by_side([layer.solution.spectrum for layer in layers]) for layers in state]


def fit_layers(
    context: Context, checkpoint: Checkpoint, rank: int | None, generator: torch.Generator | None
) -> list[Layer]:
    """Every layer of one checkpoint; without a generator, projections are principal components."""
    train = linear_factors(context, checkpoint, context.loss, context.train)
    test = linear_factors(context, checkpoint, context.target, context.test)
    layers = []
    for one, other in zip(train, test, strict=True):
        inputs, other_inputs = with_bias(one), with_bias(other)
        P_i, P_o = (projection(side, rank, generator) for side in (inputs, one.deltas))
        projected = LayerFactors(inputs @ P_i, one.deltas @ P_o, bias=False)
        points = LayerFactors(other_inputs @ P_i, other.deltas @ P_o, bias=False)
        layers.append(solve_layer(projected, points))
    return layers


def solve_layer(train: LayerFactors, test: LayerFactors) -> Layer:
    """Decompose the smaller of ΦᵀΦ/n and ΦΦᵀ/n; Φ is only written out where it is narrower than n_train."""
    n, dimension = len(train.inputs), train.inputs.shape[1] * train.deltas.shape[1]
    if dimension >= n:
        solution = solve_kernel(gram_kernel([train]), cross_kernel([train], [test]))
    else:
        solution = solve_features(outer_products(train), outer_products(test))
    return Layer(solution.single(), float(solution.spectrum.eigenvalues.sum()) / dimension)


def projection(side: Tensor, rank: int | None, generator: torch.Generator | None) -> Tensor:
    """P transposed, (d, k), for one side (n, d) of a layer."""
    d = side.shape[1]
    k = d if rank is None else min(rank, d)
    if k == d:
        return torch.eye(d, dtype=side.dtype, device=side.device)
    basis: Tensor
    if generator is None:
        basis = torch.linalg.eigh(side.T @ side)[1]
        return basis[:, d - k :]
    basis = torch.linalg.qr(torch.randn(d, k, generator=generator, dtype=torch.float64))[0]
    return basis.to(side) * sqrt(d / k)


def outer_products(factors: LayerFactors) -> Tensor:
    """Flat gradients (n, d_in · d_out)."""
    return (factors.inputs[:, :, None] * factors.deltas[:, None, :]).flatten(1)


def side_by_side(spectra: list[Spectrum]) -> Spectrum:
    """The spectrum of a block-diagonal matrix, descending."""
    eigenvalues, order = torch.cat([one.eigenvalues for one in spectra]).sort(descending=True)
    coefficients = torch.cat([one.coefficients for one in spectra], dim=1)[:, order]
    remainders = [one.remainder for one in spectra if one.remainder is not None]
    remainder = torch.stack(remainders).norm(dim=0) if remainders else None
    return Spectrum(eigenvalues, coefficients, spectra[0].n_train, remainder, max(one.floor for one in spectra))
