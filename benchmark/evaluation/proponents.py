"""Which training examples matter most: for a test example, a group of them, or the training examples themselves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Tokens
from attriboard.attribution.runner import Outcome
from attriboard.base.errors import AttriboardError, InputError
from attriboard.base.scores import extremes
from attriboard.contracts.task import Examples
from attriboard.evaluation.practice import choose
from attriboard.evaluation.workspace import Workspace


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
        tokens: training example → scores of its tokens, which add up to the example's; empty unless asked for.
    """

    method: str
    hyperparameters: dict[str, Any]
    tests: tuple[int, ...]
    helpful: tuple[int, ...]
    helpful_scores: tuple[float, ...]
    harmful: tuple[int, ...]
    harmful_scores: tuple[float, ...]
    tokens: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

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
    _check(tests, k, *scores.shape)
    mean, best, worst = extremes(scores, tests, k)
    return Proponents(
        method,
        hyperparameters,
        tuple(int(test) for test in tests),
        tuple(best.tolist()),
        tuple(mean[best].tolist()),
        tuple(worst.tolist()),
        tuple(mean[worst].tolist()),
    )


def _check(tests: Sequence[int], k: int, n_test: int, n_train: int) -> None:
    wrong = [test for test in tests if not 0 <= test < n_test]
    if wrong or not tests:
        raise InputError(f"test = {wrong[0] if wrong else 'none'}: must be among 0 … {n_test - 1}")
    if not isinstance(k, int | np.integer) or not 1 <= k <= n_train:
        raise InputError(f"k = {k}: must lie in 1 … n_train = {n_train}")


def find_proponents(
    workspace: Workspace,
    attributor: str | Path,
    tests: Sequence[int],
    *,
    where: Mapping[str, Any] | None = None,
    k: int = 8,
    selected: bool = False,
    fixed: Mapping[str, Any] | None = None,
    tokens: bool = False,
) -> Proponents:
    """Run an attributor and take the most helpful and most harmful training examples.

    Args:
        workspace: the task.
        attributor: a name, or the path of a `.py` file.
        tests: test examples, whose scores are averaged.
        where: instead of them, what all of them have: `{"label": 3}`.
        k: how many of either kind.
        selected: whether λ is chosen by ξ first.
        fixed: values that differ from the defaults.
        tokens: whether the tokens of these examples get scores too.

    Raises:
        InputError: no or unknown examples, or k out of range; said before the attributor runs.
        AttriboardError: the attributor failed, or λ could not be chosen.
    """
    if bool(where) == bool(tests):
        raise InputError("test and where: give one of them, as in test=7 or where={'label': 3}")
    n_test, n_train = workspace.task.score_shape
    tests = matching(workspace.task.load_data().test, where) if where else tests
    _check(tests, k, n_test, n_train)
    values = dict(fixed or {})
    if selected:
        values = choose(workspace, attributor, fixed=values).hyperparameters
    job = workspace.job(attributor, [values])
    if tokens:
        job = job.model_copy(update={"tokens": Tokens(tests=tuple(tests), k=k)})
    with workspace.display.progress(f"{job.attributor.name} on {workspace.task.card.name}"):
        (outcome,) = workspace.runner.run(job)
    assert isinstance(outcome, Outcome), "a job without selectors has outcomes only"
    if outcome.scores is None:
        details = f"\n{outcome.details}" if outcome.details else ""
        raise AttriboardError(
            f"{outcome.attributor.name} on {workspace.task.card.name} failed: {outcome.reason}{details}"
        )
    found = proponents(outcome.scores, tests, k, outcome.attributor.name, outcome.hyperparameters)
    return replace(found, tokens={at: tuple(scores.tolist()) for at, scores in outcome.tokens.items()})


def matching(examples: Examples, where: Mapping[str, Any]) -> list[int]:
    """Positions of the examples that have a label.

    Args:
        examples: of a task.
        where: `{"label": value}`, a class number, or a target of one number.

    Raises:
        InputError: another name, targets that are no labels, or a label that no example has.
    """
    if set(where) != {"label"}:
        raise InputError(f"where: {', '.join(map(str, where))}: must be label, as in label=3")
    if examples.targets.dim() != 1:
        raise InputError("where label: the targets of this task are not one number each; name test examples instead")
    try:
        label = float(where["label"])
    except (TypeError, ValueError):
        raise InputError(f"where label={where['label']}: must be a number") from None
    found: list[int] = (examples.targets.double() == label).nonzero().flatten().tolist()
    if not found:
        values = sorted(set(examples.targets.tolist()))
        shown = ", ".join(f"{value:g}" for value in values[:10]) + (", …" if len(values) > 10 else "")
        raise InputError(f"where label={where['label']}: no test example has it; there are {shown}")
    return found
