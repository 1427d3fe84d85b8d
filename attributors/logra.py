"""LoGra: influence functions on gradients projected as a Kronecker product per layer.

Choe et al., "What is Your Data Worth to GPT? LLM-Scale Data Valuation with Influence Functions" (arXiv 2405.13954):

    τ_λ(z', i) = −Σ_layers φ(z_i)ᵀ (ΦᵀΦ/n + λI)⁻¹ φ(z'),   averaged over checkpoints

A gradient of a linear layer is an outer product δ aᵀ, with a the layer's input and a 1 appended to it where there is
a bias; φ = (P_o δ) ⊗ (P_i a) costs no more than the two small projections, and Φ (n_train, k_in · k_out) holds the φ
of the training losses. At several positions, pixels or tokens, φ = Σ_t (P_o δ_t) ⊗ (P_i a_t). The curvature is
the empirical Fisher matrix of the projected gradients, one block per layer, as in the authors' library, logix.

Random P have orthonormal rows, scaled by √(d/k) so that inner products are kept in expectation: with k_in = d_in and
k_out = d_out nothing is lost, and a network of one layer gets `iffim`'s scores. `initialization = pca` takes the
leading eigenvectors of E[a aᵀ] and E[δ δᵀ], unscaled.

Deviations: the test side is the gradient of the attributed f; biases are projected with the weights (logix ignores
them); sides smaller than k are kept whole, one by one (logix cuts both to the smaller); P is orthogonal, not uniform.
λ is absolute here; logix's default, a tenth of each layer's mean eigenvalue, is λ = none. dattri's damping is always
relative: λ = damping × mean eigenvalue of the layer. Matrix layers only: linear layers, convolutions (a are patches)
and Conv1D whose weight no other layer shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, groupby
from math import inf, isqrt, sqrt
from typing import Literal

import torch
from torch import Tensor

from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.held import Stored, kernel_pieces
from attriboard.toolkit.kernel import add_gram, add_products
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layers import LayerFactors, LayerGradients
from attriboard.toolkit.layerwise import (
    layer_damping,
    layer_regularization,
    left_out,
    matrix_layers,
    modules_of,
    second_moments,
)
from attriboard.toolkit.spectrum import KernelSolution, solve_features, solve_kernel

Sketch = Callable[[LayerGradients], LayerGradients]
"""A matrix layer's gradients, projected."""

Projections = dict[str, tuple[Tensor | None, Tensor | None]]
"""By layer: P_i and P_o, transposed, float64."""


@dataclass(frozen=True)
class Layer:
    """One layer's solved kernel, and the mean of all k_in · k_out eigenvalues of its Fisher block."""

    solution: KernelSolution
    mean: float


@dataclass(frozen=True)
class Layers:
    """One checkpoint's, by name."""

    layers: dict[str, Layer]

    @property
    def spectrum(self) -> Spectrum:
        """Of the block-diagonal Fisher matrix: the layers' spectra side by side."""
        return side_by_side([layer.solution.spectrum for layer in self.layers.values()])

    def scores(self, regularization: float | None) -> Tensor:
        """The sum over layers."""
        first, *others = (
            layer.solution.scores(layer_damping(regularization, layer.mean)) for layer in self.layers.values()
        )
        for one in others:
            first += one
        return first


class LoGra(MeanOfFits):
    """Influence functions with low-rank projected gradients."""

    name = "logra"
    paper = "arXiv:2405.13954"
    family = "influence function"
    hyperparameters = (
        layer_regularization(None, "logix: damping=None, 0.1 × the mean eigenvalue of a layer's covariance"),
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
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self,
        context: Context,
        checkpoint: Checkpoint,
        stream: int,
        *,
        projection_dim: int | None,
        initialization: Literal["random", "pca"],
    ) -> Layers:
        """Solve the projected kernels of one checkpoint's layers."""
        rank = None if projection_dim is None else isqrt(projection_dim)
        projections = draw_projections(context, checkpoint, rank, initialization, stream)

        def project(sides: tuple[Tensor | None, Tensor | None]) -> Sketch:
            return lambda layer: projected(layer, *sides)

        return fit_layers(context, checkpoint, {name: project(sides) for name, sides in projections.items()})

    def memory_need(
        self, context: Context, *, projection_dim: int | None, checkpoints: int, **others: object
    ) -> dict[str, int] | None:
        """Factors of every layer, one layer's kernel at work, and the solutions of all."""
        return projected_need(context, projection_dim, checkpoints)

    def notes(self, state: Fits) -> tuple[str, ...]:
        """Which parameters are left out."""
        return left_out(state.context, state.models[0].layers)


def draw_projections(
    context: Context, checkpoint: Checkpoint, rank: int | None, initialization: str, stream: int
) -> Projections:
    """P_i and P_o of every matrix layer, transposed; `None` where nothing is lost without one."""
    sizes = matrix_layers(context, checkpoint)
    if rank is not None and initialization == "pca":
        moments = second_moments(context, checkpoint, labelled(context, checkpoint, own=False), sizes)
        return {name: (components(A, rank), components(S, rank)) for name, (A, S) in moments.items()}
    generator = torch.Generator().manual_seed(context.seed)
    projections: Projections = {}
    for _ in range(stream + 1):  # one stream of random numbers for all models
        for name, (d_in, d_out) in sizes.items():
            projections[name] = projection(d_in, rank, generator), projection(d_out, rank, generator)
    return projections


def projected_need(
    context: Context, projection_dim: int | None, checkpoints: int, *, square: bool = True
) -> dict[str, int] | None:
    """What `fit_layers` and the scores hold.

    Args:
        context: data and model.
        projection_dim: of a layer.
        checkpoints: how many models.
        square: whether it is k² with k on either side of a layer.
    """
    sizes = needs.linear_sizes(context.model)
    if sizes is None:
        return None
    n, most = len(context.train), inf if projection_dim is None else projection_dim
    rank = inf if projection_dim is None or not square else isqrt(projection_dim)
    dimensions = [int(min(min(d_in, rank) * min(d_out, rank), most)) for d_in, d_out in sizes]
    sides = [min(n, dimension) for dimension in dimensions]
    solutions = sum(needs.FLOAT * n * side + 2 * needs.pairs(context, needs.DOUBLE) for side in sides)
    return {
        "factors": needs.factors(context, sizes),
        "projected gradients": max(needs.features(context, side) for side in sides),
        "the solutions of all layers": checkpoints * solutions,
        **needs.kernel_solution(context, max(sides)),
    }


def fit_layers(context: Context, checkpoint: Checkpoint, sketches: Mapping[str, Sketch]) -> Layers:
    """Every matrix layer of one checkpoint, projected.

    Args:
        context: data and model.
        checkpoint: the parameters.
        sketches: layer → what makes its projected gradients.
    """

    def project(layer: LayerGradients) -> list[LayerGradients]:
        return [sketches[one.name](one) for one in layer.matrices() if one.name in sketches]

    modules = modules_of(sketches)
    pieces = kernel_pieces(context, checkpoint, context.loss, context.target, change=project, layers=modules)
    return Layers(
        {
            name: solve_layer(context, ((train, test) for _, train, test in group))
            for name, group in groupby(pieces, key=lambda piece: piece[0])
        }
    )


def projected(layer: LayerGradients, P_i: Tensor | None, P_o: Tensor | None) -> LayerGradients:
    """A matrix layer's projected gradients."""
    factors = layer.factors
    assert factors is not None
    inputs, deltas = factors.extended, factors.deltas
    return LayerFactors(times(inputs, P_i), times(deltas, P_o), bias=False).gradients(layer.name)


def projection(d: int, rank: int | None, generator: torch.Generator) -> Tensor | None:
    """P transposed, (d, k), for one side of a layer, float64; `None` where k = d."""
    if rank is None or rank >= d:
        return None
    basis: Tensor = torch.linalg.qr(torch.randn(d, rank, generator=generator, dtype=torch.float64))[0]
    return basis * sqrt(d / rank)


def components(moment: Tensor, rank: int) -> Tensor | None:
    """The leading eigenvectors of a second moment (d, d), as columns; `None` for all of them."""
    if rank >= len(moment):
        return None
    vectors: Tensor = torch.linalg.eigh(moment)[1]
    return vectors[:, len(moment) - rank :]


def times(side: Tensor, P: Tensor | None) -> Tensor:
    """One side of a layer, projected."""
    return side if P is None else side @ P.to(side)


def solve_layer(context: Context, pieces: Iterator[tuple[Stored, Stored]]) -> Layer:
    """Decompose the smaller of ΦᵀΦ/n and ΦΦᵀ/n; Φ is only written out where it is narrower than n_train."""
    n, n_test = len(context.train), len(context.test)
    first, second = next(pieces), next(pieces, None)
    dimension = first[0].numbers
    if second is None and dimension < n:
        solution = solve_features(first[0].dense(), first[1].dense())
        return Layer(solution.single(), float(solution.spectrum.eigenvalues.sum()) / dimension)
    kernel = torch.zeros(n, n, dtype=torch.float64, device=context.device)
    products = torch.zeros(n, n_test, dtype=torch.float64, device=context.device)
    dimension = 0
    for train, test in chain([first], () if second is None else (second,), pieces):
        dimension += train.numbers
        add_gram(kernel, train)
        add_products(products, train, test)
    solution = solve_kernel(kernel, products)
    return Layer(solution.single(), float(solution.spectrum.eigenvalues.sum()) / dimension)


def side_by_side(spectra: list[Spectrum]) -> Spectrum:
    """The spectrum of a block-diagonal matrix, descending."""
    eigenvalues, order = torch.cat([one.eigenvalues for one in spectra]).sort(descending=True)
    coefficients = torch.cat([one.coefficients for one in spectra], dim=1)[:, order]
    remainders = [one.remainder for one in spectra if one.remainder is not None]
    remainder = torch.stack(remainders).norm(dim=0) if remainders else None
    return Spectrum(eigenvalues, coefficients, spectra[0].n_train, remainder, max(one.floor for one in spectra))
