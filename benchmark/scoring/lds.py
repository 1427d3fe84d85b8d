"""The linear datamodeling score: do summed scores predict what retraining on subsets does?

Park et al., *TRAK: Attributing Model Behavior at Scale* (ICML 2023, arXiv 2303.14186): for
a test point, the Spearman correlation over subsets S_k of the training set between Σ_{i∈S_k} τ_i and the
target of a model retrained on S_k (here the mean over repeated retrains); reported as the mean over test
points.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.ranks import average_ranks, sort_rows

_BLOCK_ELEMENTS = 2**23  # scores converted to float64 at once: 64 MB


@dataclass(frozen=True, eq=False)
class Correlations:
    """Predictions against outputs, test point by test point.

    Attributes:
        spearman, pearson: (n_test,) correlation over masks; 0 for degenerate test points.
        n_degenerate: test points whose prediction was constant or not finite, or whose outputs were constant.
    """

    spearman: NDArray[np.float64]
    pearson: NDArray[np.float64]
    n_degenerate: int

    @property
    def mean(self) -> float:
        """The LDS: mean Spearman correlation, degenerate test points included."""
        return float(self.spearman.mean())

    @property
    def mean_pearson(self) -> float:
        """The same of Pearson's correlation."""
        return float(self.pearson.mean())


def lds(scores: NDArray[Any], masks: NDArray[np.bool_], outputs: NDArray[Any]) -> Correlations:
    """Grade a score matrix.

    Args:
        scores: (n_test, n_train), positive = helpful.
        masks: (n_masks, n_train) boolean; row k marks the subset that model k was trained on.
        outputs: (n_masks, n_test) or (n_masks, n_repeats, n_test) targets of the retrained models.

    Raises:
        InputError: shapes or types do not fit together, or an output is not finite.
    """
    return correlate(predict(scores, masks), outputs)


def predict(scores: NDArray[Any], masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Sum the scores over each subset: one matrix product, in float64.

    In float32 the rounding of a sum of thousands of scores swaps neighboring ranks; a swap moves the
    Spearman correlation by 12/n_masks³ or more. A test point whose predictions differ by no more than the
    rounding error of their sums (constant scores, say) gets exactly constant predictions.

    Args:
        scores: (n_test, n_train).
        masks: (n_masks, n_train) boolean.

    Returns:
        (n_masks, n_test); a test point with scores that are not finite is NaN throughout.

    Raises:
        InputError: the shapes do not fit together, `masks` is not boolean, or scores are no real numbers.
    """
    if scores.ndim != 2 or masks.ndim != 2 or scores.shape[1] != masks.shape[1]:
        raise InputError(
            f"scores {scores.shape} and masks {masks.shape}: expected (n_test, n_train), (n_masks, n_train)"
        )
    if scores.dtype.kind not in "fiu":
        raise InputError(f"scores are of type {scores.dtype}: must be real numbers")
    if masks.dtype != np.bool_:
        raise InputError(f"masks of type {masks.dtype}: expected bool, one row per retrained model")
    n_test, n_train = scores.shape
    members = masks.T.astype(np.float64)
    predictions = np.empty((n_test, masks.shape[0]))
    step = max(1, _BLOCK_ELEMENTS // max(1, n_train))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, n_test, step):
            block = slice(start, start + step)
            np.matmul(scores[block].astype(np.float64, copy=False), members, out=predictions[block])
    predictions[~np.isfinite(predictions).all(axis=1)] = np.nan
    if predictions.size:
        rounding = n_train * np.finfo(np.float64).eps * np.abs(predictions).max(axis=1)
        flat = np.ptp(predictions, axis=1) <= rounding
        predictions[flat] = predictions[flat, :1]
    return predictions.T


def mean_outputs(outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Mean over repeats, (n_masks, n_test), of outputs (n_masks, n_test) or (n_masks, n_repeats, n_test).

    Raises:
        InputError: wrong number of axes, fewer than two masks, an empty axis, or a value that is not finite.
    """
    if outputs.ndim not in (2, 3) or outputs.size == 0 or outputs.shape[0] < 2:
        raise InputError(f"outputs {outputs.shape}: expected (n_masks ≥ 2, n_test) or (n_masks ≥ 2, n_repeats, n_test)")
    broken = int(np.count_nonzero(~np.isfinite(outputs)))
    if broken:
        raise InputError(f"outputs: {broken} of {outputs.size} are not finite; rebuild the ground truth")
    if outputs.ndim == 2:
        return outputs.astype(np.float64, copy=False)
    mean: NDArray[np.float64] = outputs.mean(axis=1, dtype=np.float64)
    return mean


def paired_columns(
    predictions: NDArray[Any], outputs: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Predictions and mean outputs side by side, (n_test, n_masks) each, and which rows cannot be correlated.

    Degenerate rows of the predictions are returned as zeros.

    Args:
        predictions: (n_masks, n_test).
        outputs: (n_masks, n_test) or (n_masks, n_repeats, n_test).

    Raises:
        InputError: the shapes do not fit together, or an output is not finite.
    """
    truth = mean_outputs(outputs)
    if predictions.shape != truth.shape:
        raise InputError(f"predictions {predictions.shape} and outputs {outputs.shape}: n_masks and n_test must agree")
    x = np.ascontiguousarray(predictions.T, dtype=np.float64)
    y = np.ascontiguousarray(truth.T)
    degenerate = ~np.isfinite(x).all(axis=1) | (y == y[:, :1]).all(axis=1) | (x == x[:, :1]).all(axis=1)
    return np.where(degenerate[:, None], 0.0, x), y, degenerate


def correlate(predictions: NDArray[Any], outputs: NDArray[Any]) -> Correlations:
    """Grade predictions made elsewhere; see `lds`.

    Args:
        predictions: (n_masks, n_test) predicted targets, in any monotone scale.
        outputs: (n_masks, n_test) or (n_masks, n_repeats, n_test).

    Raises:
        InputError: the shapes do not fit together, or an output is not finite.
    """
    x, y, degenerate = paired_columns(predictions, outputs)
    return Correlations(
        spearman=_correlation(average_ranks(sort_rows(x)), average_ranks(sort_rows(y)), degenerate),
        pearson=_correlation(x, y, degenerate),
        n_degenerate=int(degenerate.sum()),
    )


def _correlation(x: NDArray[np.float64], y: NDArray[np.float64], degenerate: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pearson correlation of each row of x with the same row of y; 0 for degenerate rows."""
    x, y = _standard(x), _standard(y)
    correlation = np.clip(np.einsum("tk,tk->t", x, y), -1.0, 1.0)
    return np.where(degenerate, 0.0, correlation)


def _standard(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows centered and of unit length; scaled first, so that squares neither overflow nor vanish."""
    scaled = values / np.maximum(np.abs(values).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    centered = scaled - scaled.mean(axis=1, keepdims=True)
    centered /= np.maximum(np.abs(centered).max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    lengths = np.sqrt(np.einsum("tk,tk->t", centered, centered))
    unit: NDArray[np.float64] = centered / np.maximum(lengths, np.finfo(np.float64).tiny)[:, None]
    return unit
