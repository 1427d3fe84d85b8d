"""From score matrices to records: the one place where scores and ground truth meet."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import AttributorSpec
from attriboard.attribution.runner import Outcome, run_attributor
from attriboard.canonical import digest_bytes, digest_file
from attriboard.contracts import HyperparameterValue, Task
from attriboard.errors import FormatError, InputError
from attriboard.groundtruth.bundle import GroundTruth
from attriboard.provenance import provenance
from attriboard.records import AttributionRecord, AttributorInfo, GroundTruthInfo, LdsResult, TaskInfo
from attriboard.scoring.bootstrap import bootstrap
from attriboard.scoring.ceiling import Ceiling, noise_ceiling
from attriboard.scoring.influence import jackknife
from attriboard.scoring.lds import correlate, predict
from attriboard.scoring.split import Split, split_test_points

__all__ = ["Grader", "evaluate", "read_scores", "record_of_scores"]

Variant = Literal["default", "custom"]


@dataclass(frozen=True, eq=False)
class Grader:
    """A task's ground truth, ready to grade score matrices on the scoring points.

    Args:
        truth: the ground truth.
    """

    truth: GroundTruth

    @cached_property
    def split(self) -> Split:
        """Calibration and scoring points, from the task's card."""
        spec = self.truth.card.task.split
        return split_test_points(self.truth.card.n_test, spec.calibration, spec.seed)

    @cached_property
    def ceiling(self) -> Ceiling:
        """Noise ceiling on the scoring points."""
        return noise_ceiling(self.truth.target[:, :, self.split.scoring])

    def grade(self, scores: NDArray[np.float32]) -> LdsResult:
        """LDS on the scoring points, with its interval.

        Args:
            scores: (n_test, n_train), positive = helpful.

        Raises:
            InputError: another shape.
        """
        expected = (self.truth.card.n_test, self.truth.masks.shape[1])
        if scores.shape != expected:
            raise InputError(f"scores are {scores.shape}, must be (n_test, n_train) = {expected}")
        points = self.split.scoring
        outputs = self.truth.target[:, :, points]
        predictions = predict(scores[points], self.truth.masks)
        result = correlate(predictions, outputs)
        interval = bootstrap(predictions, outputs)
        influence = jackknife(predictions, outputs)
        return LdsResult(
            mean=result.mean,
            ci95=interval.ci95,
            pearson=result.mean_pearson,
            n_degenerate=result.n_degenerate,
            n_scoring=len(points),
            target=self.truth.card.task.target,
            per_test=tuple(np.round(result.spearman, 6).tolist()),
            mask_influence=tuple(np.round(influence.masks, 6).tolist()),
        )


def evaluate(
    task: Task,
    grader: Grader,
    attributor: AttributorSpec,
    configurations: Sequence[Mapping[str, Any]],
    checkpoints: Path,
    *,
    variants: Sequence[Variant],
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    time_limit: float | None = None,
) -> Iterator[AttributionRecord]:
    """Run configurations of an attributor and grade them; failures become records too.

    Args:
        task: the task.
        grader: its ground truth.
        attributor: where its code is.
        configurations: hyperparameter values, completed with defaults.
        checkpoints: the task's checkpoint bundle.
        variants: per configuration, how its values came about.
        device: see `run_attributor`.
        seed: see `run_attributor`.
        threads: see `run_attributor`.
        time_limit: see `run_attributor`.

    Raises:
        InputError: the attributor does not import, or does not have these hyperparameters.
    """
    outcomes = run_attributor(
        task,
        attributor,
        configurations,
        checkpoints,
        device=device,
        seed=seed,
        threads=threads,
        time_limit=time_limit,
    )
    checkpoints_sha256 = digest_file(checkpoints)
    for outcome in outcomes:
        info = AttributorInfo(
            name=outcome.attributor.name,
            origin=attributor.origin,
            digest=outcome.attributor.code_sha256,
            paper=outcome.attributor.paper,
            family=outcome.attributor.family,
        )
        yield _record(
            task,
            grader,
            info,
            outcome.hyperparameters,
            variant=variants[outcome.index],
            scores=outcome.scores,
            reason=outcome.reason,
            outcome=outcome,
            checkpoints_sha256=checkpoints_sha256,
            seed=seed,
        )


def record_of_scores(task: Task, grader: Grader, scores: NDArray[np.float32], name: str) -> AttributionRecord:
    """Grade a score matrix made elsewhere.

    Args:
        task: the task.
        grader: its ground truth.
        scores: (n_test, n_train) float32.
        name: what the method is called.
    """
    info = AttributorInfo(name=name, origin="scores", digest=None, paper="", family="")
    return _record(task, grader, info, {}, variant="custom", scores=scores)


def read_scores(path: Path, task: Task) -> NDArray[np.float32]:
    """Read a score matrix: safetensors with one floating-point tensor `scores` (n_test, n_train).

    Raises:
        FormatError: no such file, another format, another shape or type, or finite nowhere.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    shape = (task.card.data.n_test, task.card.data.n_train)
    rule = f"must hold one tensor 'scores', (n_test, n_train) = {shape}, float32"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error}); it {rule}") from error
    if list(tensors) != ["scores"]:
        raise FormatError(f"{path}: holds tensors {', '.join(tensors) or 'none'}; it {rule}")
    scores = tensors["scores"]
    if scores.shape != shape or scores.dtype not in (np.float16, np.float32, np.float64):
        raise FormatError(f"{path}: scores are {scores.shape} {scores.dtype}; it {rule}")
    if not np.isfinite(scores).all(axis=1).any():
        raise FormatError(f"{path}: every row of scores has NaN or infinity; it {rule}, finite")
    return scores.astype(np.float32)


def _record(
    task: Task,
    grader: Grader,
    attributor: AttributorInfo,
    hyperparameters: dict[str, HyperparameterValue],
    *,
    variant: Variant,
    scores: NDArray[np.float32] | None,
    reason: str | None = None,
    outcome: Outcome | None = None,
    checkpoints_sha256: str | None = None,
    seed: int = 0,
) -> AttributionRecord:
    card, truth = task.card, grader.truth
    return AttributionRecord(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        task=TaskInfo(name=card.name, version=card.version, fingerprint=card.fingerprint),
        ground_truth=GroundTruthInfo(sha256=truth.sha256, n_masks=truth.card.n_masks, n_repeats=truth.card.n_repeats),
        attributor=attributor,
        seed=seed,
        provenance=provenance(),
        variant=variant,
        selector=None,
        hyperparameters=hyperparameters,
        status="failed" if scores is None else "ok",
        reason=reason,
        lds=None if scores is None else grader.grade(scores),
        ceiling=grader.ceiling.mean,
        fit_seconds=outcome.fit_seconds if outcome else None,
        score_seconds=outcome.score_seconds if outcome else None,
        peak_bytes=outcome.peak_bytes if outcome else None,
        scores_sha256=None if scores is None else digest_bytes(np.ascontiguousarray(scores).data),
        checkpoints_sha256=checkpoints_sha256,
    )
