"""Is ξ right on this task? ω at ξ's λ, estimated from k retrains.

The population LDS of a test point rises in λ exactly where ξ < ω (docs/formulas.md), so choosing λ where ξ = ½ is right
where ω = ½. With τ the scores, n = ‖τ‖ the spread of their sums over random subsets and o₁ = ⟨τ, ψ⟩ the covariance of
these sums with the retrained target,

    ω = ξ · (o₁ t₃/t₂) / o₂,    t₃/t₂ = −d log n/dλ,    o₂ = −d o₁/dλ,

because t₂ = n² and dt₂/dλ = −2 t₃. So scores at three neighboring λ are enough, whatever the method, as long as they
shrink while λ grows; cosines do not, and have no ω. One retrained model says little about one test point; o₁ and o₂ are
therefore summed over test points, each divided by n and by the standard deviation of its target, as in the LDS
itself. The interval is a bootstrap over the k models.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.budget import draw_models, multiplicities

_STREAM = 7  # second key word of Philox
_LARGEST = 10.0  # of ω: the LDS rises whatever ξ is, which is at most 1
_LEAST_FALL = 1e-5  # of log n over log λ, 1 at most: less may be rounding of float32 scores


@dataclass(frozen=True)
class Omega:
    """ω at ξ's λ.

    Attributes:
        value: estimate, within 0 … 10; ξ is at most 1, so the LDS rises in λ wherever it is larger.
        low, high: 95 % bootstrap interval over the k models.
    """

    value: float
    low: float
    high: float

    @property
    def trusts_xi(self) -> bool:
        """Whether ½ lies within the interval."""
        return self.low <= 0.5 <= self.high


def estimate_omega(
    predictions: NDArray[np.float64],
    outputs: NDArray[np.floating],
    spreads: NDArray[np.float64],
    decades: NDArray[np.float64],
    xi: float,
    *,
    n_resamples: int = 400,
    seed: int = 0,
) -> Omega | None:
    """ω at the middle of three λ; `None` where scores do not shrink as λ grows.

    Args:
        predictions: (3, k, n_test), scores at three ascending λ, summed over the subset of each model.
        outputs: (k, n_test) targets of the models.
        spreads: (3, n_test) standard deviation of the predictions over random subsets, up to one factor for all.
        decades: (3,) log₁₀ λ, ascending.
        xi: ξ̄ at the middle λ.
        n_resamples: bootstrap resamples.
        seed: of the resamples.

    Raises:
        InputError: shapes that do not fit together, fewer than three models, or λ not ascending.
    """
    k = len(outputs)
    if predictions.shape != (3, *outputs.shape) or spreads.shape != (3, outputs.shape[1]) or k < 3:
        raise InputError(
            f"predictions {predictions.shape}, outputs {outputs.shape}, spreads {spreads.shape}: expected "
            "(3, k, n_test), (k, n_test), (3, n_test) with k ≥ 3"
        )
    if not decades[0] < decades[1] < decades[2]:
        raise InputError(f"log₁₀ λ = {list(decades)}: must ascend")
    usable = np.isfinite(predictions).all(axis=(0, 1)) & np.isfinite(spreads).all(axis=0) & (spreads > 0).all(axis=0)
    deviations = outputs.std(axis=0)
    usable &= deviations > 0
    p, y = predictions[:, :, usable], np.asarray(outputs, dtype=np.float64)[:, usable]
    n, step = spreads[:, usable], (decades[2] - decades[0]) * np.log(10.0)
    fall = -(np.log(n[2]) - np.log(n[0])) / step  # λ t₃/t₂
    if not fall.size or fall.mean() < _LEAST_FALL:
        return None
    scale = 1.0 / (n[1] * deviations[usable])
    weights = np.vstack([np.ones((1, k)), _resamples(k, n_resamples, seed)])

    def covariance(one: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of every weighting and test point."""
        return np.asarray(weights @ (one * y) / k - (weights @ one / k) * (weights @ y / k))

    o1 = covariance(p[1])
    o2 = (covariance(p[0]) - covariance(p[2])) / step  # λ o₂
    above, below = xi * (o1 * fall * scale).sum(axis=1), (o2 * scale).sum(axis=1)
    omega = np.where(above > 0, np.divide(above, below, out=np.full_like(above, _LARGEST), where=below > 0), 0.0)
    omega = np.minimum(omega, _LARGEST)
    low, high = np.quantile(omega[1:], [0.025, 0.975])
    return Omega(float(omega[0]), float(low), float(high))


def _resamples(k: int, count: int, seed: int) -> NDArray[np.float64]:
    """Multiplicities of resamples with at least two different models, (count, k)."""
    weights = multiplicities(draw_models(k, count, seed, _STREAM), k)
    return np.asarray(weights[(weights > 0).sum(axis=1) >= 2])
