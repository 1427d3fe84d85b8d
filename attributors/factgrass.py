"""FactGraSS: influence functions on gradients that are masked, multiplied out and hashed.

Hu et al., "GraSS: Scalable Data Attribution with Gradient Sparsification and Sparse Projection" (arXiv 2505.18976):

    φ = S ((M_o δ) ⊗ (M_i a)),   τ_λ(z', i) = −Σ_layers φ_iᵀ (ΦᵀΦ/n + λI)⁻¹ φ',   averaged over checkpoints

For every matrix layer M_i and M_o keep random coordinates of a layer's inputs a, a 1 appended where there is a bias,
and of the gradients δ with respect to its outputs; S is a sparse Johnson–Lindenstrauss transform, which adds every
coordinate, with a random sign, to one of `projection_dim` buckets. Cost per example is that of the small Kronecker
product alone. At several positions φ = Σ_t. The curvature is the empirical Fisher matrix of each layer, as in `logra`.

Masks are scaled so that inner products are kept in expectation. With all coordinates kept and as many buckets as
products nothing is hashed, and φ is the gradient.

Deviations: masks are drawn, not learned (the paper's SelectiveMask is an option there); the test side is the gradient
of the attributed f; λ is absolute, none for a tenth of each layer's mean eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isqrt, sqrt

import torch
from torch import Tensor

from attriboard.attributors.logra import Layers, fit_layers, projected_need
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.layers import LayerFactors, LayerGradients
from attriboard.toolkit.layerwise import layer_regularization, left_out, matrix_layers
from attriboard.toolkit.terms import Dense, Part


@dataclass(frozen=True)
class Sketch:
    """One layer's φ.

    Attributes:
        inputs, deltas: coordinates that are kept; `None` for all.
        scale: which keeps inner products in expectation.
        buckets, signs: of each product, (k_o · k_i,); `None` where nothing is hashed.
        dimension: of φ.
    """

    inputs: Tensor | None
    deltas: Tensor | None
    scale: float
    buckets: Tensor | None
    signs: Tensor | None
    dimension: int

    def __call__(self, layer: LayerGradients) -> LayerGradients:
        """A matrix layer's φ, as the gradient of a layer with `dimension` parameters."""
        factors = layer.factors
        assert factors is not None
        a = factors.extended if self.inputs is None else factors.extended[..., self.inputs]
        δ = (factors.deltas if self.deltas is None else factors.deltas[..., self.deltas]) * self.scale
        masked = LayerFactors(a, δ, bias=False)
        if self.buckets is None or self.signs is None:
            return masked.gradients(layer.name)
        products = masked.dense()
        hashed = products.new_zeros(len(products), self.dimension)
        hashed.index_add_(1, self.buckets, products.mul_(self.signs.to(products)))
        return LayerGradients(layer.name, (Part((self.dimension,), (Dense(hashed),)),))


class FactGraSS(MeanOfFits):
    """Influence functions with sparse projections of gradient factors."""

    name = "factgrass"
    paper = "arXiv:2505.18976"
    family = "influence function"
    hyperparameters = (
        layer_regularization(None, "arXiv 2405.13954, whose solver it takes: a tenth of the mean eigenvalue"),
        Hyperparameter(
            "projection_dim",
            4096,
            "arXiv 2505.18976: 4,096 per layer",
            optional=True,
            minimum=1,
            grid=(16, 64, 256, 1024, 4096),
            description="buckets of a layer's products; none for no hashing",
        ),
        Hyperparameter(
            "blow_up",
            4,
            "arXiv 2505.18976: masks keep four times as many products as there are buckets",
            minimum=1,
            grid=(1, 2, 4, 8),
            description="products of masked coordinates for each bucket",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self, context: Context, checkpoint: Checkpoint, stream: int, *, projection_dim: int | None, blow_up: int
    ) -> Layers:
        """Solve the projected kernels of one checkpoint's layers."""
        sizes = matrix_layers(context, checkpoint)
        generator = torch.Generator().manual_seed(context.seed)
        sketches: dict[str, Sketch] = {}
        for _ in range(stream + 1):  # one stream of random numbers for all models
            sketches = {name: draw(size, projection_dim, blow_up, generator) for name, size in sizes.items()}
        return fit_layers(context, checkpoint, sketches)

    def memory_need(
        self, context: Context, *, projection_dim: int | None, blow_up: int, checkpoints: int, epoch: int | None
    ) -> dict[str, int] | None:
        """Those of LoGra, and the products before they are hashed."""
        need = projected_need(context, projection_dim, checkpoints, square=False)
        products = needs.gradients(context) if projection_dim is None else 4 * needs.features(context, projection_dim)
        return None if need is None else {**need, "masked products": blow_up * products}

    def notes(self, state: Fits) -> tuple[str, ...]:
        """Which parameters are left out."""
        return left_out(state.context, state.models[0].layers)


def draw(size: tuple[int, int], dimension: int | None, blow_up: int, generator: torch.Generator) -> Sketch:
    """One layer's masks and buckets.

    Args:
        size: (d_in, d_out), a bias counted in d_in.
        dimension: buckets; `None` for no hashing and no masks.
        blow_up: products for each bucket.
        generator: of both.
    """
    d_in, d_out = size
    if dimension is None:
        return Sketch(None, None, 1.0, None, None, d_in * d_out)
    products = blow_up * dimension
    # As square as it can be: what one side lacks the other has more of.
    k_in = min(d_in, max(isqrt(products), products // d_out))
    k_out = min(d_out, ceil(products / k_in))
    kept = [_mask(d, k, generator) for d, k in ((d_in, k_in), (d_out, k_out))]
    scale = sqrt(d_in * d_out / (k_in * k_out))
    if dimension >= k_in * k_out:
        return Sketch(kept[0], kept[1], scale, None, None, k_in * k_out)
    buckets = torch.randint(dimension, (k_in * k_out,), generator=generator)
    signs = 2.0 * torch.randint(2, (k_in * k_out,), generator=generator) - 1
    return Sketch(kept[0], kept[1], scale, buckets, signs, dimension)


def _mask(d: int, k: int, generator: torch.Generator) -> Tensor | None:
    """K of d coordinates, ascending."""
    return None if k >= d else torch.randperm(d, generator=generator)[:k].sort()[0]
