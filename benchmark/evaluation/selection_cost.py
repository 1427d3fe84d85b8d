"""What choosing costs: regret against the number of retrains, from a published ground truth, without training anything.

One run of the attributor over the grid gives every score matrix. Selectors choose without retrains (k = 0); for k > 0,
`attriboard.scoring.budget` draws k single retrains of the truth at random and lets a rule choose from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Described, Job, Selected
from attriboard.attribution.runner import said
from attriboard.base.errors import InputError
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.catalog import selector_names
from attriboard.evaluation.choice_rules import centers, choice_rules, omega_at_pick, positions, swept_alone, varying
from attriboard.evaluation.grader import Grader, attributor_info, heading, rounded, same_run
from attriboard.evaluation.workspace import Workspace
from attriboard.records.cost import OmegaAtPick, Pick, RuleCost, SelectionCostRecord
from attriboard.records.files import write_record
from attriboard.records.model import HEADLINE_SELECTOR, AttributorInfo
from attriboard.scoring.budget import BudgetCurve, budget_curves, default_budgets
from attriboard.scoring.lds import mean_outputs
from attriboard.scoring.rules import Geometry, geometry, peak_offsets, values_beside

Configuration = dict[str, HyperparameterValue]


@dataclass(frozen=True, eq=False)
class GridRun:
    """A grid that an attributor was run on.

    Attributes:
        info: which method it is, for records.
        points: the grid points that did not fail, complete.
        numbers: of these points in the job.
        predictions: (n_points, n_masks, n_test) their scores summed over every mask.
        extra: configurations that selectors added to the grid, with their predictions (n_masks, n_test).
        choices: selector → its choice: the values that it changes, or the reason why there is none.
        centers: (n_points,) log₁₀ of ξ's λ on the fit of every grid point; see `choice_rules.centers`.
        n_failed: grid points that failed.
    """

    info: AttributorInfo
    points: list[Configuration]
    numbers: list[int]
    predictions: NDArray[np.float64]
    extra: list[tuple[Configuration, NDArray[np.float64]]]
    choices: dict[str, Selected]
    centers: NDArray[np.float64]
    n_failed: int


def selection_cost(
    workspace: Workspace,
    attributor: str | Path,
    configurations: Sequence[Mapping[str, Any]],
    *,
    budgets: Sequence[int] | None = None,
    n_draws: int = 200,
) -> SelectionCostRecord:
    """Regret against retrains for one attributor's grid.

    Args:
        workspace: a task with ground truth.
        attributor: its name or file.
        configurations: the grid, the default configuration first; see `grid_configurations`.
        budgets: numbers of retrains; by default 2, 4, 8, … up to half of the masks.
        n_draws: random draws for every number.

    Raises:
        InputError: fewer than two grid points did not fail, or a budget is out of range.
    """
    grader = workspace.grader
    job = workspace.job(attributor, [dict(c) for c in configurations], selectors=selector_names())
    run = run_grid(workspace, job)
    if len(run.points) < 2:
        raise InputError(f"{attributor}: {len(run.points)} of {len(configurations)} grid points did not fail, need two")
    swept = varying(run.points)
    budgets = tuple(budgets or default_budgets(len(grader.truth.masks)))
    scoring = [grader.mean_lds(p, grader.split.scoring) for p in run.predictions]
    calibration = [grader.mean_lds(p, grader.split.calibration) for p in run.predictions]
    oracle = int(np.argmax(calibration))
    truth = grader.truth.card

    shape = geometry(run.predictions[:, :, grader.split.calibration])
    rules = choice_rules(run.points, shape, run.centers)
    curves = budget_curves(run.predictions, grader.truth.target, grader.split, budgets, rules, n_draws=n_draws)
    return SelectionCostRecord(
        **heading(workspace.task, grader.truth, run.info, job),
        swept=swept,
        configurations=tuple(run.points),
        lds=_rounded(scoring),
        picks={**_picks(workspace, run, scoring), "oracle": _pick(run.points[oracle], scoring[oracle], scoring)},
        budgets=budgets,
        rules={name: _cost(curve) for name, curve in curves.items()},
        hidden=_hidden(run.points, scoring),
        omega=_omega(grader, run, shape),
        n_draws=n_draws,
        n_failed=run.n_failed,
        retrain_seconds=round(truth.retrain_seconds / (truth.n_masks * truth.n_repeats), 3),
        checkpoints_sha256=job.checkpoints_sha256,
    )


def known_or_made_costs(
    workspace: Workspace, attributors: Sequence[str | Path], results: Path
) -> list[SelectionCostRecord]:
    """For every method's own grid of λ, the finished record of the same code and ground truth, else one made now.

    Args:
        workspace: a task with ground truth.
        attributors: names or files.
        results: folder of records, which gets the new ones.

    Raises:
        InputError: a method without λ.
    """
    finished = [record for record in workspace.records(results) if isinstance(record, SelectionCostRecord)]
    found = []
    for attributor in attributors:
        job = workspace.job(attributor)
        described = workspace.runner.describe(job)
        start = described.configurations[0]
        if REGULARIZATION not in start:
            raise InputError(f"{attributor}: has no λ to choose")
        known = next((r for r in finished if _answers(r, workspace, job, described)), None)
        if known is None:
            values = [value for value in described.grid(REGULARIZATION) if value != start[REGULARIZATION]]
            grid = [start, *(start | {REGULARIZATION: value} for value in values)]
            known = selection_cost(workspace, attributor, grid)
            write_record(known, results)
        found.append(known)
    return found


def _answers(record: SelectionCostRecord, workspace: Workspace, job: Job, described: Described) -> bool:
    """Whether a finished record is of this code, default configuration, seed, parameters and ground truth."""
    return (
        same_run(record, job, described.code_sha256)
        and record.ground_truth.sha256 == workspace.grader.truth.sha256
        and record.picks["default"].hyperparameters == described.configurations[0]
    )


def run_grid(workspace: Workspace, job: Job) -> GridRun:
    """Run a job and keep what its scores predict for every mask."""
    points: dict[int, Configuration] = {}
    predictions: dict[int, NDArray[np.float64]] = {}
    choices: dict[str, Selected] = {}
    by_xi: list[Selected] = []
    info, asked = None, len(job.configurations)
    with workspace.display.progress(f"{job.attributor.name} on {workspace.task.card.name}") as progress:
        for event in workspace.runner.run(job, said(progress)):
            if isinstance(event, Selected):
                by_xi += [event] if event.selector == HEADLINE_SELECTOR else []
                # Of several fits, the first that let the selector choose answers for all.
                if event.selector not in choices or choices[event.selector].reason is not None:
                    choices[event.selector] = event
                continue
            info = attributor_info(event, job)
            points[event.index] = event.hyperparameters
            if event.scores is not None:
                predictions[event.index] = workspace.grader.predict(event.scores)
            progress(len(points), max(asked, len(points)))
    if info is None:
        raise InputError(f"{job.attributor.name}: no configuration was run")
    grid = [index for index in sorted(predictions) if index < asked]
    stacked = np.stack([predictions[index] for index in grid]) if grid else np.empty((0, 0, 0))
    extra = [(points[index], predictions[index]) for index in sorted(predictions) if index >= asked]
    known, center = [points[index] for index in grid], centers(asked, by_xi)[grid]
    return GridRun(info, known, grid, stacked, extra, choices, center, asked - len(grid))


def _hidden(points: Sequence[Configuration], scoring: Sequence[float]) -> float | None:
    """What the grid hides: LDS at the peak of the parabola through the best grid point and its neighbors, above its."""
    if not swept_alone(points):
        return None
    place, values = positions(points), np.array(scoring)[None]
    at = values.argmax(axis=1)
    between = values_beside(values, at, peak_offsets(values, at, place), place)
    return round(float(between[0] - values.max()), 6)


def _omega(grader: Grader, run: GridRun, shape: Geometry) -> OmegaAtPick | None:
    """ω at ξ's pick, from all masks on the calibration points."""
    choice = run.choices.get(HEADLINE_SELECTOR)
    if choice is None:
        return None
    points = grader.split.calibration
    place = {number: at for at, number in enumerate(run.numbers)}
    found = omega_at_pick(
        choice,
        {number: run.points[at] for number, at in place.items()},
        {number: run.predictions[at][:, points] for number, at in place.items()},
        mean_outputs(grader.truth.target[:, :, points]),
        {number: shape.spreads[at] for number, at in place.items()},
    )
    if found is None:
        return None
    return OmegaAtPick(value=round(found.value, 6), ci95=(round(found.low, 6), round(found.high, 6)))


def _picks(workspace: Workspace, run: GridRun, scoring: Sequence[float]) -> dict[str, Pick]:
    """What every selector chose."""
    grader, found = workspace.grader, {}
    known = list(zip(run.points, scoring, strict=True))
    known += [(c, grader.mean_lds(predictions, grader.split.scoring)) for c, predictions in run.extra]
    for name, choice in run.choices.items():
        wanted = run.points[0] | choice.values
        lds = next((value for configuration, value in known if configuration == wanted), None)
        if choice.reason is not None or lds is None:
            note = (choice.reason or "what was chosen failed")[:300]
            found[name] = Pick(hyperparameters=None, regret=None, note=note)
        else:
            found[name] = _pick(wanted, lds, scoring)
    return found


def _pick(configuration: Configuration, lds: float, scoring: Sequence[float]) -> Pick:
    return Pick(hyperparameters=configuration, regret=round(max(scoring) - lds, 6))


def _cost(curve: BudgetCurve) -> RuleCost:
    return RuleCost(
        mean=_rounded(curve.mean),
        p10=_rounded(curve.quantile(0.1)),
        p90=_rounded(curve.quantile(0.9)),
        worst=_rounded(curve.worst),
    )


def _rounded(values: Any) -> tuple[float, ...]:
    return rounded(np.asarray(values, dtype=np.float64))
