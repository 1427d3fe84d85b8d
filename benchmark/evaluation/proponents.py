"""Which training examples matter most: for a test example, a group of them, or the training examples themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError


@dataclass(frozen=True, eq=False)
class Proponents:
    """The most helpful and the most harmful training examples of one or several test examples.

    Attributes:
        method: whose scores.
        hyperparameters: with which it was run.
        tests: the test examples whose scores were averaged.
        helpful: training examples, the most helpful first.
        helpful_scores: of each; positive raises the target of the test examples.
        harmful: training examples, the most harmful first.
        harmful_scores: of each.
    """

    method: str
    hyperparameters: dict[str, Any]
    tests: tuple[int, ...]
    helpful: tuple[int, ...]
    helpful_scores: tuple[float, ...]
    harmful: tuple[int, ...]
    harmful_scores: tuple[float, ...]

    def __repr__(self) -> str:
        shown = f"test {self.tests[0]}" if len(self.tests) == 1 else f"{len(self.tests)} test examples"
        settings = ", ".join(
            f"{k} = {v:.3g}" if isinstance(v, float) else f"{k} = {v}" for k, v in self.hyperparameters.items()
        )
        lines = [f"{self.method} for {shown}" + (f", {settings}" if settings else "")]
        for name, rows, scores in (
            ("helpful", self.helpful, self.helpful_scores),
            ("harmful", self.harmful, self.harmful_scores),
        ):
            lines.append(
                f"  {name}: " + ", ".join(f"{row} ({score:+.3g})" for row, score in zip(rows, scores, strict=True))
            )
        return "\n".join(lines)


def proponents(
    scores: NDArray[np.floating], tests: Sequence[int], k: int, method: str, hyperparameters: dict[str, Any]
) -> Proponents:
    """The k most helpful and most harmful training examples by the mean score over test examples.

    Args:
        scores: (n_test, n_train).
        tests: rows of `scores`.
        k: how many of either kind.
        method: whose scores.
        hyperparameters: with which it was run.

    Raises:
        InputError: no test example, one that does not exist, or k out of range.
    """
    n_test, n_train = scores.shape
    wrong = [test for test in tests if not 0 <= test < n_test]
    if wrong or not tests:
        raise InputError(f"test = {wrong[0] if wrong else 'none'}: must be among 0 … {n_test - 1}")
    if not 1 <= k <= n_train:
        raise InputError(f"k = {k}: must lie in 1 … n_train = {n_train}")
    mean = scores[list(tests)].mean(axis=0, dtype=np.float64)
    order = np.argsort(-mean, kind="stable")
    best, worst = order[:k], order[::-1][:k]
    return Proponents(
        method,
        hyperparameters,
        tuple(int(test) for test in tests),
        tuple(best.tolist()),
        tuple(mean[best].tolist()),
        tuple(worst.tolist()),
        tuple(mean[worst].tolist()),
    )
