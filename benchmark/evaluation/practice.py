"""What practitioners do with a task of their own: choose λ, build a ground truth, compare methods, look at examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attriboard.base.errors import AttriboardError, InputError
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.question import Question
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.budget import BudgetChoice, choose_by_budget
from attriboard.evaluation.catalog import load_oracle
from attriboard.evaluation.selection import at_edge, study_selection
from attriboard.evaluation.sweeps import grid_configurations
from attriboard.evaluation.ungraded import run_and_choose
from attriboard.evaluation.variants import VARIANTS
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import build_ground_truth, check_question, open_store
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth
from attriboard.groundtruth.estimate import estimate_ground_truth
from attriboard.groundtruth.opening import own_truth_file
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord
from attriboard.scoring.differences import lds_difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class SurrogateChoice:
    """λ as the surrogate ξ chooses it, without a single retrain.

    Attributes:
        attributor: whose.
        regularization: the pick.
        hyperparameters: the configuration with it, complete.
        candidates: the λ that were compared, ascending.
        xi: mean ξ of each over the calibration points.
        at_edge: whether ξ̄ does not rise through one half within the candidates. Then ξ does not settle λ: give
            `budget=8`, or candidates of your own.
        transferred: whether the spectrum is another method's, of the matrix that λ is added to.
        note: what the selector says.
    """

    attributor: str
    regularization: float
    hyperparameters: dict[str, HyperparameterValue]
    candidates: tuple[float, ...]
    xi: tuple[float, ...]
    at_edge: bool
    transferred: bool
    note: str

    def __repr__(self) -> str:
        at = self.candidates.index(self.regularization) if self.regularization in self.candidates else None
        xi = "" if at is None else f", mean ξ = {self.xi[at]:.2f}"
        edge = ", at the edge: ξ does not settle λ" if self.at_edge else ""
        rest = f"{edge}{', spectrum of another method' if self.transferred else ''}"
        return f"<{self.attributor}: λ = {self.regularization:.3g} of {len(self.candidates)} candidates{xi}{rest}>"

    def figure(self) -> "Figure":
        """Mean ξ against λ, with the pick."""
        from attriboard.toolkit.regularization import xi_figure

        return xi_figure(self.candidates, self.xi, self.regularization, self.attributor)


def choose(
    workspace: Workspace,
    attributor: str | Path,
    *,
    budget: int | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    store: Path | None = None,
) -> SurrogateChoice | BudgetChoice:
    """Choose hyperparameters: λ without retrains, or anything with a few.

    Args:
        workspace: the task.
        attributor: its name or file.
        budget: number of retrains; without one, ξ chooses λ.
        grid: name → values to choose from; by default the method's own grid of λ, and with a budget what lies between.
        fixed: values that differ from the defaults.
        store: folder of the task's retrains; the shared one by default.

    Raises:
        InputError: a grid without a budget of anything but λ, or a method that has no λ and no grid.
        AttriboardError: nothing could be chosen; the message has the reason.
    """
    fixed = dict(fixed or {})
    grid = None if grid is None else _lists(grid)
    described = workspace.runner.describe(workspace.job(attributor, [fixed]))
    regularized = REGULARIZATION in described.configurations[0]
    if budget is None:
        return _by_surrogate(workspace, attributor, fixed, grid, regularized)
    own = grid is None
    if grid is None:
        if not regularized:
            raise InputError(
                f"{attributor}: has no λ; name what to choose from, as in grid={{'checkpoints': [1, 2, 5]}}"
            )
        grid = {REGULARIZATION: described.grid(REGULARIZATION)}
    points = grid_configurations([(key, tuple(values)) for key, values in grid.items()], fixed)
    return choose_by_budget(workspace, attributor, points, budget, between=own, store=store)


def _lists(grid: Mapping[str, Any]) -> Mapping[str, Sequence[Any]]:
    """A grid whose values are lists.

    Raises:
        InputError: one is a single value, or empty.
    """
    for name, values in grid.items():
        if isinstance(values, str) or not hasattr(values, "__len__") or len(values) == 0:
            raise InputError(f"grid of {name} = {values!r}: give a list of values, as in {{{name!r}: [0.1, 1.0]}}")
    return {name: list(values) for name, values in grid.items()}


def _by_surrogate(
    workspace: Workspace,
    attributor: str | Path,
    fixed: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]] | None,
    regularized: bool,
) -> SurrogateChoice:
    if not regularized:
        raise AttriboardError(f"{attributor}: has no λ to choose; other hyperparameters need retrains: give budget=16")
    if grid is not None and set(grid) != {REGULARIZATION}:
        names = ", ".join(grid)
        raise InputError(f"grid of {names}: without retrains only {REGULARIZATION} can be chosen; give budget=16")
    job = workspace.job(attributor, [dict(fixed)], selectors=(HEADLINE_SELECTOR,))
    found = run_and_choose(workspace.runner, job, None if grid is None else grid[REGULARIZATION])
    if found.reason is not None:
        raise AttriboardError(f"{attributor} on {workspace.task.card.name}: {found.reason}")
    (choice,) = found.choices
    (value,) = choice.values.values()
    return SurrogateChoice(
        attributor=found.outcome.attributor.name,
        regularization=float(value or 0.0),
        hyperparameters=found.outcome.hyperparameters | choice.values,
        candidates=choice.candidates,
        xi=choice.criterion or (),
        at_edge=at_edge(choice),
        transferred=choice.transferred,
        note=choice.note,
    )


def build_own_truth(
    workspace: Workspace,
    *,
    question: Question | None = None,
    masks: int | None = None,
    repeats: int | None = None,
    store: Path | None = None,
) -> GroundTruth:
    """Retrain on random subsets and keep what came out in the cache, where grading finds it; says the cost first.

    Args:
        workspace: the task.
        question: what is removed and under which seeds; the usual one by default.
        masks: number of subsets; the card's by default.
        repeats: retrains of each, with other seeds.
        store: folder of the task's retrains; the shared one by default. What it has is not trained again.

    Raises:
        InputError: sizes out of range, or a task that cannot be trained.
    """
    task, card = workspace.task, workspace.task.card
    size = card.size_of(question)
    n_masks = size.n_masks if masks is None else masks
    n_repeats = size.n_repeats if repeats is None else repeats
    if not (isinstance(n_masks, int) and isinstance(n_repeats, int) and n_masks >= 3 and n_repeats >= 1):
        raise InputError(f"masks = {n_masks}, repeats = {n_repeats}: must be whole numbers, at least 3 and 1")
    path = own_truth_file(card, n_masks, n_repeats, question)
    shards = open_store(task, store)
    sizes: dict[str, Any] = {"question": question, "n_masks": n_masks, "n_repeats": n_repeats}
    check_question(task, question)
    cost = estimate_ground_truth(task, shards, workspace.executor(), **sizes)
    workspace.display.note(f"ground truth of {card.name}: {cost}")
    with workspace.display.progress(f"ground truth of {card.name}") as progress:
        build_ground_truth(
            task,
            path,
            shards,
            **sizes,
            executor=workspace.executor(progress.say),
            progress=progress,
        )
    return read_ground_truth(path)


@dataclass(frozen=True)
class Row:
    """One method with one way of choosing its hyperparameters.

    Attributes:
        method: its name.
        variant: `default`, `selected` (λ by ξ) or `oracle` (λ by the ground truth of calibration points).
        lds: mean LDS on the scoring points; `None` with a reason.
        ci95: its 95 % interval.
        regularization: λ; `None` where the method has none.
        seconds: of the fit and the scoring.
        reason: why there is no LDS; empty otherwise.
    """

    method: str
    variant: str
    lds: float | None
    ci95: tuple[float, float] | None
    regularization: HyperparameterValue
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    """Methods side by side on one task.

    Attributes:
        task: its name.
        rows: in the order of methods that was asked for; of each, default, selected, oracle.
        ceiling: the LDS that a perfect predictor would get; `None` where repeats are too few to tell.
        resolution: the smallest difference in LDS that this ground truth can tell apart at 95 %, for the typical pair
            of rows; `None` where no row was scored.
        records: the records behind the rows.
    """

    task: str
    rows: tuple[Row, ...]
    ceiling: float | None
    resolution: float | None
    records: tuple[AttributionRecord, ...]

    def __str__(self) -> str:
        ceiling = "unknown" if self.ceiling is None else f"{self.ceiling:.3f}"
        lines = [
            f"{self.task}: LDS, ceiling {ceiling}",
            _line("method", "variant", "LDS", "95 % interval", "λ", "seconds"),
        ]
        for row in self.rows:
            lds = "failed" if row.lds is None else f"{row.lds:.3f}"
            interval = f"{row.ci95[0]:.3f} … {row.ci95[1]:.3f}" if row.ci95 else ""
            value = f"{row.regularization:.3g}" if isinstance(row.regularization, float) else ""
            seconds = "" if row.seconds is None else f"{row.seconds:.1f}"
            lines.append(
                _line(row.method, row.variant, lds, interval, value, seconds)
                + (f"  {row.reason}" if row.reason else "")
            )
        if self.resolution is not None:
            lines.append(f"differences below {self.resolution:.3f} cannot be told apart with this ground truth")
        return "\n".join(lines)

    __repr__ = __str__


def _line(method: str, variant: str, lds: str, interval: str, value: str, seconds: str) -> str:
    return f"{method:<22} {variant:<9} {lds:>7}  {interval:<17} {value:>9} {seconds:>8}".rstrip()


def evaluate_methods(workspace: Workspace, methods: Sequence[str | Path]) -> Table:
    """Default, selected and oracle LDS of methods; what fails is a row with its reason.

    Args:
        workspace: a task with ground truth.
        methods: names or files.

    Raises:
        DataError: the task has no ground truth.
    """
    rows: list[Row] = []
    records: list[AttributionRecord] = []
    for method in methods:
        try:
            job = workspace.job(method, selectors=(HEADLINE_SELECTOR,))
            with workspace.display.progress(f"{method} on {workspace.task.card.name}") as progress:
                study = study_selection(
                    workspace.task, workspace.grader, job, load_oracle(), runner=workspace.runner, progress=progress
                )
        except AttriboardError as error:
            rows.append(Row(str(method), "default", None, None, None, None, str(error)))
            continue
        kept = sorted(
            (record for record in study.records if record.variant in VARIANTS),
            key=lambda record: VARIANTS.index(record.variant),
        )
        rows += [_row(record) for record in kept]
        records += kept
    return Table(
        workspace.task.card.name, tuple(rows), workspace.grader.ceiling.mean, _resolution(records), tuple(records)
    )


def _row(record: AttributionRecord) -> Row:
    seconds = None if record.fit_seconds is None else record.fit_seconds + (record.score_seconds or 0.0)
    value = record.hyperparameters.get(REGULARIZATION)
    lds = record.lds
    return Row(
        record.attributor.name,
        record.variant,
        lds.mean if lds else None,
        lds.ci95 if lds else None,
        value,
        seconds,
        record.reason or "",
    )


def _resolution(records: Sequence[AttributionRecord]) -> float | None:
    """Median over pairs of half the width of the 95 % interval of a paired difference.

    Of one record alone, what two methods like it that err independently would have.
    """
    reaches = [
        (found.ci95[1] - found.ci95[0]) / 2
        for i, record in enumerate(records)
        for other in records[:i]
        if record.lds and other.lds and (found := lds_difference(record.lds, other.lds)).se > 0
    ]
    alone = [np.sqrt(2) * (record.lds.ci95[1] - record.lds.ci95[0]) / 2 for record in records if record.lds]
    return float(np.median(reaches or alone)) if alone else None
