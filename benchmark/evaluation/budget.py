"""Choosing hyperparameters with a handful of retrains.

k models are trained on random subsets of their own, which are never the ground truth's, and shared by every method and
grid of the task. Every grid point is graded by its LDS against these k models on the calibration points, and a rule of
`attriboard.scoring.budget` takes one. A bootstrap over the k models says what regret to expect, and, from how it falls
with the number of models, how many would halve it.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Job, Selected
from attriboard.attribution.runner import said
from attriboard.base.errors import AttriboardError, InputError
from attriboard.contracts.attributor import HyperparameterValue
from attriboard.evaluation.selection_cost import choice_rules, varying
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.plan import split_of, tuning_requests
from attriboard.retraining.engine import retrain
from attriboard.scoring.budget import expected_regret, few_lds
from attriboard.scoring.lds import predict

SMALLEST = 2


@dataclass(frozen=True, eq=False)
class BudgetChoice:
    """What k retrains chose.

    Attributes:
        hyperparameters: the chosen configuration, complete.
        configurations: the grid points that did not fail, complete.
        lds: of each, against the k models, on the calibration points.
        rule: how the curve became a choice: `best`, or `smoothed` over λ.
        budget: k.
        expected_regret: LDS that this choice gives away on average, by a bootstrap over the k models.
        halving_budget: how many models would about halve it; `None` where nothing is left to gain.
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
    failed: tuple[str, ...]
    trained: int
    seconds: float

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
    store: Path | None = None,
) -> BudgetChoice:
    """Choose among configurations by k single retrains; no ground truth is read.

    Args:
        workspace: the task.
        attributor: its name or file.
        configurations: the grid; any hyperparameters of either stage.
        budget: number of models k, at least 2.
        store: folder of the task's retrains; the shared one by default.

    Raises:
        InputError: a budget below 2, fewer than two configurations, or hyperparameters that the method does not have.
        AttriboardError: every configuration failed; the first reason is the message.
    """
    if budget < SMALLEST:
        raise InputError(f"budget = {budget}: a rank correlation needs at least {SMALLEST} retrains")
    if len(configurations) < SMALLEST:
        raise InputError(
            f"{len(configurations)} configurations: there is no choice; give a grid of at least {SMALLEST}"
        )
    started = time.perf_counter()
    job = workspace.job(attributor, [dict(c) for c in configurations])
    masks, outputs, trained = _retrained(workspace, budget, store)
    points, predictions, failed = _predicted(workspace, job, masks)
    name, rule = list(choice_rules(points, varying(points)).items())[-1]
    curve = few_lds(predictions, outputs)
    regret, halving = expected_regret(predictions, outputs, rule)
    return BudgetChoice(
        hyperparameters=points[int(rule(curve[None])[0])],
        configurations=tuple(points),
        lds=tuple(np.round(curve, 6).tolist()),
        rule=name,
        budget=budget,
        expected_regret=regret,
        halving_budget=halving,
        failed=tuple(failed),
        trained=trained,
        seconds=time.perf_counter() - started,
    )


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
    masks = np.zeros((budget, card.data.n_train), dtype=bool)
    for mask, request in zip(masks, requests, strict=True):
        mask[request.indices] = True
    return masks, outputs[:, split_of(card).calibration], trained


def _predicted(
    workspace: Workspace, job: Job, masks: NDArray[np.bool_]
) -> tuple[list[dict[str, HyperparameterValue]], NDArray[np.float64], list[str]]:
    """Grid points that did not fail, what they predict for the k models, and why the others failed.

    Raises:
        AttriboardError: every configuration failed; the first reason is the message.
    """
    points: dict[int, dict[str, HyperparameterValue]] = {}
    predictions: dict[int, NDArray[np.float64]] = {}
    failed = []
    calibration = split_of(workspace.task.card).calibration
    with workspace.display.progress(f"{job.attributor.name} on {workspace.task.card.name}") as progress:
        for event in workspace.runner.run(job, said(progress)):
            assert not isinstance(event, Selected), "a job without selectors has outcomes only"
            points[event.index] = event.hyperparameters
            if event.scores is None:
                failed.append(event.reason or "failed")
            else:
                predictions[event.index] = predict(event.scores[calibration], masks)
            progress(len(points), len(job.configurations))
    if not predictions:
        raise AttriboardError(
            f"{job.attributor.name} on {workspace.task.card.name}: every configuration failed: {failed[0]}"
        )
    good = sorted(predictions)
    return [points[index] for index in good], np.stack([predictions[index] for index in good]), failed
