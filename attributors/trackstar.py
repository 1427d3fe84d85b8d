"""TrackStar: cosines of projected gradients, preconditioned by a mixture of two second moments.

Chang et al., "Scalable Influence and Fact Tracing for Large Language Model Pretraining" (arXiv 2410.17413):

    φ = R^(−½) P g,   R_l = m R_l^query + (1 − m) R_l^train + λI for every layer l
    τ(z', i) = −⟨φ_i, φ'⟩ / (‖φ_i‖ ‖φ'‖),   averaged over checkpoints

with P a random projection of both sides of every matrix layer, as in `logra`, and R^query, R^train the mean squares
(1/n) Σ φφᵀ of projected test and training gradients. Lengths count over all layers. What many queries share, such as
how a task is put, is what R^query takes away.

`mixing = none` is the paper's rule: m such that the k-th eigenvalues of m R^query and (1 − m) R^train agree, k = 1,000
or, where either has fewer positive ones, the last that both have; one m for each layer.

Deviations: the test side is the gradient of the attributed f; λ is absolute, none for a tenth of each layer's mean
eigenvalue; gradients are not divided by roots of an optimizer's second moments, which tasks trained by SGD do not have.
Layers that are not one matrix product are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from attriboard.attributors.logra import draw_projections, projected, projected_need
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.held import kernel_pieces
from attriboard.toolkit.layers import LayerGradients
from attriboard.toolkit.layerwise import layer_damping, layer_regularization, left_out, modules_of
from attriboard.toolkit.spectrum import symmetric_eigen

AGREE_AT = 1000
"""The eigenvalues that agree, counted from the largest: arXiv 2410.17413."""


@dataclass(frozen=True)
class Layer:
    """One layer in R's eigenbasis: σ (d,), float64, φ (n_train, d) and φ' (n_test, d), float32; and the mean of σ."""

    eigenvalues: Tensor
    train: Tensor
    test: Tensor
    mean: float

    def roots(self, regularization: float | None) -> Tensor:
        """(σ + λ)^(−½) (d,); zero where σ + λ is rounding."""
        shifted = self.eigenvalues + layer_damping(regularization, self.mean)
        floor = len(shifted) * torch.finfo(torch.float64).eps * float(self.eigenvalues.max())
        return shifted.rsqrt().masked_fill(shifted <= floor, 0).float()


@dataclass(frozen=True)
class Layers:
    """One checkpoint's, by name."""

    layers: dict[str, Layer]

    @property
    def spectrum(self) -> Spectrum:
        """R's eigenvalues, all layers', and φ' along each."""
        layers = list(self.layers.values())
        squares = torch.cat([layer.test.double().square() for layer in layers], 1)
        return Spectrum.of_curvature(torch.cat([one.eigenvalues for one in layers]), squares, len(layers[0].train))

    def scores(self, regularization: float | None) -> Tensor:
        """Negative cosines, (n_test, n_train)."""
        products: Tensor | None = None
        squares: list[list[Tensor]] = [[], []]
        for layer in self.layers.values():
            roots = layer.roots(regularization)
            sides = [side * roots for side in (layer.test, layer.train)]
            found = sides[0] @ sides[1].T
            products = found if products is None else products.add_(found)
            for found_so_far, side in zip(squares, sides, strict=True):
                found_so_far.append(side.square().sum(1))
        test, train = (torch.stack(square).sum(0).sqrt() for square in squares)
        lengths = torch.outer(test, train)
        assert products is not None
        return products.div_(lengths.masked_fill_(lengths == 0, torch.inf)).neg_()


class TrackStar(MeanOfFits):
    """Cosines of projected gradients with a mixed preconditioner."""

    name = "trackstar"
    paper = "arXiv:2410.17413"
    family = "gradient similarity"
    hyperparameters = (
        layer_regularization(None, "bergson 2.5, as run: a tenth of the mean eigenvalue"),
        Hyperparameter(
            "mixing",
            None,
            "arXiv 2410.17413: such that the 1,000th eigenvalues agree",
            type=float,
            minimum=0.0,
            maximum=1.0,
            grid=(0.0, 0.5, 0.9, 0.99),
            description="share of the queries' second moment in the preconditioner; none for the paper's rule",
        ),
        Hyperparameter(
            "projection_dim",
            4096,
            "bergson 2.5, as run: 64 on both sides of a layer",
            optional=True,
            minimum=1,
            grid=(16, 64, 256, 1024, 4096),
            description="dimension of a layer's projected gradients, k² with k on either side; none for no projection",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self, context: Context, checkpoint: Checkpoint, stream: int, *, mixing: float | None, projection_dim: int | None
    ) -> Layers:
        """Decompose R of every layer."""
        rank = None if projection_dim is None else isqrt(projection_dim)
        projections = draw_projections(context, checkpoint, rank, "random", stream)

        def project(layer: LayerGradients) -> list[LayerGradients]:
            return [projected(one, *projections[one.name]) for one in layer.matrices() if one.name in projections]

        pieces = kernel_pieces(
            context, checkpoint, context.loss, context.target, change=project, layers=modules_of(projections)
        )
        layers = {}
        for name, group in groupby(pieces, key=lambda piece: piece[0]):
            train: list[Tensor] = []
            test: list[Tensor] = []
            for _, one, other in group:
                train.append(one.dense())
                test.append(other.dense())
            layers[name] = solve(torch.cat(train, 1).double(), torch.cat(test, 1).double(), mixing)
        return Layers(layers)

    def memory_need(
        self, context: Context, *, projection_dim: int | None, checkpoints: int, **others: Any
    ) -> dict[str, int] | None:
        """Those of LoGra, with a matrix for each layer and its rotated gradients."""
        need = projected_need(context, projection_dim, checkpoints)
        sizes = needs.linear_sizes(context.model)
        if need is None or sizes is None:
            return None
        rank = projection_dim if projection_dim is None else isqrt(projection_dim)
        sides = [min(i, rank or i) * min(o, rank or o) for i, o in sizes]
        n = len(context.train) + len(context.test)
        return {
            **need,
            "second moments": 6 * needs.DOUBLE * max(sides) ** 2,
            "rotated gradients": 4 * needs.DOUBLE * n * max(sides) + checkpoints * 2 * needs.DOUBLE * n * sum(sides),
        }

    def notes(self, state: Fits) -> tuple[str, ...]:
        """Which parameters are left out."""
        return left_out(state.context, state.models[0].layers)


def solve(train: Tensor, test: Tensor, mixing: float | None) -> Layer:
    """One layer's.

    Args:
        train: φ (n_train, d), float64.
        test: φ' (n_test, d), float64.
        mixing: m; `None` for the paper's rule.
    """
    moments = [side.T @ side / len(side) for side in (test, train)]
    if mixing is None:
        query, corpus = (torch.linalg.eigvalsh(moment).flip(0) for moment in moments)
        mixing = agreeing(query, corpus)
    eigenvalues, vectors = symmetric_eigen(moments[0].mul_(mixing).add_(moments[1], alpha=1 - mixing))
    eigenvalues = eigenvalues.clamp_min(0)
    rotated = [(side @ vectors).float() for side in (train, test)]
    return Layer(eigenvalues, rotated[0], rotated[1], float(eigenvalues.mean()))


def agreeing(query: Tensor, corpus: Tensor) -> float:
    """M with m σ_k(query) = (1 − m) σ_k(corpus), of descending eigenvalues."""
    floors = [len(values) * torch.finfo(torch.float64).eps * float(values[0]) for values in (query, corpus)]
    count = min(int((values > floor).sum()) for values, floor in zip((query, corpus), floors, strict=True))
    if not count:
        return 0.0
    k = min(AGREE_AT, count) - 1
    return float(corpus[k] / (query[k] + corpus[k]))
