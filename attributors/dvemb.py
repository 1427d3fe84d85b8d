"""Data value embedding: what each step moved, and what later steps left of it.

Wang et al., "Capturing the Temporal Dependence of Training Data Influence", ICLR 2025 (arXiv 2412.09538):

    τ(z', i) = −Σ_{t: i in batch t} (η_t/B_t) g'ᵀ Π_{k>t} (I − η_k H_k) g_{i,t},   averaged over models

with g_{i,t} the gradient of example i at the parameters before update t, g' that of the test point at the end, and H_k
a curvature of update k's batch in the place of its Hessian. Here g' goes back through the run for all test points at
once, so that no embedding is stored.

`curvature = fisher` is the paper's H_k, (1/B_k) Σ_j g_{j,k} g_{j,k}ᵀ; `gauss_newton` is (1/B_k) Σ_j J_jᵀ (∂²ℓ_j/∂z²)
J_j, which for cross-entropy is the true Fisher matrix; `none` leaves the product out: what every step moved, as if no
other step followed. The default is not the paper's: outer products of gradients at the training labels are no
curvature where the model is wrong. Where η σ > 2 for an eigenvalue σ of H_k, I − η_k H_k amplifies, and the product of
all steps diverges, as it does on digits_mlp; training itself is stable for the Gauss–Newton matrix. A note says when
scores diverged.

Deviations: gradients are exact, not projected. With momentum, decay, clipping or AdamW the product is that of the
update's own derivative (`attriboard.toolkit.updates`), which without them is I − η_k H_k.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from attriboard.contracts.attributor import Hyperparameter
from attriboard.toolkit import knobs
from attriboard.toolkit.batches import Batch
from attriboard.toolkit.unrolling import Unrolled
from attriboard.toolkit.updates import Stack


class DVEmb(Unrolled):
    """Influence along the run, with a curvature of every batch that has no second derivatives of the model."""

    name = "dvemb"
    paper = "arXiv:2412.09538"
    family = "unrolled"
    hyperparameters = (
        Hyperparameter(
            "curvature",
            "gauss_newton",
            "ours: the paper's, fisher, diverges on digits_mlp",
            choices=("gauss_newton", "fisher", "none"),
            grid=("gauss_newton", "fisher", "none"),
            description="of each later step's batch; none for what each step moved alone",
        ),
        knobs.checkpoints(1, "arXiv 2412.09538: one run"),
        knobs.epoch(),
    )

    def curve(
        self,
        batch: Batch,
        c: Stack,
        into: Stack,
        scale: float,
        *,
        curvature: Literal["gauss_newton", "fisher", "none"],
    ) -> Tensor:
        """That of the chosen matrix."""
        if curvature == "gauss_newton":
            return batch.add_gauss_newton(c, into, scale)
        slopes = batch.slopes(c)
        if curvature == "fisher":
            batch.add_combination(slopes, into, scale)
        return slopes
