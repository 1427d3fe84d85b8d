"""How many retrains does it take to choose a hyperparameter? Regret as a function of the number of retrains.

From a ground truth of many masks, pretend that only k single retrains exist: k random masks, one random repeat of
each. Choose the grid point with the best LDS on the calibration points against those k models. Then judge the choice
by the masks that took no part in it, with all their repeats, on the scoring points:

    regret = max_g LDS_rest(g) − LDS_rest(chosen)

Over many random draws this gives the mean, the spread and the worst case of the regret at every k. Nothing is trained.
How k retrains become a choice is a `Rule` of `attriboard.scoring.rules`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.lds import mean_outputs
from attriboard.scoring.ranks import average_ranks, sort_rows, weighted_spearman
from attriboard.scoring.rules import Geometry, Rule, geometry, jackknife_variance, pooled_correlations, values_beside
from attriboard.scoring.split import Split

_STREAM = 2  # second key word of Philox; the split and the bootstrap use others
_SMALLEST = 2  # a correlation over fewer masks does not exist


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """Regret against the number of retrains.

    Attributes:
        budgets: numbers of retrains k, ascending.
        chosen: (n_budgets, n_draws) grid point that each draw chose.
        regret: (n_budgets, n_draws) LDS given away, on the masks that did not choose.
        judged: (n_draws, n_grid) per budget: LDS on the scoring points and the masks that did not choose.
    """

    budgets: tuple[int, ...]
    chosen: NDArray[np.int64]
    regret: NDArray[np.float64]
    judged: tuple[NDArray[np.float64], ...]

    @property
    def mean(self) -> NDArray[np.float64]:
        """Mean regret at every budget."""
        return np.asarray(self.regret.mean(axis=1))

    def quantile(self, share: float) -> NDArray[np.float64]:
        """Quantile of the regret over draws at every budget."""
        return np.asarray(np.quantile(self.regret, share, axis=1))

    @property
    def worst(self) -> NDArray[np.float64]:
        """Largest regret over draws at every budget."""
        return np.asarray(self.regret.max(axis=1))


def default_budgets(n_masks: int) -> tuple[int, ...]:
    """2, 4, 8, … up to half of the masks."""
    return tuple(2**power for power in range(1, n_masks.bit_length()) if 2**power <= n_masks // 2)


def budget_curves(
    predictions: NDArray[np.float64],
    outputs: NDArray[np.floating],
    split: Split,
    budgets: Sequence[int],
    rules: Mapping[str, Rule],
    *,
    n_draws: int = 200,
    seed: int = 0,
) -> dict[str, BudgetCurve]:
    """Regret of choosing a grid point by k single retrains, for several k and several rules on the same draws.

    A choice between grid points is judged by the parabola through the nearest point and its neighbors; its regret,
    against the best grid point, may be below 0.

    Args:
        predictions: (n_grid, n_masks, n_test), scores summed over every mask, for every grid point.
        outputs: (n_masks, n_repeats, n_test) targets of the retrained models.
        split: calibration points choose, scoring points judge.
        budgets: numbers of retrains k, each from 2 to n_masks − 2.
        rules: how k retrains become a choice.
        n_draws: random draws of masks and repeats.
        seed: of the draws. The draws of a smaller budget are parts of those of a larger one.

    Raises:
        InputError: a budget out of range, or shapes that do not fit together.
    """
    n_masks = outputs.shape[0]
    if predictions.ndim != 3 or outputs.ndim != 3 or predictions.shape[1:] != (n_masks, outputs.shape[2]):
        raise InputError(
            f"predictions {predictions.shape} and outputs {outputs.shape}: expected (n_grid, n_masks, n_test) and "
            "(n_masks, n_repeats, n_test)"
        )
    out_of_range = [k for k in budgets if not _SMALLEST <= k <= n_masks - _SMALLEST]
    if out_of_range or not budgets:
        raise InputError(f"budgets = {tuple(budgets)}: each must lie in 2 … n_masks − 2 = {n_masks - _SMALLEST}")
    masks, repeats = draw_retrains(n_masks, outputs.shape[1], n_draws, seed)
    rest = rest_lds(predictions[:, :, split.scoring], outputs[:, :, split.scoring], masks, budgets)
    known = predictions[:, :, split.calibration]
    shape = geometry(known)
    found: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = {name: [] for name in rules}
    for k, judged in zip(budgets, rest, strict=True):
        drawn = [
            (known[:, m], outputs[m, r][:, split.calibration])
            for m, r in zip(masks[:, :k], repeats[:, :k], strict=True)
        ]
        measured = {pooled: _curves(drawn, shape, pooled=pooled) for pooled in {r.pooled for r in rules.values()}}
        for name, rule in rules.items():
            chosen, offsets = rule.choose(*measured[rule.pooled])
            got = judged[np.arange(n_draws), chosen]
            if rule.positions is not None:
                got = values_beside(judged, chosen, offsets, rule.positions)
            found[name].append((chosen, judged.max(axis=1) - got))
    return {
        name: BudgetCurve(tuple(budgets), np.stack([c for c, _ in rows]), np.stack([r for _, r in rows]), rest)
        for name, rows in found.items()
    }


def _curves(
    drawn: Sequence[tuple[NDArray[np.float64], NDArray[np.floating]]], shape: Geometry, *, pooled: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What every draw measures on the grid, (n_draws, n_grid), and its variances, (n_draws,)."""
    if not pooled:
        return np.stack([few_lds(p, y) for p, y in drawn]), np.zeros(len(drawn))
    curves = [pooled_correlations(p, y, shape.spreads, np.ones((1, len(y))))[0] for p, y in drawn]
    return np.stack(curves), np.array([jackknife_variance(p, y, shape.spreads) for p, y in drawn])


def draw_retrains(n_masks: int, n_repeats: int, n_draws: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random orders of the masks and one repeat of each, (n_draws, n_masks) each, from raw Philox words."""
    generator = np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64))
    order = np.argsort(generator.random_raw(n_draws * n_masks).reshape(n_draws, n_masks), axis=1, kind="stable")
    repeats = generator.random_raw(n_draws * n_masks).reshape(n_draws, n_masks) % np.uint64(n_repeats)
    return order.astype(np.int64), repeats.astype(np.int64)


def draw_models(k: int, n_resamples: int, seed: int, stream: int) -> NDArray[np.int64]:
    """Resamples of k models with replacement, (n_resamples, k), from raw Philox words; `stream` is the second key."""
    generator = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64))
    return (generator.random_raw(n_resamples * k) % np.uint64(k)).astype(np.int64).reshape(n_resamples, k)


def multiplicities(drawn: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """How often each of k models is in each row of a draw, (n_resamples, k)."""
    return np.stack([np.bincount(row, minlength=k) for row in drawn]).astype(np.float64)


def few_lds(predictions: NDArray[np.float64], outputs: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mean LDS of every grid point over a few single retrains.

    Args:
        predictions: (n_grid, k, n_test).
        outputs: (k, n_test).

    Returns:
        (n_grid,); a test point whose predictions are not finite or constant counts as 0.
    """
    n_grid, k, n_test = predictions.shape
    y = average_ranks(sort_rows(np.ascontiguousarray(outputs.T, dtype=np.float64)))
    y -= y.mean(axis=1, keepdims=True)
    x = np.ascontiguousarray(predictions.transpose(0, 2, 1)).reshape(n_grid * n_test, k)
    ranks = average_ranks(sort_rows(_usable(x))).reshape(n_grid, n_test, k)
    ranks -= ranks.mean(axis=2, keepdims=True)
    lengths = np.sqrt((ranks**2).sum(axis=2) * (y**2).sum(axis=1)[None])
    products = np.einsum("gtk,tk->gt", ranks, y)
    correlations = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return np.asarray(correlations.mean(axis=1))


def rest_lds(
    predictions: NDArray[np.float64],
    outputs: NDArray[np.floating],
    masks: NDArray[np.int64],
    budgets: Sequence[int],
) -> tuple[NDArray[np.float64], ...]:
    """LDS of every grid point on the masks that a draw leaves out, all repeats averaged.

    Args:
        predictions: (n_grid, n_masks, n_test).
        outputs: (n_masks, n_repeats, n_test).
        masks: (n_draws, n_masks) random orders; a budget k leaves out the masks from position k on.
        budgets: numbers of retrains k.

    Returns:
        For every budget (n_draws, n_grid).
    """
    n_draws, n_masks = masks.shape
    left_out = np.ones((len(budgets), n_draws, n_masks))
    for row, k in enumerate(budgets):
        np.put_along_axis(left_out[row], masks[:, :k], 0.0, axis=1)
    weights = left_out.reshape(-1, n_masks)
    y = sort_rows(np.ascontiguousarray(mean_outputs(outputs).T))
    found = np.empty((len(predictions), len(weights)))
    for g, point in enumerate(predictions):
        x = np.ascontiguousarray(point.T, dtype=np.float64)
        found[g] = weighted_spearman(sort_rows(_usable(x)), y, weights).mean(axis=0)
    by_budget = found.reshape(len(predictions), len(budgets), n_draws)
    return tuple(np.ascontiguousarray(by_budget[:, row].T) for row in range(len(budgets)))


def expected_regret(
    predictions: NDArray[np.float64],
    outputs: NDArray[np.floating],
    rule: Rule,
    shape: Geometry,
    *,
    n_resamples: int = 200,
    seed: int = 0,
) -> tuple[float, int | None]:
    """What a choice by k retrains gives away on average, and how many would halve it; from the k retrains alone.

    The k models are resampled with replacement. A resample chooses, and what all k models measure judges:
    regret* = curve(chosen) − curve(chosen*), averaged over resamples. Resamples of half as many models give the regret
    at k/2, and with it the rate a in regret ∝ k^(−a), kept within ½ … 2.

    Args:
        predictions: (n_grid, k, n_test).
        outputs: (k, n_test).
        rule: how a curve becomes a choice.
        shape: of the grid.
        n_resamples: bootstrap resamples.
        seed: of the resamples.

    Returns:
        The expected regret, and the number of models that would about halve it; `None` where the regret is 0.
    """
    k = outputs.shape[0]
    drawn = draw_models(k, n_resamples, seed, _STREAM + 1)
    variance = jackknife_variance(predictions, outputs, shape.spreads) if rule.pooled else 0.0

    def regret(size: int) -> float:
        weights = np.vstack([np.ones((1, k)), multiplicities(drawn[:, :size], k)])
        if rule.pooled:
            curves = pooled_correlations(predictions, outputs, shape.spreads, weights)
        else:
            y = sort_rows(np.ascontiguousarray(outputs.T, dtype=np.float64))
            rows = [sort_rows(_usable(np.ascontiguousarray(point.T))) for point in predictions]
            curves = np.stack([weighted_spearman(row, y, weights).mean(axis=0) for row in rows], axis=1)
        variances = np.full(len(curves), variance * k / size)
        variances[0] = variance
        chosen, _ = rule.choose(curves, variances)
        return float(np.maximum(curves[0, chosen[0]] - curves[0, chosen[1:]], 0.0).mean())

    full, half = regret(k), regret(max(k // 2, _SMALLEST))
    if full <= 0.0:
        return 0.0, None
    rate = float(np.clip(np.log2(max(half, full) / full), 0.5, 2.0))
    return full, int(np.ceil(k * 2.0 ** (1.0 / rate)))


def _usable(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows with a value that is not finite become constant, which counts as a correlation of 0."""
    finite = np.isfinite(rows).all(axis=1, keepdims=True)
    return np.where(finite, rows, 0.0)
