"""The Python interface: what the command line does, on arrays.

Attributors run in a process of their own here too; ground truth stays on this side.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attriboard.attribution.job import Job
from attriboard.attribution.runner import Outcome
from attriboard.base.display import Display, Silent
from attriboard.base.errors import AttriboardError, InputError
from attriboard.base.scores import Scores
from attriboard.base.terminal import Terminal
from attriboard.contracts.task import Task
from attriboard.evaluation.budget import BudgetChoice
from attriboard.evaluation.catalog import load_task
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.practice import SurrogateChoice, Table, build_own_truth, choose, evaluate_methods
from attriboard.evaluation.proponents import Proponents, find_proponents
from attriboard.evaluation.qld import QldPlan
from attriboard.evaluation.qld_table import QldTable, query_loss_differences
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth
from attriboard.records.model import LdsResult


def attribute(
    task: Task | str | Path,
    attributor: str | Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = None,
    isolated: bool = True,
    parameters: str | Sequence[str] = (),
    **hyperparameters: Any,
) -> Scores:
    """Run an attributor on a task's checkpoints: published ones, those that the task brings, or trained here once.

    Args:
        task: a live task, its name, or a card's or task's file.
        attributor: a name, or the path of a `.py` file.
        seed: for the attributor's randomness.
        device: where its tensors live.
        threads: of the numerical libraries; by default all cores.
        isolated: whether it runs in a process of its own. In this one a debugger stops in its code, and its exceptions
            arrive unchanged.
        parameters: glob patterns of the attributed parameters, such as `"head.*"`; the task's own by default.
        hyperparameters: values that differ from the defaults.

    Returns:
        Scores (n_test, n_train), positive = including that training example raises that target.

    Raises:
        AttriboardError: the attributor failed; the message has its reason and where in its code that was.
    """
    workspace = Workspace(task, seed=seed, parameters=parameters, device=device, threads=threads, isolated=isolated)
    return _scores(workspace, workspace.job(attributor, [_plain_values(hyperparameters)]))


def select(
    task: Task | str | Path,
    attributor: str | Path,
    *,
    budget: int | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seed: int = 0,
    parameters: str | Sequence[str] = (),
    device: str = "cpu",
    threads: int | None = None,
    **hyperparameters: Any,
) -> SurrogateChoice | BudgetChoice:
    """Choose a method's hyperparameters; no ground truth is needed and none is read.

    Without a budget, the surrogate ξ chooses λ without any retrain (Wang et al. 2025, arXiv 2505.24261, Algorithm 1).
    With one, that many models are trained on random subsets, once for all methods and grids of the task, and the
    configuration that predicts them best is chosen: any hyperparameter of either stage, several at once.

    Args:
        task: a live task, its name, or a card's or task's file.
        attributor: a name, or the path of a `.py` file.
        budget: number of models to train; 8 to 16 are usually enough.
        grid: name → values to choose from; by default the method's own grid of λ.
        seed: for the method's randomness.
        parameters: glob patterns of the attributed parameters, such as `"head.*"`; the task's own by default.
        device: where its tensors live.
        threads: of the numerical libraries; by default all cores.
        hyperparameters: values that differ from the defaults and are not chosen.

    Raises:
        InputError: a grid that needs a budget, or values that the method does not have.
        AttriboardError: nothing could be chosen; the message has the reason.
    """
    workspace = Workspace(task, seed=seed, parameters=parameters, device=device, threads=threads)
    return choose(workspace, attributor, budget=budget, grid=grid, fixed=_plain_values(hyperparameters))


def build_ground_truth(
    task: Task | str | Path,
    *,
    masks: int | None = None,
    repeats: int | None = None,
    question: str | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> GroundTruth:
    """Retrain on random half-subsets, or as another question says; `lds` and `evaluate` find what came out.

    What it will cost is said first, from the time of one retrain, which is kept.
    Finished retrains are kept whatever happens: the same call goes on where it was interrupted, and a larger size
    trains only what is missing.

    Args:
        task: a live task, its name, or a card's or task's file.
        masks: number of subsets; 50 by default for your own tasks.
        repeats: retrains of each with other seeds; at least 2 for a noise ceiling.
        question: what is removed and under which seeds, as in `"1pct-same"`; random halves with fresh seeds by default.
        workers: processes that train; by default one for each core.
        quiet: whether nothing is printed.

    Raises:
        InputError: sizes out of range, or a task that cannot be trained.
    """
    workspace = Workspace(task, workers=workers, display=_display(quiet))
    return build_own_truth(workspace, question=workspace.task.card.question(question), masks=masks, repeats=repeats)


def evaluate(
    task: Task | str | Path,
    methods: str | Path | Sequence[str | Path],
    *,
    groundtruth: GroundTruth | Path | str | None = None,
    question: str | None = None,
    seed: int = 0,
    parameters: str | Sequence[str] = (),
    threads: int | None = None,
    quiet: bool = False,
) -> Table:
    """Default, selected and oracle LDS of methods side by side, with intervals, the ceiling and seconds.

    Args:
        task: a live task, its name, or a card's or task's file.
        methods: names, or paths of `.py` files; one or several.
        groundtruth: what to grade by, or its file; by default the published one, or the largest one built here.
        question: which of the task's ground truths, as in `"1pct-same"`; random halves with fresh seeds by default.
        seed: for the methods' randomness.
        parameters: glob patterns of the attributed parameters, such as `"head.*"`; the task's own by default.
        threads: of the numerical libraries; by default all cores.
        quiet: whether nothing is printed but the result.

    Returns:
        A table that prints itself. A method that fails is a row with its reason.

    Raises:
        InputError: the ground truth is another task's.
        DataError: the task has no ground truth; `build_ground_truth` makes one.
    """
    workspace = Workspace(task, seed=seed, parameters=parameters, threads=threads, display=_display(quiet))
    if groundtruth is not None or question is not None:
        workspace.grader = Grader(_truth(workspace.task, groundtruth, question))
    return evaluate_methods(workspace, [methods] if isinstance(methods, str | Path) else methods)


def qld(
    task: Task | str | Path,
    methods: str | Path | Sequence[str | Path],
    *,
    fraction: float = 0.01,
    points: int | None = None,
    repeats: int = 1,
    results: Path | str | None = None,
    seed: int = 0,
    parameters: str | Sequence[str] = (),
    threads: int | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> QldTable:
    """Query loss difference: remove each test point's own top examples, retrain, and compare with random removals.

    What it will cost is said first. Finished retrains are kept whatever happens: the same call goes on where it was
    interrupted. No ground truth is needed.

    Args:
        task: a live task, its name, or a card's or task's file.
        methods: names, or paths of `.py` files; one or several.
        fraction: share of the training set that each point loses.
        points: scoring points, drawn at random; by default all where that takes a minute for each row, else 100, and
            fewer where these take half an hour.
        repeats: seeds of each point.
        results: folder of records, which answers what it knows and gets what is new.
        seed: for the methods' randomness.
        parameters: glob patterns of the attributed parameters, such as `"head.*"`; the task's own by default.
        threads: of the numerical libraries; by default all cores.
        workers: processes that train; by default one for each core.
        quiet: whether nothing is printed but the result.

    Returns:
        A table that prints itself, with the default and the selected hyperparameters of every method. A method that
        fails is a row with its reason.

    Raises:
        InputError: a fraction that removes nothing or everything, too few points, or a task that cannot be trained.
        UnknownNameError: no such method.
    """
    plan = QldPlan(fraction, points, repeats)
    workspace = Workspace(
        task, seed=seed, parameters=parameters, threads=threads, workers=workers, display=_display(quiet)
    )
    named = [methods] if isinstance(methods, str | Path) else methods
    return query_loss_differences(workspace, named, plan, None if results is None else Path(results))


def top(
    task: Task | str | Path,
    attributor: str | Path,
    test: int | Sequence[int] = (),
    *,
    where: Mapping[str, Any] | None = None,
    k: int = 8,
    selected: bool = False,
    tokens: bool = False,
    seed: int = 0,
    parameters: str | Sequence[str] = (),
    device: str = "cpu",
    threads: int | None = None,
    **hyperparameters: Any,
) -> Proponents:
    """The k most helpful and most harmful training examples of a test example, or of several taken together.

    Args:
        task: a live task, its name, or a card's or task's file.
        attributor: a name, or the path of a `.py` file.
        test: one test example or several, whose scores are averaged.
        where: instead of them all that have a label, as in `where={"label": 3}`.
        k: how many of either kind.
        selected: whether λ is chosen by ξ first.
        tokens: whether the tokens of these examples get scores too, where the inputs are sequences: `grad_dot`,
            `tracin` and `iffim` give them. They add up to the example's score.
        seed: for the attributor's randomness.
        parameters: glob patterns of the attributed parameters, such as `"head.*"`; the task's own by default.
        device: where its tensors live.
        threads: of the numerical libraries; by default all cores.
        hyperparameters: values that differ from the defaults.

    Returns:
        Positions and scores, with the hyperparameters that gave them. It prints itself; `rows` of
        `attriboard.evaluation.examples` shows the examples.

    Raises:
        InputError: an example or a label that does not exist, or k out of range.
        AttriboardError: the attributor failed.
    """
    workspace = Workspace(task, seed=seed, parameters=parameters, device=device, threads=threads)
    tests = _positions(test)
    fixed = _plain_values(hyperparameters)
    return find_proponents(
        workspace, attributor, tests, where=where, k=k, selected=selected, fixed=fixed, tokens=tokens
    )


def self_influence(
    task: Task | str | Path,
    attributor: str | Path,
    *,
    seed: int = 0,
    parameters: str | Sequence[str] = (),
    threads: int | None = None,
    **hyperparameters: Any,
) -> Scores:
    """How much each training example raises its own target, (n_train,): large for odd examples and wrong labels.

    Args:
        task: a live task, its name, or a card's or task's file.
        attributor: a name, or the path of a `.py` file.
        seed: for the method's randomness.
        parameters: glob patterns of the attributed parameters, such as `"head.*"`; the task's own by default.
        threads: of the numerical libraries; by default all cores.
        hyperparameters: values that differ from the defaults.

    Raises:
        AttriboardError: the attributor failed.
    """
    workspace = Workspace(task, seed=seed, parameters=parameters, threads=threads)
    job = workspace.job(attributor, [_plain_values(hyperparameters)]).model_copy(update={"queries": "train"})
    return np.ascontiguousarray(np.diagonal(_scores(workspace, job)))


def lds(
    scores: Any,
    task: Task | str | Path,
    *,
    groundtruth: GroundTruth | Path | str | None = None,
    question: str | None = None,
) -> LdsResult:
    """Grade scores on a task's scoring points.

    Args:
        scores: (n_test, n_train), an array or a tensor; graded in the precision that it has.
        task: a live task, its name, or a card's or task's file.
        groundtruth: what to grade by, or its file; by default the published one, or the largest one built here.
        question: which of the task's ground truths, as in `"1pct-same"`; random halves with fresh seeds by default.

    Returns:
        Mean LDS with its 95 % interval, and the correlation of every scoring point.

    Raises:
        InputError: another shape, no real numbers, or the ground truth of another task.
        DataError: the task has no ground truth.
    """
    grader = Grader(_truth(task, groundtruth, question))
    return grader.grade(grader.predict(scores))


def load_ground_truth(
    task: Task | str | Path, *, groundtruth: Path | str | None = None, question: str | None = None
) -> GroundTruth:
    """A task's ground truth: `masks`, `seeds`, `outputs`, `target`, checked against its SHA-256.

    A published bundle that is not here is fetched once, into the cache. Where none is published, the largest one that
    was built on this machine is taken.

    Args:
        task: a live task, its name, or a card's or task's file.
        groundtruth: a bundle's file, or a folder of bundles with a `registry.json`.
        question: which of the task's ground truths, as in `"1pct-same"`; random halves with fresh seeds by default.

    Raises:
        DataError: there is none, or no place has it.
        FormatError: the file is damaged.
    """
    if groundtruth is not None and Path(groundtruth).is_file():
        return _truth(task, groundtruth, question)
    workspace = Workspace(task, None if groundtruth is None else Path(groundtruth))
    return workspace.bundles.truth_of(workspace.task.card.question(question))


def _truth(
    task: Task | str | Path, groundtruth: GroundTruth | Path | str | None, question: str | None = None
) -> GroundTruth:
    """A task's ground truth, as given, from a file, or the one that there is.

    Raises:
        InputError: it is another task's, or asks another question.
    """
    if groundtruth is None:
        return load_ground_truth(task, question=question)
    live = task if isinstance(task, Task) else load_task(task)
    found = groundtruth if isinstance(groundtruth, GroundTruth) else read_ground_truth(Path(groundtruth))
    known = found.card.task
    if known.fingerprint != live.card.fingerprint:
        raise InputError(
            f"groundtruth: is of {known.name} (fingerprint {known.fingerprint[:12]}), not of this {live.card.name} "
            f"({live.card.fingerprint[:12]}): its data, model or recipe are others; build one for this task"
        )
    if question is not None and found.question != live.card.question(question):
        asks = (found.question or known.usual_question).name
        raise InputError(f"question = {question}: the ground truth that is given asks {asks}; leave question out")
    return found


def _positions(test: Any) -> list[int]:
    """Test examples as whole numbers; a mask of them as its positions.

    Raises:
        InputError: neither.
    """
    array = np.atleast_1d(np.asarray(test))
    if array.dtype == bool:
        return [int(position) for position in np.flatnonzero(array)]
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"test = {test!r}: must be the position of a test example, or several")
    return [int(position) for position in array.ravel()]


def _scores(workspace: Workspace, job: Job) -> Scores:
    """Scores of a job's one configuration.

    Raises:
        AttriboardError: the attributor failed; the message has its reason and where in its code that was.
    """
    (outcome,) = workspace.runner.run(job)
    assert isinstance(outcome, Outcome), "a job without selectors has outcomes only"
    if outcome.scores is None:
        details = f"\n{outcome.details}" if outcome.details else ""
        name = outcome.attributor.name
        raise AttriboardError(f"{name} on {workspace.task.card.name} failed: {outcome.reason}{details}")
    return outcome.scores


def _plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """NumPy's and PyTorch's scalars as Python's."""
    return {name: value.item() if hasattr(value, "item") else value for name, value in values.items()}


def _display(quiet: bool) -> Display:
    return Silent() if quiet else Terminal()
