"""Jackknife influences of masks on the mean LDS: a short vector that lets two records be compared later.

The influence of mask k is I_k = (n_masks − 1)(mean − mean without mask k) (Efron & Stein 1981, *The Jackknife Estimate
of Variance*). Leave-one-out correlations are exact: every item is ranked anew. `attriboard.scoring.differences` says
how two records are compared by them.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.lds import paired_columns
from attriboard.scoring.ranks import sort_rows, weighted_spearman


def jackknife(predictions: NDArray[Any], outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Exact leave-one-mask-out influences, (n_masks,).

    Args:
        predictions: (n_masks, n_test), from `predict`; n_masks ≥ 3.
        outputs: (n_masks, n_test) or (n_masks, n_repeats, n_test).

    Raises:
        InputError: the shapes do not fit together, an output is not finite, or there are fewer than three
            masks.
    """
    x, y, _ = paired_columns(predictions, outputs)
    n_masks = x.shape[1]
    if n_masks < 3:
        raise InputError(f"predictions {predictions.shape}: leaving one mask out needs at least three")
    weights = np.vstack([np.ones((1, n_masks)), 1.0 - np.eye(n_masks)])
    means = weighted_spearman(sort_rows(x), sort_rows(y), weights).mean(axis=0)
    influence: NDArray[np.float64] = (n_masks - 1) * (means[0] - means[1:])
    return influence
