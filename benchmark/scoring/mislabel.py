"""Mislabel detection: how well a suspicion ranks the training examples whose label is wrong.

AUC is the probability that a wrong label is more suspicious than a right one (ties count half), with DeLong's interval:
DeLong, DeLong & Clarke-Pearson, Biometrics 44 (1988), by midranks as in Sun & Xu (2014). The recall curve says which
share of the wrong labels one finds by inspecting a share of the training set, the most suspicious first. Among equally
suspicious examples nothing says which comes first: recall and average precision are means over all orders of ties.
"""

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
    ties = _Ties.of(values, wrong)
    return Detection(
        auc=auc,
        ci95=(max(0.0, auc - 1.96 * error), min(1.0, auc + 1.96 * error)),
        average_precision=ties.average_precision(),
        recall=tuple(ties.recall(share) for share in INSPECTED),
    )


@dataclass(frozen=True)
class _Ties:
    """Positions in the order of suspicion, the most suspicious first, with what a random order of ties puts there.

    At position j of a group of g equally suspicious examples, h of them wrong, a wrong label stands with probability
    h/g. If one does, (j − 1)(h − 1)/(g − 1) others of the group are expected before it.

    Attributes:
        chance: (n,) probability that a wrong label stands at each position.
        before: (n,) wrong labels expected before each position.
        before_a_hit: (n,) the same, if a wrong label stands there.
    """

    chance: NDArray[np.float64]
    before: NDArray[np.float64]
    before_a_hit: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray[np.float64], wrong: NDArray[np.bool_]) -> "_Ties":
        """From suspicion without NaN (n,) and which labels are wrong (n,)."""
        _, group, sizes = np.unique(-values, return_inverse=True, return_counts=True)
        hits = np.bincount(group, weights=wrong, minlength=len(sizes))
        earlier = np.cumsum(hits) - hits
        place = np.arange(len(values)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # j − 1
        g, h, earlier = (np.repeat(part, sizes) for part in (sizes, hits, earlier))
        others = place * (h - 1) / np.maximum(g - 1, 1)
        return cls(h / g, earlier + place * h / g, earlier + others)

    def average_precision(self) -> float:
        """Expected mean over the wrong labels of the precision where each is found."""
        positions = np.arange(1, len(self.chance) + 1)
        return float((self.chance * (self.before_a_hit + 1) / positions).sum() / self.chance.sum())

    def recall(self, share: float) -> float:
        """Expected share of the wrong labels among a share of the examples."""
        last = max(1, round(share * len(self.chance))) - 1
        return float((self.before[last] + self.chance[last]) / self.chance.sum())


def _delong(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> tuple[float, float]:
    """AUC and its standard error."""
    m, n = len(positive), len(negative)
    together = rankdata(np.concatenate([positive, negative]))
    # Of every positive the share of negatives below it, of every negative the share of positives above it.
    above = (together[:m] - rankdata(positive)) / n
    below = 1 - (together[m:] - rankdata(negative)) / m
    return float(above.mean()), float(np.sqrt(above.var(ddof=1) / m + below.var(ddof=1) / n))
