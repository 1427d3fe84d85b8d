"""The schema of records of what attributions are used for: choosing data, flipping predictions, finding wrong labels.

The rules of `attriboard.record_model` apply here as well.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attriboard.record_model import (
    Count,
    GroundTruthInfo,
    Hyperparameters,
    Integer,
    Name,
    Reason,
    Record,
    Seconds,
    Sha256,
    Variant,
    _Part,
)

__all__ = ["DownstreamRecord", "RemovalPoint", "RemovalRecord"]

Share = Annotated[float, Field(ge=0, le=1)]
PerSeed = dict[Name, tuple[float, ...]]


class DownstreamRecord(Record):
    """What records of every use share: one attributor with one configuration on one task."""

    ground_truth: GroundTruthInfo | None = Field(
        description="the task's bundle, which only the oracle looked at; null where the task has none"
    )
    variant: Variant = Field(description="how the hyperparameters came about")
    selector: Name | None
    hyperparameters: Hyperparameters
    status: Literal["ok", "failed"]
    reason: Reason | None
    fit_seconds: Seconds | None
    score_seconds: Seconds | None
    peak_bytes: Count | None = Field(description="largest resident memory")
    scores_sha256: Sha256 | None
    checkpoints_sha256: Sha256

    @model_validator(mode="after")
    def _status_agrees(self) -> Self:
        if (self.status == "ok") != (self.reason is None) or (self.status == "ok") != (self.scores_sha256 is not None):
            raise ValueError(f"status = {self.status}: ok has scores_sha256 and no reason, failed the other way round")
        if self.variant in ("selected", "oracle") and self.selector is None:
            raise ValueError(f"variant = {self.variant}: the selector is required")
        return self


class RemovalPoint(_Part):
    """What removing one share of the training set did."""

    rate: float = Field(gt=0, lt=1)
    n_removed: int = Field(gt=0, le=2**53)
    measured: PerSeed = Field(description="measurement → mean over scoring points, for each seed")
    random: PerSeed = Field(description="the same where as many examples were removed at random")


class RemovalRecord(DownstreamRecord):
    """Data selection: training examples removed in the order of an attribution, and retraining on the rest."""

    kind: Literal["removal"] = "removal"
    direction: Literal["helpful", "harmful"] = Field(description="which examples were removed")
    balanced: bool = Field(description="whether every class lost the same share")
    n_calibration: Count = Field(description="test points that scores were summed over")
    n_degenerate: Count = Field(description="those of them that were left out for NaN or infinity")
    n_scoring: Count = Field(description="test points that the retrained models were measured on")
    retrain_seeds: tuple[Integer, ...] = Field(min_length=1)
    retrain_seconds: Seconds = Field(description="process-seconds of this record's retrains, whenever they were done")
    full: PerSeed | None = Field(description="measurement → mean over scoring points with nothing removed, per seed")
    points: tuple[RemovalPoint, ...] = Field(description="by ascending rate")

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if self.status == "failed":
            if self.points or self.full is not None:
                raise ValueError("status = failed: there are no points, and full is null")
            return self
        if not self.points or self.full is None:
            raise ValueError("status = ok: points and full are required")
        rates = [point.rate for point in self.points]
        if rates != sorted(set(rates)):
            raise ValueError(f"rates = {rates}: must ascend")
        for table in (self.full, *(table for point in self.points for table in (point.measured, point.random))):
            if table.keys() != self.full.keys() or any(len(v) != len(self.retrain_seeds) for v in table.values()):
                raise ValueError("every table of measurements has the same names, with a value for each seed")
        return self
