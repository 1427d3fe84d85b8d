"""From score matrices to records: the one place where scores and ground truth meet."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Job
from attriboard.attribution.runner import DEFAULT_RUNNER, Outcome, Runner, shown
from attriboard.base.errors import InputError
from attriboard.base.scores import Scores, as_matrix, scores_digest
from attriboard.contracts.task import Task
from attriboard.groundtruth.bundle import GroundTruth
from attriboard.records.method_card import MethodCard
from attriboard.records.model import (
    AttributionRecord,
    AttributorInfo,
    GroundTruthInfo,
    HeldOut,
    LdsResult,
    MethodInfo,
    Record,
    TaskInfo,
    Variant,
    above_ceiling,
)
from attriboard.records.provenance import provenance
from attriboard.scoring.bootstrap import Bootstrap
from attriboard.scoring.ceiling import Ceiling
from attriboard.scoring.influence import jackknife
from attriboard.scoring.lds import correlate, predict
from attriboard.scoring.split import Split


@dataclass(frozen=True, eq=False)
class Grader:
    """A task's ground truth, ready to grade score matrices.

    Args:
        truth: the ground truth.
    """

    truth: GroundTruth

    @property
    def split(self) -> Split:
        """Calibration and scoring points, from the task's card."""
        return self.truth.split

    @property
    def ceiling(self) -> Ceiling:
        """Noise ceiling on the scoring points."""
        return self.truth.ceiling

    @cached_property
    def resamples(self) -> Bootstrap:
        """Resamples of the masks on the scoring points, the same for everything that is graded here."""
        return Bootstrap(self.truth.target[:, :, self.split.scoring])

    def predict(self, scores: Any) -> NDArray[np.float64]:
        """Scores summed over every mask, (n_masks, n_test).

        Args:
            scores: (n_test, n_train), positive = helpful; an array or a tensor.

        Raises:
            InputError: another shape, or no real numbers.
        """
        scores = as_matrix(scores)
        expected = (self.truth.card.n_test, self.truth.masks.shape[1])
        if scores.shape != expected:
            raise InputError(f"scores are {scores.shape}, must be (n_test, n_train) = {expected}")
        return predict(scores, self.truth.masks)

    def mean_lds(self, predictions: NDArray[np.float64], points: NDArray[np.int64]) -> float:
        """Mean LDS on some test points.

        Args:
            predictions: (n_masks, n_test), from `predict`.
            points: positions of test points.
        """
        return correlate(predictions[:, points], self.truth.target[:, :, points]).mean

    def grade(self, predictions: NDArray[np.float64], *, in_full: bool = True) -> LdsResult:
        """LDS on the scoring points with its interval.

        Args:
            predictions: (n_masks, n_test), from `predict`.
            in_full: with the vectors that let records be compared; a point of a sweep does without.
        """
        points = self.split.scoring
        predictions, outputs = predictions[:, points], self.truth.target[:, :, points]
        result = correlate(predictions, outputs)
        return LdsResult(
            mean=result.mean,
            ci95=self.resamples.interval(predictions).ci95,
            pearson=result.mean_pearson,
            n_degenerate=result.n_degenerate,
            n_scoring=len(points),
            target=self.truth.card.task.target,
            per_test=rounded(result.spearman) if in_full else None,
            mask_influence=rounded(jackknife(predictions, outputs)) if in_full else None,
        )

    def held_out(self, scores: Any) -> HeldOut:
        """What scores get where this is a held-out ground truth; see `predict`."""
        lds = self.grade(self.predict(scores), in_full=False)
        n_masks = self.truth.card.n_masks
        return HeldOut(sha256=self.truth.sha256, n_masks=n_masks, mean=lds.mean, ci95=lds.ci95)

    def _verdict(self, lds: LdsResult) -> dict[str, Any]:
        """Status and reason of what was graded.

        Ground truths of other questions than the usual one have few repeats and low ceilings, which are uncertain
        themselves: there an LDS must lie above the upper end of the ceiling's interval.
        """
        ceiling = self.ceiling
        doubt = above_ceiling(lds, ceiling.ci95[1] if self.truth.question and ceiling.ci95 else ceiling.mean)
        return {"status": "implausible" if doubt else "ok", "reason": doubt}

    def record(
        self,
        task: Task,
        outcome: Outcome,
        job: Job,
        *,
        variant: Variant,
        selector: str | None = None,
        criteria: Mapping[str, float] | None = None,
        predictions: NDArray[np.float64] | None = None,
    ) -> AttributionRecord:
        """The record of one outcome, failed or graded.

        Args:
            task: the task.
            outcome: what the attributor's process gave.
            job: what it was asked.
            variant: how the hyperparameters came about.
            selector: which selector chose them.
            criteria: selector → the quantity that it looked at, at this configuration.
            predictions: of the outcome's scores, where they are known already.
        """
        graded: dict[str, Any] = {}
        if outcome.scores is not None:
            predictions = self.predict(outcome.scores) if predictions is None else predictions
            graded = {
                "lds": self.grade(predictions, in_full=variant != "sweep"),
                "calibration": self.mean_lds(predictions, self.split.calibration),
                "scores_sha256": scores_digest(outcome.scores),
            }
        return AttributionRecord(
            **heading(task, self.truth, attributor_info(outcome, job), job),
            variant=variant,
            selector=selector,
            hyperparameters=outcome.hyperparameters,
            **(
                {"status": "failed", "reason": outcome.reason}
                if outcome.scores is None
                else self._verdict(graded["lds"])
            ),
            lds=graded.get("lds"),
            calibration=graded.get("calibration"),
            criteria=dict(criteria or {}),
            ceiling=self.ceiling.mean,
            fit_seconds=outcome.fit_seconds,
            score_seconds=outcome.score_seconds,
            peak_bytes=outcome.peak_bytes,
            notes=outcome.notes,
            scores_sha256=graded.get("scores_sha256"),
            checkpoints_sha256=job.checkpoints_sha256,
        )

    def record_of_scores(
        self,
        task: Task,
        scores: Scores,
        name: str,
        card: MethodCard | None = None,
    ) -> AttributionRecord:
        """Grade a score matrix made elsewhere.

        Args:
            task: the task.
            scores: (n_test, n_train), float32 or float64.
            name: what the method is called.
            card: what its authors say of it.
        """
        predictions = self.predict(scores)
        lds = self.grade(predictions)
        described = {"paper": card.paper if card else "", "family": card.family if card else ""}
        info = AttributorInfo(name=name, origin="scores", digest=None, **described)
        return AttributionRecord(
            **heading(task, self.truth, info),
            method=MethodInfo(card_sha256=card.sha256, protocol=card.protocol) if card else None,
            variant="custom",
            selector=None,
            hyperparameters={},
            **self._verdict(lds),
            lds=lds,
            calibration=self.mean_lds(predictions, self.split.calibration),
            ceiling=self.ceiling.mean,
            fit_seconds=None,
            score_seconds=None,
            peak_bytes=None,
            scores_sha256=scores_digest(scores),
            checkpoints_sha256=None,
        )


def heading(
    task: Task,
    truth: GroundTruth | None,
    info: AttributorInfo,
    job: Job | None = None,
) -> dict[str, Any]:
    """What every record begins with; without ground truth where it has none to name, without a job where none ran."""
    card = task.card
    graded = truth and GroundTruthInfo(
        sha256=truth.sha256,
        n_masks=truth.card.n_masks,
        n_repeats=truth.card.n_repeats,
        question=truth.card.question,
    )
    return {
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "task": TaskInfo(name=card.name, version=card.version, fingerprint=card.fingerprint),
        "ground_truth": graded,
        "attributor": info,
        "seed": job.seed if job else 0,
        "provenance": provenance(job.threads if job else None),
        "parameters": job.parameters if job else (),
    }


def same_run(record: Record, job: Job, code: str) -> bool:
    """Whether a record's heading is the one of this code and job: its digest, seed and parameters."""
    return (record.attributor.digest, record.seed, record.parameters) == (code, job.seed, job.parameters)


def attributor_info(outcome: Outcome, job: Job) -> AttributorInfo:
    """Which method an outcome is of, for its record."""
    return AttributorInfo(
        name=outcome.attributor.name,
        origin=job.attributor.origin,
        digest=outcome.attributor.code_sha256,
        paper=outcome.attributor.paper,
        family=outcome.attributor.family,
    )


def evaluate(
    task: Task,
    graders: Grader | Sequence[Grader],
    job: Job,
    variants: Sequence[Variant],
    runner: Runner = DEFAULT_RUNNER,
    listen: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[AttributionRecord]:
    """Run configurations of an attributor, each once, and grade them; failures become records too.

    Args:
        task: the task.
        graders: its ground truth, or several, each of which gives a record of every configuration.
        job: what to run.
        variants: per configuration, how its values came about.
        runner: how it is run.
        listen: given every outcome, with its scores.

    Raises:
        InputError: the attributor does not import, or does not have these hyperparameters.
    """
    with runner.display.progress(f"{job.attributor.name} on {task.card.name}") as progress:
        for event in runner.run(job, shown(progress)):
            if isinstance(event, Outcome):
                listen(event)
                for grader in (graders,) if isinstance(graders, Grader) else graders:
                    yield grader.record(task, event, job, variant=variants[event.index])


def rounded(values: NDArray[np.float64]) -> tuple[float, ...]:
    """Numbers as records keep them, to six decimals."""
    return tuple(np.round(values, 6).tolist())
