"""The schema of records of what choosing a hyperparameter costs: regret against the number of retrains.

The rules of `attriboard.records.model` apply here as well.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from attriboard.base.schema import Sha256
from attriboard.records.model import (
    Correlation,
    Count,
    GradedRecord,
    Hyperparameters,
    Integer,
    Name,
    RecordPart,
    Seconds,
    Text,
)

RULES = {
    "between": "pooled correlations, ξ as a prior, between grid points",
    "pooled": "pooled correlations, ξ as a prior",
    "posterior": "pooled correlations",
    "smoothed": "largest LDS after smoothing over λ",
    "best": "largest LDS",
}
"""Rules that choose from k retrains, the best first → what they go by."""


class Pick(RecordPart):
    """What a selector chose without single retrains, and what that gives away."""

    hyperparameters: Hyperparameters | None = Field(description="complete; null where nothing was chosen")
    regret: float | None = Field(
        description="LDS of the best grid point minus the pick's, all masks; below 0 where one off the grid wins"
    )
    note: Text = ""


class OmegaAtPick(RecordPart):
    """ω at the λ that ξ chose, from all masks on the calibration points: ξ is right where it is one half."""

    value: float
    ci95: tuple[float, float] = Field(description="bootstrap over masks")


class RuleCost(RecordPart):
    """Regret of one rule that chooses from k retrains, for every k: over random draws of masks and repeats.

    `best`: the largest LDS; `smoothed`: after averaging over neighboring λ; `posterior`: by pooled correlations;
    `pooled`: the same with ξ's pick as a prior; `between`: the same between grid points as well.
    """

    mean: tuple[float, ...]
    p10: tuple[float, ...] | None = Field(default=None, description="10th percentile; below 0 between grid points")
    p90: tuple[float, ...] = Field(description="90th percentile")
    worst: tuple[float, ...]


class SelectionCostRecord(GradedRecord):
    """One attributor's grid on one task: how good a choice k retrains buy, for many k, and none."""

    kind: Literal["selection_cost"] = "selection_cost"
    swept: tuple[Name, ...] = Field(description="the hyperparameters that differ over the grid")
    configurations: tuple[Hyperparameters, ...] = Field(description="the grid points that did not fail")
    lds: tuple[Correlation, ...] = Field(description="mean LDS of each on the scoring points, all masks")
    picks: dict[Name, Pick] = Field(description="selector → its choice; default and oracle are among them")
    budgets: tuple[Integer, ...] = Field(description="numbers of retrains k, ascending")
    rules: dict[Name, RuleCost] = Field(description="rule → regret for every k, on the masks that did not choose")
    hidden: float | None = Field(
        default=None, description="LDS at the peak of the parabola through the best grid point of λ, above that point's"
    )
    omega: OmegaAtPick | None = Field(
        default=None, description="null where the grid has no neighbors close to ξ's λ, or scores do not shrink with λ"
    )
    n_draws: Count
    n_failed: Count = Field(description="grid points that failed and are left out")
    retrain_seconds: Seconds = Field(description="of one retrain of the ground truth, on one core")
    checkpoints_sha256: Sha256

    @property
    def headline(self) -> tuple[str, RuleCost]:
        """The best rule that fits the grid, and its regret: what `select --budget` does."""
        name = next(name for name in RULES if name in self.rules)
        return name, self.rules[name]

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if len(self.lds) != len(self.configurations):
            raise ValueError(f"lds has {len(self.lds)} values for {len(self.configurations)} configurations")
        if not set(RULES) & set(self.rules):
            raise ValueError(f"rules: at least one of {', '.join(RULES)} is required")
        for name, rule in self.rules.items():
            if {len(v) for v in (rule.mean, rule.p10, rule.p90, rule.worst) if v is not None} != {len(self.budgets)}:
                raise ValueError(f"rules.{name}: one value for each of the {len(self.budgets)} budgets is required")
        return self
