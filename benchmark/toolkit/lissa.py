"""LiSSA: the inverse Hessian applied by a stochastic Neumann series.

Agarwal, Bullins & Hazan 2017, "Second-Order Stochastic Optimization for Machine Learning in Linear Time". With
scaling s and H_S the Hessian of the mean loss over a random batch S:

    v ← b + v − (H_S + λI) v / s,  starting at v = b;   (H + λI)⁻¹ b ≈ v / s

In expectation the fixed point is exact. The series converges where every |1 − (σ + λ)/s| < 1.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.task import Examples
from attriboard.toolkit.curvature import TrainingLoss

CACHE_BYTES = 28 * 2**20
"""Of directions that take all steps together: a step hardly computes, it reads and writes them a few times."""

EXCESS = 10.0
"""How far beyond the bound of a contraction ‖v‖ may go: single batches may expand a little where the mean does not."""


def lissa(
    loss: TrainingLoss,
    vectors: Tensor,
    *,
    regularization: float,
    scaling: float,
    depth: int,
    batch_size: int,
    repeats: int,
    seed: tuple[int, ...],
) -> Tensor:
    """Estimate (H + λI)⁻¹ b for every row b of `vectors`; all rows see the same batches.

    Args:
        loss: whose Hessian is meant.
        vectors: b (k, n_params), in the dtype of `loss`.
        regularization: λ.
        scaling: s.
        depth: terms of the series.
        batch_size: examples per batch, drawn without replacement; n_train or more is the full Hessian.
        repeats: independent series, averaged.
        seed: of the batches.

    Returns:
        (k, n_params).

    Raises:
        NotApplicableError: the series diverged: ‖v‖ left what terms that do not grow can sum to.
    """
    total = torch.zeros_like(vectors)
    together = max(1, CACHE_BYTES // (vectors.element_size() * vectors.shape[1]))
    for sums, rows in zip(torch.split(total, together), torch.split(vectors, together), strict=True):
        norms = rows.norm(dim=1)
        for repeat in range(repeats):
            random = np.random.default_rng((*seed, repeat))
            estimate = rows.clone()
            for step in range(1, depth + 1):
                change, _ = loss.products(estimate, _draw(loss, batch_size, random))
                estimate.mul_(1 - regularization / scaling).add_(rows).sub_(change, alpha=1 / scaling)
                _check(estimate, norms, step, depth, scaling)
            sums += estimate
    return total.div_(repeats * scaling)


def _draw(loss: TrainingLoss, size: int, random: np.random.Generator) -> Examples | None:
    """A batch without replacement; `None`, all examples, where there are no more."""
    n = len(loss.train)
    if size >= n:
        return None
    rows = random.choice(n, size, replace=False, shuffle=False)
    return loss.train[torch.from_numpy(rows).to(loss.device)]


def _check(estimate: Tensor, norms: Tensor, step: int, depth: int, scaling: float) -> None:
    """If no factor I − (H_S + λI)/s lengthens a vector, ‖v‖ ≤ (step + 1) ‖b‖."""
    if step % 16 and step < depth:
        return
    growth = float((estimate.norm(dim=1) / norms.clamp_min(torch.finfo(norms.dtype).tiny)).max())
    if not growth <= EXCESS * (step + 1):
        raise NotApplicableError(
            f"diverged: scaling = {scaling:g}: after {step} of {depth} steps ‖v‖ is {growth:.3g} times that of the "
            "gradient; raise scaling or regularization, or the batch size"
        )
