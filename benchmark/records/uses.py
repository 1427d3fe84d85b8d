"""The schema of records of what attributions are used for: choosing data, flipping predictions, finding wrong labels.

The rules of `attriboard.records.model` apply here as well.
"""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from attriboard.base.schema import Sha256
from attriboard.records.model import (
    Count,
    GroundTruthInfo,
    Hyperparameters,
    Integer,
    Name,
    Reason,
    Record,
    RecordPart,
    Seconds,
    Variant,
)

ASKED = ("direction", "balanced", "by", "fraction")
"""Fields that say what a record of a use asks; a record has some of them."""

INFLUENCES = {"self": "self-influence", "summed": "summed influence"}
"""`MislabelRecord.by` in words."""

TARGETS = {"margin": "margin", "negative_loss": "negative loss", "own": "target"}
"""`QldRecord.target` in words."""

Share = Annotated[float, Field(ge=0, le=1)]
PerSeed = dict[Name, tuple[float, ...]]
PerPoint = dict[Name, tuple[float, ...]]


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


class RemovalPoint(RecordPart):
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


class BrittlePoint(RecordPart):
    """How much must go before one prediction flips."""

    test_point: Count
    n_removed: int | None = Field(
        ge=1, le=2**53, description="fewest removals that flip; null: not even the most tried"
    )
    not_enough: Count = Field(description="the most removals tried that do not flip")
    flipped: Count = Field(description="of the search's retrains at n_removed, those that were wrong")
    confirmed: Count = Field(description="of the fresh retrains at n_removed, those that were wrong")


class BrittlenessRecord(DownstreamRecord):
    """Brittleness: the fewest training examples whose removal, in an attribution's order, flips a prediction."""

    kind: Literal["brittleness"] = "brittleness"
    sizes: tuple[int, ...] = Field(min_length=1, description="numbers of removals that the search may try, ascending")
    n_eligible: Count = Field(description="scoring points that every full-data model gets right")
    n_degenerate: Count = Field(description="points left out of the search for NaN or infinity in their scores")
    search_seeds: tuple[Integer, ...] = Field(min_length=1)
    confirm_seeds: tuple[Integer, ...]
    points: tuple[BrittlePoint, ...]

    @property
    def share_flipped(self) -> float:
        """Share of the points that flip within the most removals tried."""
        return sum(point.n_removed is not None for point in self.points) / len(self.points)

    @property
    def median_removed(self) -> float | None:
        """Median of the fewest removals; `None` where it lies beyond the most tried."""
        found = sorted(point.n_removed or math.inf for point in self.points)
        half = len(found) // 2
        median = found[half] if len(found) % 2 else (found[half - 1] + found[half]) / 2
        return float(median) if math.isfinite(median) else None

    @property
    def share_confirmed(self) -> float | None:
        """Of the points that flip, the share whose flip most fresh retrains confirm."""
        flips = [point for point in self.points if point.n_removed is not None]
        if not flips or not self.confirm_seeds:
            return None
        return sum(2 * point.confirmed > len(self.confirm_seeds) for point in flips) / len(flips)

    @model_validator(mode="after")
    def _points_agree(self) -> Self:
        if (self.status == "ok") != bool(self.points):
            raise ValueError("points: there are some where status = ok, and none where it is failed")
        for point in self.points:
            where = f"test_point {point.test_point}"
            if point.n_removed is not None and not (
                point.n_removed in self.sizes and point.not_enough < point.n_removed
            ):
                raise ValueError(f"{where}: n_removed = {point.n_removed} must be a size tried, above not_enough")
            if point.flipped > len(self.search_seeds) or point.confirmed > len(self.confirm_seeds):
                raise ValueError(f"{where}: more retrains were wrong than there are seeds")
        return self


class QldRecord(DownstreamRecord):
    """Query loss difference: what removing its own top examples does to a test point, against random removals."""

    kind: Literal["qld"] = "qld"
    target: Literal["margin", "negative_loss", "own"] = Field(description="the attributed function")
    fraction: float = Field(gt=0, lt=1, description="share of the training set that is removed")
    n_removed: int = Field(gt=0, le=2**53)
    removed_by: Literal["weight", "subset"] = Field(
        description="weight: the loss of removed examples counts 0, in the same batches; subset: they are left out"
    )
    n_scoring: Count = Field(description="scoring points of the task, of which the points are drawn")
    n_degenerate: Count = Field(description="points left out for NaN or infinity in their scores")
    retrain_seeds: tuple[Integer, ...] = Field(min_length=1, description="seeds over which the points are spread")
    n_repeats: int = Field(gt=0, le=2**53, description="seeds of each point")
    n_random: int = Field(gt=1, le=2**53, description="random removals for each seed")
    retrain_seconds: Seconds = Field(description="process-seconds of this record's retrains, whenever they were done")
    test_points: tuple[Count, ...]
    removed: PerPoint = Field(
        description="target, and loss: of each point with its own top examples removed; mean over repeats"
    )
    random: PerPoint = Field(description="the same with random examples removed; mean over random sets")
    drop: float | None = Field(description="mean over points of random - removed, of the target: positive = harmed")
    ci95: tuple[float, float] | None = Field(description="its interval by Student's t")

    @property
    def target_in_words(self) -> str:
        """`target` in words."""
        return TARGETS[self.target]

    @property
    def drops(self) -> tuple[float, ...]:
        """Of each point, by how much more its target falls than under random removals."""
        return tuple(b - a for a, b in zip(self.removed["target"], self.random["target"], strict=True))

    @property
    def share_harmed(self) -> float:
        """Share of the points whose target is lower than under random removals."""
        return sum(drop > 0 for drop in self.drops) / len(self.drops)

    @property
    def loss_rise(self) -> float:
        """Mean over points of the loss with the own examples removed minus that under random removals."""
        pairs = zip(self.removed["loss"], self.random["loss"], strict=True)
        return math.fsum(a - b for a, b in pairs) / len(self.test_points)

    @model_validator(mode="after")
    def _points_agree(self) -> Self:
        if any((part is None) != (self.status == "failed") for part in (self.drop, self.ci95)):
            raise ValueError("drop and ci95: required where status = ok, null where it failed")
        if (self.status == "ok") != bool(self.test_points):
            raise ValueError("test_points: there are some where status = ok, and none where it is failed")
        if self.n_repeats > len(self.retrain_seeds):
            raise ValueError(f"n_repeats = {self.n_repeats}: there are {len(self.retrain_seeds)} seeds")
        for table in (self.removed, self.random):
            if set(table) != ({"target", "loss"} if self.test_points else set()):
                raise ValueError(f"tables have {', '.join(sorted(table))}: must be target and loss")
            if any(len(values) != len(self.test_points) for values in table.values()):
                raise ValueError(f"every table has a value for each of {len(self.test_points)} test points")
        if self.drop is not None and self.ci95 is not None:
            if not self.ci95[0] <= self.drop <= self.ci95[1]:
                raise ValueError(f"drop = {self.drop}: must lie in ci95 = {list(self.ci95)}")
            if abs(math.fsum(self.drops) / len(self.drops) - self.drop) > 1e-5:
                raise ValueError(f"drop = {self.drop}: is not the mean of random - removed")
        return self


class MislabelRecord(DownstreamRecord):
    """Mislabel detection: how well an attribution ranks the training examples whose label is wrong on purpose."""

    kind: Literal["mislabel"] = "mislabel"
    by: Literal["self", "summed"] = Field(
        description="self: influence on the example itself; summed: minus the scores summed over calibration points"
    )
    n_mislabelled: Count
    auc: Share | None = Field(description="probability that a wrong label is more suspicious than a right one")
    ci95: tuple[Share, Share] | None = Field(description="DeLong's interval of the AUC")
    average_precision: Share | None
    inspected: tuple[Share, ...] = Field(description="shares of the training set, the most suspicious first")
    recall: tuple[Share, ...] | None = Field(description="share of the wrong labels found, at each of inspected")

    @property
    def influence(self) -> str:
        """`by` in words."""
        return INFLUENCES[self.by]

    @model_validator(mode="after")
    def _result_agrees(self) -> Self:
        parts = (self.auc, self.ci95, self.average_precision, self.recall)
        if any((part is None) != (self.status == "failed") for part in parts):
            raise ValueError(
                "auc, ci95, average_precision and recall: required where status = ok, null where it failed"
            )
        if self.recall is not None and len(self.recall) != len(self.inspected):
            raise ValueError(f"recall has {len(self.recall)} values for {len(self.inspected)} shares inspected")
        return self
