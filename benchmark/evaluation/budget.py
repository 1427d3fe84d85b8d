"""Choosing hyperparameters with a handful of retrains.

k models are trained on random subsets of their own, which are never the ground truth's, and shared by every method and
grid of the task. Every grid point is measured against these k models on the calibration points, and a rule of
`attriboard.scoring.rules` takes one; where λ is chosen, ξ's pick is the rule's prior, and ω at that pick, estimated
from the same k models, says whether ξ is to be trusted. A bootstrap over the k models says what regret to expect, and,
from how it falls with the number of models, how many would halve it.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Selected
from attriboard.attribution.runner import said
from attriboard.base.errors import AttriboardError, InputError
from attriboard.base.terminal import counted
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.choice_rules import centers, choice_rules, omega_at_pick, positions, varying
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.plan import as_masks, split_of, tuning_requests, untrained_masks
from attriboard.records.model import HEADLINE_SELECTOR
from attriboard.retraining.engine import retrain
from attriboard.scoring.budget import expected_regret, few_lds
from attriboard.scoring.lds import predict
from attriboard.scoring.omega import Omega
from attriboard.scoring.rules import Geometry, Rule, geometry, jackknife_variance, pooled_correlations

SMALLEST = 2
N_SKETCHES = 200  # subsets that tell how predictions of grid points vary together


@dataclass(frozen=True, eq=False)
class BudgetChoice:
    """What k retrains chose.

    Attributes:
        hyperparameters: the chosen configuration, complete; its λ may lie between those of the grid.
        configurations: the grid points that did not fail, complete.
        lds: of each, against the k models, on the calibration points.
        rule: how the measurements became a choice; see `attriboard.evaluation.choice_rules`.
        budget: k.
        expected_regret: LDS that this choice gives away on average, by a bootstrap over the k models.
        halving_budget: how many models would about halve it; `None` where nothing is left to gain.
        xi_pick: λ that ξ chooses without retrains, on the fit of what was chosen; `None` where it chooses none.
        omega: ω there; `None` where it cannot be estimated. ξ is right where ω = ½.
        omega_ci95: its 95 % bootstrap interval over the k models.
        warning: that ξ is not to be trusted here, or nothing.
        failed: why grid points are missing, one reason each.
        trained: models that had to be trained; the others came from the store.
        seconds: wall-clock seconds of retraining and attributing.
    """

    hyperparameters: dict[str, HyperparameterValue]
    configurations: tuple[dict[str, HyperparameterValue], ...]
    lds: tuple[float, ...]
    rule: str
    budget: int
    expected_regret: float
    halving_budget: int | None
    xi_pick: float | None
    omega: float | None
    omega_ci95: tuple[float, float] | None
    warning: str
    failed: tuple[str, ...]
    trained: int
    seconds: float

    @property
    def nearest(self) -> dict[str, HyperparameterValue]:
        """The grid point that was chosen, or the one nearest to a λ between them."""
        if self.hyperparameters in self.configurations:
            return self.hyperparameters
        wanted = math.log10(float(self.hyperparameters[REGULARIZATION] or 0.0))
        distances = np.abs(positions(self.configurations) - wanted)
        return self.configurations[int(np.nanargmin(distances))]

    def __repr__(self) -> str:
        names = varying(self.configurations)
        shown = ", ".join(
            f"{n} = {v:.3g}" if isinstance(v := self.hyperparameters[n], float) else f"{n} = {v}" for n in names
        )
        return (
            f"<{shown or 'one configuration'} of {len(self.configurations)} configurations, by {self.budget} retrains: "
            f"expected regret {self.expected_regret:.3f}>"
        )


def choose_by_budget(
    workspace: Workspace,
    attributor: str | Path,
    configurations: Sequence[Mapping[str, Any]],
    budget: int,
    *,
    between: bool = False,
    store: Path | None = None,
) -> BudgetChoice:
    """Choose among configurations by k single retrains; no ground truth is read.

    Args:
        workspace: the task.
        attributor: its name or file.
        configurations: the grid; any hyperparameters of either stage.
        budget: number of models k, at least 2.
        between: whether λ may be chosen between grid points, where the grid is one of λ alone.
        store: folder of the task's retrains; the shared one by default.

    Raises:
        InputError: a budget below 2, fewer than two configurations, or hyperparameters that the method does not have.
        AttriboardError: every configuration failed; the first reason is the message.
    """
    if budget < SMALLEST:
        raise InputError(f"budget = {budget}: a rank correlation needs at least {SMALLEST} retrains")
    if len(configurations) < SMALLEST:
        found = counted(len(configurations), "configuration")
        raise InputError(f"a grid of {found} leaves nothing to choose; give at least {SMALLEST}")
    started = time.perf_counter()
    masks, outputs, trained = _retrained(workspace, budget, store)
    run = _predicted(workspace, attributor, configurations, masks)
    good = sorted(run.predictions)
    points = [run.points[index] for index in good]
    predictions = np.stack([run.predictions[index] for index in good])
    shape = geometry(predictions)
    predictions = predictions[:, :budget]
    center = centers(len(run.points), run.choices)[good]
    rules = choice_rules(points, shape, center)
    name = [rule for rule in rules if between or rule != "between"][-1]
    curve = few_lds(predictions, outputs)
    chosen, offset = _chosen(rules[name], curve, predictions, outputs, shape)
    regret, halving = expected_regret(predictions, outputs, rules[name], shape)
    omega = _omega(run, good[chosen], outputs, dict(zip(good, shape.spreads, strict=True)))
    return BudgetChoice(
        hyperparameters=_beside(points, chosen, offset),
        configurations=tuple(points),
        lds=tuple(np.round(curve, 6).tolist()),
        rule=name,
        budget=budget,
        expected_regret=regret,
        halving_budget=halving,
        xi_pick=None if np.isnan(center[chosen]) else float(f"{10 ** center[chosen]:.6g}"),
        **_verdict(omega),
        failed=tuple(run.failed),
        trained=trained,
        seconds=time.perf_counter() - started,
    )


def _chosen(
    rule: Rule,
    curve: NDArray[np.float64],
    predictions: NDArray[np.float64],
    outputs: NDArray[np.float64],
    shape: Geometry,
) -> tuple[int, float]:
    """The grid point that a rule takes, and how many decades beside it λ lies."""
    measured, variance = curve, 0.0
    if rule.pooled:
        measured = pooled_correlations(predictions, outputs, shape.spreads, np.ones((1, len(outputs))))[0]
        variance = jackknife_variance(predictions, outputs, shape.spreads)
    (chosen,), (offset,) = rule.choose(measured[None], np.array([variance]))
    return int(chosen), float(offset)


def _beside(
    points: Sequence[dict[str, HyperparameterValue]], chosen: int, offset: float
) -> dict[str, HyperparameterValue]:
    """A grid point, with λ moved by some decades."""
    if offset == 0.0:
        return points[chosen]
    return points[chosen] | {REGULARIZATION: float(f"{10 ** (positions(points)[chosen] + offset):.4g}")}


def _verdict(omega: Omega | None) -> dict[str, Any]:
    """ω with its interval, and what it says against ξ."""
    if omega is None:
        return {"omega": None, "omega_ci95": None, "warning": ""}
    side = "above" if omega.low > 0.5 else "below"
    interval = f"{omega.low:.2f} … {omega.high:.2f}"
    warning = f"ω lies {side} one half ({interval}): the best λ lies {side} the one that ξ picks"
    return {
        "omega": round(omega.value, 4),
        "omega_ci95": (round(omega.low, 4), round(omega.high, 4)),
        "warning": "" if omega.trusts_xi else warning,
    }


@dataclass(frozen=True, eq=False)
class _Run:
    """What a grid predicts for the k models, followed by subsets without a model; by number of the configuration.

    Attributes:
        points: every configuration that was asked for, complete.
        predictions: (k + n_sketches, n_calibration) of those that did not fail.
        choices: of ξ, one for each fit.
        failed: why the others failed.
    """

    points: dict[int, dict[str, HyperparameterValue]]
    predictions: dict[int, NDArray[np.float64]]
    choices: list[Selected]
    failed: list[str]


def _omega(
    run: _Run, chosen: int, outputs: NDArray[np.float64], spreads: Mapping[int, NDArray[np.float64]]
) -> Omega | None:
    """ω on the fit of the chosen configuration."""
    choice = next((c for c in run.choices if chosen in c.configurations), None)
    if choice is None:
        return None
    measured = {index: predictions[: len(outputs)] for index, predictions in run.predictions.items()}
    return omega_at_pick(choice, run.points, measured, outputs, spreads)


def _retrained(
    workspace: Workspace, budget: int, folder: Path | None
) -> tuple[NDArray[np.bool_], NDArray[np.float64], int]:
    """The k models: their subsets (k, n_train), their targets on calibration points (k, n_points), how many are new."""
    card, requests = workspace.task.card, tuning_requests(workspace.task.card, budget)
    store = open_store(workspace.task, folder)
    with workspace.display.progress(f"{budget} retrains of {card.name}") as progress:
        trained = retrain(workspace.task, requests, store, workspace.executor(progress.say), progress)
    digests = [request.digest(card.fingerprint) for request in requests]
    name, sign = card.target_output
    outputs = sign * store.read(f"outputs/{name}", digests).astype(np.float64)
    masks = as_masks([request.indices for request in requests], card.data.n_train)
    return masks, outputs[:, split_of(card).calibration], trained


def _predicted(
    workspace: Workspace,
    attributor: str | Path,
    configurations: Sequence[Mapping[str, Any]],
    masks: NDArray[np.bool_],
) -> _Run:
    """Run the grid; where it has several λ, ξ chooses as well.

    Raises:
        AttriboardError: every configuration failed; the first reason is the message.
    """
    regularized = len({str(c.get(REGULARIZATION)) for c in configurations}) > 1
    selectors = (HEADLINE_SELECTOR,) if regularized else ()
    job = workspace.job(attributor, [dict(c) for c in configurations], selectors=selectors)
    run = _Run({}, {}, [], [])
    card = workspace.task.card
    calibration = split_of(card).calibration
    masks = np.concatenate([masks, untrained_masks(card, N_SKETCHES)])
    with (
        workspace.display.progress(f"{job.attributor.name} on {card.name}") as progress,
        workspace.runner.open(job, said(progress)) as attribution,
    ):
        asked = [c.get(REGULARIZATION) for c in attribution.described.configurations]
        values = sorted({float(v) for v in asked if isinstance(v, (int, float)) and v > 0})
        for event in attribution.run(None, {REGULARIZATION: tuple(values)} if regularized and values else {}):
            if isinstance(event, Selected):
                run.choices.append(event)
            elif event.index < len(configurations):
                run.points[event.index] = event.hyperparameters
                if event.scores is None:
                    run.failed.append(event.reason or "failed")
                else:
                    run.predictions[event.index] = predict(event.scores[calibration], masks)
                progress(len(run.points), len(job.configurations))
    if not run.predictions:
        raise AttriboardError(f"{job.attributor.name} on {card.name}: every configuration failed: {run.failed[0]}")
    return run
