"""Mislabel detection: how well a suspicion ranks the training examples whose label is wrong.

AUC is the probability that a wrong label is more suspicious than a right one (ties count half), with DeLong's interval:
DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988), by midranks as in Sun & Xu (2014). The recall curve says which
share of the wrong labels one finds by inspecting a share of the training set, the most suspicious first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from attriboard.base.errors import InputError

INSPECTED = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the training set at which recall is recorded."""


@dataclass(frozen=True)
class Detection:
    """How well wrong labels were found.

    Attributes:
        auc: in [0, 1]; one half is chance.
        ci95: DeLong's interval, within [0, 1].
        average_precision: mean precision over the wrong labels, the most suspicious first.
        recall: share of the wrong labels among the most suspicious, at each of `INSPECTED`.
    """

    auc: float
    ci95: tuple[float, float]
    average_precision: float
    recall: tuple[float, ...]


def suspicion_of_self(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Self-influence: an example that props up its own prediction is untypical (Koh & Liang 2017; Pruthi et al. 2020).

    Args:
        scores: (n_train, n_train), of every training example on every other.
    """
    return np.diagonal(scores).astype(np.float64)


def suspicion_of_sums(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Harm to the calibration points: the negative of scores summed over them, (n_train,)."""
    return -sums


def detect(suspicion: NDArray[np.float64], wrong: NDArray[np.bool_]) -> Detection:
    """Grade a suspicion.

    Args:
        suspicion: (n_train,), high where a label seems wrong; NaN is the least suspicious.
        wrong: (n_train,).

    Raises:
        InputError: fewer than two wrong or two right labels, or no finite suspicion at all.
    """
    n_wrong = int(wrong.sum())
    if min(n_wrong, len(wrong) - n_wrong) < 2:
        raise InputError(f"{n_wrong} of {len(wrong)} labels are wrong: detection needs two of either kind")
    if not np.isfinite(suspicion).any():
        raise InputError(f"the suspicion of all {len(wrong)} examples is NaN or infinite")
    values = np.where(np.isnan(suspicion), -np.inf, suspicion)
    auc, error = _delong(values[wrong], values[~wrong])
    order = np.argsort(-values, kind="stable")
    hits = wrong[order]
    found = np.cumsum(hits, dtype=np.int64)
    precision = found / np.arange(1, len(hits) + 1)
    return Detection(
        auc=auc,
        ci95=(max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)),
        average_precision=float(precision[hits].mean()),
        recall=tuple(_recall(found, INSPECTED)),
    )


def _recall(found: NDArray[np.int64], shares: Sequence[float]) -> list[float]:
    counts = [max(1, round(share * len(found))) for share in shares]
    return [float(found[count - 1] / found[-1]) for count in counts]


def _delong(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> tuple[float, float]:
    """AUC and its standard error."""
    m, n = len(positive), len(negative)
    together = rankdata(np.concatenate([positive, negative]))
    # Of every positive the share of negatives below it, of every negative the share of positives above it.
    above = (together[:m] - rankdata(positive)) / n
    below = 1 - (together[m:] - rankdata(negative)) / m
    return float(above.mean()), float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
