"""Wrong labels on purpose: a stated share of training examples is given another class, always the same ones."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_STREAM = 4  # second key word of Philox: one per purpose


def flip_labels(labels: NDArray[Any], share: float, seed: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Give round(share · n) examples another class, each of the others with the same probability.

    Each example draws two raw 64-bit words of Philox with key (seed, 4): those with the smallest first words are
    flipped, the second word says to which class. numpy guarantees the raw words, not its permutations.

    Args:
        labels: (n,) class numbers 0 … k − 1, k ≥ 2.
        share: fraction, in [0, 1).
        seed: in [0, 2⁶⁴).

    Returns:
        Labels (n,), and which of them are wrong (n,).
    """
    n, n_classes = len(labels), int(labels.max()) + 1
    words = np.random.Philox(key=np.array([seed, _STREAM], dtype=np.uint64)).random_raw(2 * n)
    wrong = np.zeros(n, dtype=bool)
    wrong[np.argsort(words[:n], kind="stable")[: round(share * n)]] = True
    steps = 1 + (words[n:] % np.uint64(n_classes - 1)).astype(labels.dtype)
    return np.where(wrong, (labels + steps) % n_classes, labels), wrong
