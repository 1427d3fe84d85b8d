"""Rules that choose a grid point from what k retrains measured.

A rule looks at one number per grid point, either the LDS against the k models or the pooled correlation, and gives
each grid point a utility; the largest wins. Where the grid is one of λ, the parabola through the winner and its
neighbors may place the choice between them.

**Pooled correlation.** With k models, LDS is a mean of correlations over k points each, and most of it is noise. The
spread s_gt of a test point's predictions over all subsets is known without any retrain. So predictions are divided by
it, and *one* correlation is taken over all (model, test point) pairs, each point centered:

    q(g) = Σ_jt (p_gjt − p̄_gt)/s_gt (y_jt − ȳ_t) / √(Σ_jt (p_gjt − p̄_gt)²/s_gt² · Σ_jt (y_jt − ȳ_t)²)

Points on which the retrained models hardly differ count little, where LDS counts them like the others.

**Posterior.** Say that grid point h is the best one, and a the correlation that it reaches. Then the expected curve is
a S(·, h), with S(g, h) the correlation of the predictions of g and h over random subsets, which needs no retrain; and
the noise of q has the covariance v S. The likelihood of such a curve depends on q(h) alone:

    log p(h | q) = (a/v) q(h) + log p(h) + const,

with v from a jackknife over the k models. The prior p(h) is where retraining-free evidence enters, `prior_of_center`.
The utility of g is Σ_h p(h | q) S(g, h): the choice gives away the least on average. Rule and constants were chosen by
regret on tasks left out (`bench/selection_rules.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH = 0.5  # decades: of smoothing
PRIOR_WIDTH = 0.5  # decades: how far from ξ's λ the best one lies, where ξ is to be trusted
PRIOR_DISTRUST = 0.6  # how often ξ is not to be trusted, and any λ as likely as another
PRIOR_SPAN = 12.0  # decades over which "any λ" is spread
TEMPERATURE = 2.0  # the noise of neighboring grid points is less alike than the model has it
_SMALLEST_TOP = 0.02  # a correlation; below, nothing is known of the signal

Utility = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Rule:
    """How the curves of k retrains become a choice.

    Attributes:
        utility: curves (n, n_grid) and their variances (n,) → utilities (n, n_grid).
        pooled: whether it looks at pooled correlations; else at LDS.
        positions: (n_grid,) log₁₀ λ, NaN for a point without one; given where the choice may lie between grid points.
    """

    utility: Utility
    pooled: bool = False
    positions: NDArray[np.float64] | None = None

    def choose(
        self, curves: NDArray[np.float64], variances: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The grid point nearest to the choice, and how many decades beside it the choice lies; (n,) each."""
        utilities = self.utility(curves, variances)
        chosen: NDArray[np.int64] = utilities.argmax(axis=1)
        if self.positions is None:
            return chosen, np.zeros(len(chosen))
        return chosen, peak_offsets(utilities, chosen, self.positions)


BEST = Rule(lambda curves, variances: curves)
"""The largest LDS; of equal ones the first."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What is known of a grid before any retrain, from predictions for random subsets.

    Attributes:
        spreads: (n_grid, n_test) standard deviation of the predictions over subsets; infinite where they are constant.
        similarity: S (n_grid, n_grid), mean over test points of the correlation of two grid points' predictions.
    """

    spreads: NDArray[np.float64]
    similarity: NDArray[np.float64]


def geometry(predictions: NDArray[np.float64]) -> Geometry:
    """Spreads and similarity.

    Args:
        predictions: (n_grid, n_subsets, n_test), scores summed over random subsets; the more subsets, the better.
    """
    finite = np.isfinite(predictions).all(axis=1, keepdims=True)
    centered = np.where(finite, predictions, 0.0)
    centered = centered - centered.mean(axis=1, keepdims=True)
    spreads = np.sqrt((centered**2).mean(axis=1))
    spreads = np.where(spreads > 0, spreads, np.inf)
    units = (centered / (spreads * np.sqrt(centered.shape[1]))[:, None, :]).reshape(len(centered), -1)
    return Geometry(spreads, units @ units.T / predictions.shape[2])


def pooled_correlations(
    predictions: NDArray[np.float64],
    outputs: NDArray[np.floating],
    spreads: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Q of every grid point, for several weightings of the k models.

    Args:
        predictions: (n_grid, k, n_test).
        outputs: (k, n_test).
        spreads: (n_grid, n_test), from `geometry`.
        weights: (n_weightings, k) multiplicities, not all 0.

    Returns:
        (n_weightings, n_grid); 0 where the predictions or the outputs do not differ.
    """
    n_grid, k, n_test = predictions.shape
    shares = weights / weights.sum(axis=1, keepdims=True)
    x = np.where(np.isfinite(spreads)[:, None, :], predictions, 0.0) / spreads[:, None, :]
    x = (x - x.mean(axis=1, keepdims=True)).transpose(1, 0, 2)  # a first centering, against cancellation
    y = np.asarray(outputs, dtype=np.float64)
    y = y - y.mean(axis=0)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(shares @ values.reshape(k, -1)).reshape(len(shares), -1, n_test)

    x_mean, y_mean = mean(x), mean(y)
    products = (mean(x * y[:, None, :]) - x_mean * y_mean).sum(axis=2)
    spread_x = np.maximum(mean(x**2) - x_mean**2, 0.0).sum(axis=2)
    spread_y = np.maximum(mean(y**2) - y_mean**2, 0.0).sum(axis=2)
    lengths = np.sqrt(spread_x * spread_y)
    found: NDArray[np.float64] = np.divide(products, lengths, out=np.zeros((len(shares), n_grid)), where=lengths > 0)
    return found


def jackknife_variance(
    predictions: NDArray[np.float64], outputs: NDArray[np.floating], spreads: NDArray[np.float64]
) -> float:
    """v: variance of q over draws of the k models, median over the grid; at least that of independent test points.

    Args:
        predictions: (n_grid, k, n_test).
        outputs: (k, n_test).
        spreads: (n_grid, n_test), from `geometry`.
    """
    k, n_test = outputs.shape
    least = 1.0 / ((k - 1) * n_test)
    without = pooled_correlations(predictions, outputs, spreads, 1.0 - np.eye(k))
    return float(max(np.median((k - 1) * without.var(axis=0)), least))


def prior_of_center(
    positions: Sequence[float] | NDArray[np.float64],
    centers: Sequence[float] | NDArray[np.float64],
    width: float = PRIOR_WIDTH,
    distrust: float = PRIOR_DISTRUST,
) -> NDArray[np.float64]:
    """Log p(h): the best λ lies near ξ's, or, with a fixed probability, anywhere.

    Args:
        positions: (n_grid,) log₁₀ λ of the grid points; NaN for a point without one.
        centers: (n_grid,) log₁₀ of the λ that ξ chooses on the fit of each; NaN where it chooses none.
        width: standard deviation of the best λ around ξ's, in decades.
        distrust: probability that it lies anywhere.
    """
    distance = (np.asarray(positions, dtype=np.float64) - np.asarray(centers, dtype=np.float64)) / width
    near = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
    anywhere = distrust / PRIOR_SPAN
    return np.asarray(np.log(np.where(np.isnan(near), 0.0, (1 - distrust) * near) + anywhere))


def smoothed(positions: NDArray[np.float64], width: float = WIDTH) -> Rule:
    """The largest LDS after averaging over the grid with a Gaussian in log λ.

    Args:
        positions: (n_grid,) log₁₀ λ; a point without one (NaN) is not averaged with others.
        width: standard deviation of the Gaussian, in decades.
    """
    kernel = np.exp(-0.5 * ((positions[:, None] - positions[None, :]) / width) ** 2)
    kernel = np.where(np.isnan(kernel), np.eye(len(positions)), kernel)
    kernel /= kernel.sum(axis=1, keepdims=True)
    return Rule(lambda curves, variances: curves @ kernel.T)


def posterior(
    similarity: NDArray[np.float64],
    log_prior: NDArray[np.float64] | None = None,
    positions: NDArray[np.float64] | None = None,
    temperature: float = TEMPERATURE,
) -> Rule:
    """The largest utility under the posterior; see the head of this module.

    Args:
        similarity: S (n_grid, n_grid).
        log_prior: (n_grid,); flat by default.
        positions: (n_grid,) log₁₀ λ, if the choice may lie between grid points.
        temperature: what the variance is multiplied by.
    """
    prior = np.zeros(len(similarity)) if log_prior is None else log_prior

    def utility(curves: NDArray[np.float64], variances: NDArray[np.float64]) -> NDArray[np.float64]:
        top = np.maximum(curves.max(axis=1), _SMALLEST_TOP)
        logs = (top / (temperature * variances))[:, None] * curves + prior
        weights = np.exp(logs - logs.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True) @ similarity)

    return Rule(utility, pooled=True, positions=positions)


def peak_offsets(
    values: NDArray[np.float64], at: NDArray[np.int64], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Where the parabola through each largest value and its neighbors along the grid peaks, in decades beside it.

    Args:
        values: (n, n_grid).
        at: (n,) position of the largest.
        positions: (n_grid,) log₁₀ λ; NaN for a point without one.

    Returns:
        (n,); 0 where a neighbor is missing. No more than half of the way to a neighbor.
    """
    left, right = _neighbors(positions)
    found = np.zeros(len(at))
    for row, g in enumerate(at):
        if left[g] >= 0 and right[g] >= 0:
            slope, bend, before, after = _parabola(values[row], g, left[g], right[g], positions)
            if bend < 0:
                found[row] = np.clip(-slope / (2 * bend), -before / 2, after / 2)
    return found


def values_beside(
    values: NDArray[np.float64], at: NDArray[np.int64], offsets: NDArray[np.float64], positions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Values between grid points, by the parabola through a point and its neighbors.

    Args:
        values: (n, n_grid).
        at: (n,) grid points.
        offsets: (n,) decades beside them; 0 where a neighbor is missing.
        positions: (n_grid,) log₁₀ λ.
    """
    left, right = _neighbors(positions)
    found = values[np.arange(len(at)), at].copy()
    for row in np.flatnonzero(offsets):
        g = at[row]
        slope, bend, _, _ = _parabola(values[row], g, left[g], right[g], positions)
        found[row] += slope * offsets[row] + bend * offsets[row] ** 2
    return found


def _neighbors(positions: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The next smaller and the next larger λ of every grid point, −1 for none."""
    left, right = (np.full(len(positions), -1, dtype=np.int64) for _ in range(2))
    order = [g for g in np.argsort(positions, kind="stable") if not np.isnan(positions[g])]
    left[order[1:]], right[order[:-1]] = order[:-1], order[1:]
    return left, right


def _parabola(
    values: NDArray[np.float64], g: int, left: int, right: int, positions: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """Slope and curvature at g of the parabola through three points, and the distances to the outer two."""
    before, after = float(positions[g] - positions[left]), float(positions[right] - positions[g])
    down, up = float(values[g] - values[left]) / before, float(values[right] - values[g]) / after
    bend = (up - down) / (before + after)
    return down + bend * before, bend, before, after
