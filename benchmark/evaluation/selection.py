"""Selection, scored: default, selected and oracle side by side, for every selector of one attributor on one task.

The attributor is fitted once and scored at every candidate λ. Selectors choose in its process, without ground truth;
the oracle chooses here, by LDS on calibration points; every reported number is on scoring points.

    regret     = LDS(oracle) − LDS(selected), with a paired two-way bootstrap interval
    gap closed = (LDS(selected) − LDS(default)) / (LDS(oracle) − LDS(default))

One run can be graded on several ground truths: selectors choose the same for all of them, the oracle does not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from attriboard.attribution.job import Job, Selected
from attriboard.attribution.runner import DEFAULT_RUNNER, Outcome, Runner, said
from attriboard.base.digests import canonical_json
from attriboard.base.display import NOTHING, Progress
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION, GroundTruthSelector
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import Grader, attributor_info, heading
from attriboard.records.files import AnyRecord
from attriboard.records.model import (
    HEADLINE_SELECTOR,
    AttributionRecord,
    Difference,
    GradedConfiguration,
    SelectionRecord,
    Variant,
)

ORACLE = "oracle"
EDGE = "ξ̄ does not pass one half on the candidates, so ξ does not settle λ; spend a few retrains: --budget 8"
MIN_GAP = 0.005  # LDS between oracle and default, under which a fraction of it says nothing


def at_edge(choice: Selected | SelectionRecord) -> bool:
    """Whether ξ̄ does not rise through one half within the candidates, so that the pick is one end of them."""
    xi = choice.criterion or () if choice.selector == HEADLINE_SELECTOR else ()
    return bool(xi) and not min(xi) <= 0.5 <= xi[-1]


@dataclass(frozen=True, eq=False)
class _Point:
    """One graded configuration."""

    outcome: Outcome
    predictions: NDArray[np.float64] | None  # (n_masks, n_test)
    calibration: float = 0.0  # mean LDS on the calibration points
    scoring: float = 0.0  # and on the scoring points


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that one job on one attributor gives.

    Attributes:
        records: default, the chosen ones, the oracle's; for the usual question, the rest of the path as sweep points.
        selections: one record per selector.
    """

    records: list[AttributionRecord]
    selections: list[SelectionRecord]

    @property
    def all_records(self) -> list[AnyRecord]:
        """Records of either kind."""
        return [*self.records, *self.selections]

    def new_records(self, finished: Sequence[AnyRecord]) -> list[AnyRecord]:
        """Those to write beside finished ones: without points of the sweep that are on record."""
        swept: dict[str, list[AttributionRecord]] = {}
        for record in finished:
            if isinstance(record, AttributionRecord) and record.variant == "sweep":
                swept.setdefault(canonical_json(record.hyperparameters), []).append(record)
        points = [
            record
            for record in self.records
            if not any(map(record.repeats, swept.get(canonical_json(record.hyperparameters), ())))
        ]
        return [*points, *self.selections]


def finished_selections(records: Sequence[AnyRecord], checkpoints_sha256: str) -> list[SelectionRecord]:
    """The selections among records that chose something on these models, the newest first.

    Selections do not name their checkpoints; the graded configurations beside them do.
    """
    graded = [
        record.hyperparameters
        for record in records
        if isinstance(record, AttributionRecord) and record.checkpoints_sha256 == checkpoints_sha256
    ]
    found = [
        record
        for record in records
        if isinstance(record, SelectionRecord)
        and record.status == "ok"
        and record.selected is not None
        and record.selected.hyperparameters in graded
    ]
    return sorted(found, key=lambda record: record.created, reverse=True)


def study_selection(
    task: Task,
    grader: Grader,
    job: Job,
    oracle: GroundTruthSelector,
    *,
    candidates: Sequence[Any] | None = None,
    runner: Runner = DEFAULT_RUNNER,
    progress: Progress = NOTHING,
) -> Study:
    """Score a job's selectors on one ground truth; see `study_selections`."""
    (study,) = study_selections(task, (grader,), job, oracle, candidates=candidates, runner=runner, progress=progress)
    return study


def study_selections(
    task: Task,
    graders: Sequence[Grader],
    job: Job,
    oracle: GroundTruthSelector,
    *,
    candidates: Sequence[Any] | None = None,
    runner: Runner = DEFAULT_RUNNER,
    progress: Progress = NOTHING,
) -> list[Study]:
    """Score a job's selectors, starting from its one configuration, on several ground truths.

    Args:
        task: the task.
        graders: its ground truths; each gives a study.
        job: one configuration, and selectors.
        oracle: chooses among the candidates by their LDS on calibration points.
        candidates: values of λ; by default the attributor's grid. An attributor without λ has none.
        runner: how it is run.
        progress: of configurations graded.

    Raises:
        InputError: the attributor does not import, or does not have these hyperparameters.
    """
    own = not job.configurations[0]
    points: list[dict[int, _Point]] = [{} for _ in graders]
    choices: dict[str, Selected] = {}
    with runner.open(job, said(progress)) as attribution:
        described = attribution.described
        start = described.configurations[0]
        path: list[dict[str, HyperparameterValue]] = []
        if REGULARIZATION in start:
            for value in described.grid(REGULARIZATION) if candidates is None else candidates:
                if (configuration := described.configure(start | {REGULARIZATION: value})) not in path:
                    path.append(configuration)
        values = {REGULARIZATION: tuple(float(c[REGULARIZATION] or 0.0) for c in path)} if path else {}
        others = tuple(configuration for configuration in path if configuration != start)
        job = job.model_copy(update={"configurations": (start, *others)})
        progress(0, len(job.configurations))
        for event in attribution.run(job.configurations, values):
            if isinstance(event, Selected):
                # Of a method that is fitted anew for every λ, the first fit that succeeded answers for all.
                choices.setdefault(event.selector, event)
            else:
                for grader, graded in zip(graders, points, strict=True):
                    graded[event.index] = _graded(grader, event)
                done = len(points[0])
                progress(done, max(len(job.configurations), done))
    return [
        _Report(task, grader, job, graded, own, start in path).study(list(choices.values()), oracle)
        for grader, graded in zip(graders, points, strict=True)
    ]


def _graded(grader: Grader, outcome: Outcome) -> _Point:
    if outcome.scores is None:
        return _Point(outcome, None)
    predictions = grader.predict(outcome.scores)
    split = grader.split
    return _Point(
        outcome,
        predictions,
        grader.mean_lds(predictions, split.calibration),
        grader.mean_lds(predictions, split.scoring),
    )


@dataclass(frozen=True)
class _Report:
    """Turns graded points and choices into records.

    `own`: whether it started from the attributor's own defaults. What started elsewhere is no default, nor what was
    selected from there. `on_path`: whether the start is one of the candidates.
    """

    task: Task
    grader: Grader
    job: Job
    points: dict[int, _Point]
    own: bool
    on_path: bool

    def study(self, choices: list[Selected], oracle: GroundTruthSelector) -> Study:
        """All records of the job."""
        candidates = [i for i in range(1, len(self.job.configurations)) if self.points[i].predictions is not None]
        best = None
        if (candidates or self.on_path) and self.points[0].predictions is not None:
            candidates.append(0)  # a default may lie outside the grid; at equal scores the grid's value is named
        if candidates:
            best = candidates[oracle.select([self.points[i].calibration for i in candidates])]
        choices = [self._resolved(choice) for choice in choices] or self._without_a_fit()
        return Study(list(self._attributions(choices, best)), [self._selection(choice, best) for choice in choices])

    def _resolved(self, choice: Selected) -> Selected:
        """A choice applies to the starting configuration, whichever fit its evidence came from."""
        if choice.configuration is None or 0 in choice.configurations:
            return choice
        wanted = self.points[0].outcome.hyperparameters | choice.values
        at = next((i for i, point in sorted(self.points.items()) if point.outcome.hyperparameters == wanted), None)
        reason = None if at is not None else f"not_applicable: {choice.values} was chosen on another fit and not run"
        return choice.model_copy(update={"configuration": at, "reason": reason})

    def _without_a_fit(self) -> list[Selected]:
        """No fit succeeded, so no selector was asked: a refusal for each."""
        return [
            Selected(
                selector=spec.name,
                values={},
                transferred=False,
                candidates=(),
                criterion=None,
                objective=None,
                note="",
                seconds=0.0,
                reason=self.points[0].outcome.reason,
            )
            for spec in self.job.selectors
        ]

    def _attributions(self, choices: list[Selected], best: int | None) -> Iterator[AttributionRecord]:
        """A record for every part that a configuration plays: default, selected, oracle, else a point of the sweep."""
        criteria = self._criteria(choices)
        parts: dict[int, list[tuple[Variant, str | None]]] = {0: [("default" if self.own else "custom", None)]}
        choices, best = (choices, best) if self.own else ([], None)
        for choice in choices:
            if choice.selector == HEADLINE_SELECTOR and choice.configuration is not None:
                parts.setdefault(choice.configuration, []).append(("selected", choice.selector))
        if best is not None:
            parts.setdefault(best, []).append(("oracle", ORACLE))
        rest: list[tuple[Variant, str | None]] = [] if self.grader.truth.question else [("sweep", None)]
        if self.on_path and best != 0:
            parts[0] += rest
        for index, point in sorted(self.points.items()):
            for variant, selector in parts.get(index, rest):
                yield self.grader.record(
                    self.task,
                    point.outcome,
                    self.job,
                    variant=variant,
                    selector=selector,
                    criteria=criteria.get(index),
                    predictions=point.predictions,
                )

    def _criteria(self, choices: list[Selected]) -> dict[int, dict[str, float]]:
        """Configuration → selector → what the selector looked at there."""
        criteria: dict[int, dict[str, float]] = {}
        for choice in choices:
            for value, number in zip(choice.candidates, choice.criterion or (), strict=False):
                for index in self._at(choice.hyperparameter, value):
                    criteria.setdefault(index, {})[choice.selector] = number
        return criteria

    def _at(self, name: str, value: float) -> list[int]:
        return [i for i, point in self.points.items() if point.outcome.hyperparameters.get(name) == value]

    def _selection(self, choice: Selected, best: int | None) -> SelectionRecord:
        """Score one choice."""
        default = self.points[0]
        chosen = None if choice.configuration is None else self.points[choice.configuration]
        oracle = None if best is None else self.points[best]
        reason = choice.reason or (chosen.outcome.reason if chosen else None)
        regret, closed = None, None
        if chosen and oracle and chosen.predictions is not None and oracle.predictions is not None:
            regret = self._difference(oracle, chosen)
            if default.predictions is not None and oracle.scoring - default.scoring >= MIN_GAP:
                closed = (chosen.scoring - default.scoring) / (oracle.scoring - default.scoring)
        fit_seconds = default.outcome.fit_seconds or 0.0
        return SelectionRecord(
            **heading(self.task, self.grader.truth, attributor_info(default.outcome, self.job), self.job),
            selector=choice.selector,
            hyperparameter=choice.hyperparameter,
            status="failed" if reason else "ok",
            reason=reason,
            transferred=choice.transferred,
            candidates=choice.candidates,
            criterion=choice.criterion,
            objective=choice.objective,
            note=choice.note,
            default=self._configuration(default),
            selected=self._configuration(chosen) if chosen else None,
            oracle=self._configuration(oracle) if oracle else None,
            regret=regret,
            gap_closed=closed,
            rank_correlation=self._rank_correlation(choice),
            seconds=fit_seconds + choice.seconds,
            n_retrains=self.grader.truth.card.n_masks * self.grader.truth.card.n_repeats,
        )

    def _difference(self, better: _Point, worse: _Point) -> Difference:
        """Paired difference on the scoring points; exactly zero for one and the same configuration."""
        assert better.predictions is not None
        assert worse.predictions is not None
        points = self.grader.split.scoring
        found = self.grader.resamples.difference(better.predictions[:, points], worse.predictions[:, points])
        return Difference(mean=found.mean, ci95=found.ci95)

    def _configuration(self, point: _Point) -> GradedConfiguration:
        return GradedConfiguration(
            hyperparameters=point.outcome.hyperparameters,
            lds=None if point.predictions is None else point.scoring,
        )

    def _rank_correlation(self, choice: Selected) -> float | None:
        """Spearman, over candidates, between how good the selector and how good the ground truth finds them."""
        if choice.objective is None:
            return None
        pairs = [
            (-objective, self.points[index].scoring)
            for value, objective in zip(choice.candidates, choice.objective, strict=True)
            for index in self._at(choice.hyperparameter, value)[:1]
            if self.points[index].predictions is not None
        ]
        objectives, scores = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        if len(pairs) < 3 or len(set(objectives)) < 2 or len(set(scores)) < 2:
            return None
        return float(spearmanr(objectives, scores).statistic)
