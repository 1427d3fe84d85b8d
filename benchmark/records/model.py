"""The schema of records: what each field means and which fields agree with each other.

Every field of version 1 is required (null says "not known" or "does not apply"), so that nothing is forgotten
silently. A field added later must have a default that means "as before"; fields at such a default stay out of
the JSON. Old files therefore keep loading, and keep their ids.
"""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, model_validator

from attriboard.base.digests import digest
from attriboard.base.schema import RecordId, Sha256, Timestamp, matching

Code = Annotated[
    str,
    matching(r"^([0-9a-f]{64}|[A-Za-z0-9._-]+==[A-Za-z0-9.+!_-]+)$", "a SHA-256, or a package as in attriboard==0.2.0"),
]


def _readable(text: str) -> str:
    """Without the sign of lost characters, which readers of records refuse: a program may have printed it."""
    return text.replace("\ufffd", "?")


Reason = Annotated[
    str,
    matching(r"^[a-z][a-z0-9_]*(: [\s\S]+)?$", "the kind of failure, as in out_of_memory: …", max_length=2000),
    AfterValidator(_readable),
]
Name = Annotated[
    str,
    matching(
        r"^[a-z][a-z0-9_-]{0,63}$",
        "1 to 64 lower-case letters, digits, - or _, a letter first, as in my_method",
    ),
]
Text = Annotated[str, Field(max_length=2000), AfterValidator(_readable)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Integer = Annotated[int, Field(ge=-(2**53), le=2**53)]  # what every JSON reader holds exactly
Values = dict[Text, bool | Integer | float | Text | None]
Variant = Literal["default", "custom", "selected", "oracle", "sweep"]


def _a_date(created: str) -> str:
    datetime.fromisoformat(created)
    return created


HEADLINE_SELECTOR = "surrogate"
"""Whose pick is `selected`, in records and on every board."""

FORMER_NAMES = {"damping": "regularization"}
"""Names of hyperparameters in older records → what they are called today; see `Renamed`."""


class Renamed(dict[str, Any]):
    """A configuration of an older record under today's names; it is written as it was read, so the record keeps its id.

    Attributes:
        written: as it was read.
    """

    written: dict[str, Any]


class RenamedText(str):
    """The name of a hyperparameter of an older record, likewise."""

    written: str


def _renamed(values: dict[str, Any]) -> dict[str, Any]:
    names = {name: FORMER_NAMES.get(name, name) for name in values}
    if len(set(names.values())) < len(names) or all(map(str.__eq__, names, names.values())):
        return values  # nothing is an older name, or today's stands beside it
    found = Renamed({names[name]: value for name, value in values.items()})
    found.written = values
    return found


def _renamed_text(name: str) -> str:
    if name not in FORMER_NAMES:
        return name
    found = RenamedText(FORMER_NAMES[name])
    found.written = name
    return found


def _as_written(value: Any) -> Any:
    return getattr(value, "written", value)


Hyperparameters = Annotated[Values, AfterValidator(_renamed), PlainSerializer(_as_written)]
HyperparameterName = Annotated[Name, AfterValidator(_renamed_text), PlainSerializer(_as_written)]
Created = Annotated[Timestamp, AfterValidator(_a_date)]


class RecordPart(BaseModel):
    """What a record is made of: nothing unknown, nothing that changes, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def __str__(self) -> str:
        return repr(self)


class TaskInfo(RecordPart):
    """Which task, by name, version and the fingerprint of its card."""

    name: Name
    version: int = Field(gt=0, le=2**53)
    fingerprint: Sha256


class GroundTruthInfo(RecordPart):
    """Which bundle was scored against, and how much of it."""

    sha256: Sha256 = Field(description="digest of the bundle file")
    n_masks: int = Field(gt=1, le=2**53)
    n_repeats: int = Field(gt=0, le=2**53)
    question: str = matching(
        r"^((one|\d{1,2}(\.\d{1,4})?pct)-(same|fresh))?$",
        "the name of a question, as in 10pct-fresh",
        default="",
        description="what was removed, and under which seeds; empty for the usual question",
    )


class AttributorInfo(RecordPart):
    """Which method, and which code of it."""

    name: Name
    origin: Literal["builtin", "entry_point", "file", "scores"] = Field(
        description="by which door it came; scores: a matrix made elsewhere, no code was run"
    )
    digest: Code | None = Field(description="SHA-256 of the code, or distribution==version; null where no code was run")
    paper: Text
    family: Text


class MethodInfo(RecordPart):
    """The method card that came with a score matrix."""

    card_sha256: Sha256 = Field(description="digest of the card's canonical JSON")
    protocol: Literal["default", "selected", "tuned"] = Field(description="where the hyperparameters come from")


class HeldOut(RecordPart):
    """The LDS on masks that are not public."""

    sha256: Sha256 = Field(description="digest of the file, which was published before anything was scored")
    n_masks: int = Field(gt=1, le=2**53)
    mean: Correlation = Field(description="as `lds.mean`, over these masks")
    ci95: tuple[Correlation, Correlation]


class LdsResult(RecordPart):
    """The linear datamodeling score on the scoring points."""

    mean: Correlation = Field(description="Spearman's correlation over masks, averaged over scoring points")
    ci95: tuple[Correlation, Correlation] = Field(description="two-way bootstrap interval of the mean")
    pearson: Correlation = Field(description="Pearson's correlation over masks, averaged over scoring points")
    n_degenerate: Count = Field(description="scoring points with constant or NaN scores; they count as 0")
    n_scoring: int = Field(gt=0, le=2**53, description="number of scoring points")
    target: Literal["margin", "negative_loss", "own"] = Field(description="the attributed function")
    per_test: tuple[Correlation, ...] | None = Field(description="Spearman's correlation of each scoring point")
    mask_influence: tuple[float, ...] | None = Field(
        description="jackknife influence of each mask k on the mean: (n_masks - 1) (mean - mean without k)"
    )

    def __repr__(self) -> str:
        low, high = self.ci95
        return f"<LDS {self.mean:.3f}, 95 % interval {low:.3f} … {high:.3f}, {self.n_scoring} scoring points>"

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if self.ci95[0] > self.ci95[1]:
            raise ValueError(f"ci95 = {list(self.ci95)}: the lower end comes first")
        if self.n_degenerate > self.n_scoring:
            raise ValueError(f"n_degenerate = {self.n_degenerate}: there are {self.n_scoring} scoring points")
        if self.per_test is not None:
            if len(self.per_test) != self.n_scoring:
                raise ValueError(f"per_test has {len(self.per_test)} values for {self.n_scoring} scoring points")
            if abs(sum(self.per_test) / self.n_scoring - self.mean) > 1e-6:
                raise ValueError(f"mean = {self.mean}: is not the mean of per_test")
        return self


def above_ceiling(lds: LdsResult, ceiling: float | None) -> str | None:
    """Why an LDS cannot be right, as a record's reason: the whole interval lies above what a perfect predictor gets.

    The part above is noise of single retrains, which nothing predicts that has not seen them; below the negative of
    the ceiling it is the same.
    """
    if ceiling is None or max(lds.ci95[0], -lds.ci95[1]) <= ceiling:
        return None
    low, high = lds.ci95
    return (
        f"implausible: LDS {lds.mean:.3f}, 95 % interval {low:.3f} to {high:.3f}, lies beyond the noise ceiling "
        f"{ceiling:.3f}, the LDS of a perfect predictor; so the ground truth itself was in the scores"
    )


class GitState(RecordPart):
    """The checkout that the code ran from."""

    commit: str = matching(r"^[0-9a-f]{40,64}$", "a whole commit: 40 to 64 lower-case hexadecimal digits")
    dirty: bool = Field(description="whether tracked files differed from the commit")


class Hardware(RecordPart):
    """The machine; never its name."""

    cpu: Text
    cores: int = Field(gt=0, description="physical cores")
    memory_bytes: Count
    gpu: Text | None


class Provenance(RecordPart):
    """By which code, on what machine, from which command."""

    attriboard: Text = Field(description="version of AttriBoard")
    git: GitState | None
    python: Text
    packages: dict[Text, Text] = Field(description="distribution → version")
    hardware: Hardware
    threads: int = Field(gt=0, description="threads of the numerical libraries")
    platform: Text
    command_line: tuple[Text, ...] = Field(description="arguments; of paths the last part only")


class Record(RecordPart):
    """What records of every kind share."""

    schema_version: Literal[1] = 1
    created: Created = Field(description="UTC")
    task: TaskInfo
    attributor: AttributorInfo
    seed: Integer
    provenance: Provenance
    parameters: tuple[Text, ...] = Field(
        default=(), description="glob patterns of the attributed parameters; empty for all that are trained"
    )

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data, without fields at a default that a later version of the schema added."""
        heading = self.model_dump(mode="json", include={"schema_version", "kind"})
        return heading | self.model_dump(mode="json", exclude_defaults=True)

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return digest(self.to_json())[:16]

    @property
    def title(self) -> str:
        """The attributor, with its parameters where it attributes some only: what a row of a table is of."""
        return f"{self.attributor.name} ({', '.join(self.parameters)})" if self.parameters else self.attributor.name

    @property
    def row(self) -> str:
        """The same as a name that a file may have."""
        name = self.attributor.name
        return f"{name}-of-{digest(list(self.parameters))[:8]}" if self.parameters else name

    @property
    def path(self) -> Path:
        """Where the record's file lies below a folder of results."""
        task, attributor = self.task.name, self.attributor.name
        return Path(task, attributor, f"{task}-{attributor}-{self.id}.json")


class Negated(RecordPart):
    """The record whose scores, made again, were negated; boards now derive this control, its records stay readable."""

    record: RecordId = Field(description="its id")
    attributor: Name
    hyperparameters: Hyperparameters


class GradedRecord(Record):
    """What records share that ground truth graded."""

    ground_truth: GroundTruthInfo


class AttributionRecord(GradedRecord):
    """One attributor with one configuration on one task: its LDS, or the reason why there is none."""

    kind: Literal["attribution"] = "attribution"
    variant: Variant = Field(description="how the hyperparameters came about")
    selector: Name | None
    hyperparameters: Hyperparameters
    status: Literal["ok", "failed", "implausible"] = Field(
        description="implausible: graded, and beyond what any method can get; never ranks"
    )
    reason: Reason | None = Field(
        description="of a failure: a category and a text, as in 'nan: 3 of 500 rows', 'timeout'"
    )
    lds: LdsResult | None
    ceiling: Correlation | None = Field(description="the LDS that a perfect predictor would get")
    fit_seconds: Seconds | None
    score_seconds: Seconds | None
    peak_bytes: Count | None = Field(description="largest resident memory")
    scores_sha256: Sha256 | None
    checkpoints_sha256: Sha256 | None
    calibration: Correlation | None = Field(
        default=None, description="mean LDS on the calibration points, which the oracle tunes"
    )
    criteria: dict[Name, float] = Field(
        default_factory=dict, description="selector → the quantity that it looked at, at this configuration"
    )
    held_out: HeldOut | None = Field(default=None, description="the LDS on masks that are not public")
    method: MethodInfo | None = Field(default=None, description="of a score matrix that came with a method card")
    negates: Negated | None = Field(
        default=None, description="of the control sign_flipped: whose scores were made again and negated"
    )
    notes: tuple[Text, ...] = Field(
        default=(), description="what the attributor says of its fit, such as parameters that it leaves out"
    )

    @model_validator(mode="after")
    def _status_agrees(self) -> Self:
        if self.status == "ok" and (self.lds is None or self.scores_sha256 is None or self.reason is not None):
            raise ValueError("status = ok: lds and scores_sha256 are required, and reason is null")
        if self.status == "failed" and (self.lds is not None or self.reason is None):
            raise ValueError("status = failed: a reason is required, and lds is null")
        if self.status == "implausible" and (self.lds is None or self.scores_sha256 is None or self.reason is None):
            raise ValueError("status = implausible: lds, scores_sha256 and a reason are required")
        if self.variant == "selected" and self.selector is None:
            raise ValueError("variant = selected: the selector is required")
        influence = self.lds.mask_influence if self.lds else None
        if influence is not None and len(influence) != self.ground_truth.n_masks:
            raise ValueError(f"mask_influence has {len(influence)} values for {self.ground_truth.n_masks} masks")
        return self

    @property
    def doubt(self) -> str | None:
        """Why its LDS cannot be right, whatever its status claims; `None` where nothing speaks against it."""
        if self.status == "implausible" or self.ground_truth.question:  # there it takes the ceiling's own interval
            return self.reason if self.status == "implausible" else None
        return above_ceiling(self.lds, self.ceiling) if self.lds else None

    def repeats(self, earlier: "AttributionRecord") -> bool:
        """Whether it says nothing that an earlier record does not: they differ in when, where and how fast they ran."""
        own = {"created", "provenance", "fit_seconds", "score_seconds", "peak_bytes", "criteria"}
        known = self.criteria.items() <= earlier.criteria.items()
        return known and self.model_dump(exclude=own) == earlier.model_dump(exclude=own)


class GradedConfiguration(RecordPart):
    """A configuration and its mean LDS on the scoring points; null where it failed."""

    hyperparameters: Hyperparameters
    lds: Correlation | None


class Difference(RecordPart):
    """A paired difference of two mean LDS, with its 95 % interval."""

    mean: float = Field(ge=-2, le=2)
    ci95: tuple[float, float]


class SelectionRecord(GradedRecord):
    """One selector on one attributor and task: what it chose, and what that is worth beside default and oracle."""

    kind: Literal["selection"] = "selection"
    selector: Name
    hyperparameter: HyperparameterName = Field(description="what was chosen")
    status: Literal["ok", "failed"]
    reason: Reason | None
    transferred: bool = Field(description="whether the spectrum was another method's on the same models")
    candidates: tuple[float, ...]
    criterion: tuple[float, ...] | None = Field(description="what the selector looked at, per candidate")
    objective: tuple[float, ...] | None = Field(description="what it minimized, per candidate")
    note: Text
    default: GradedConfiguration
    selected: GradedConfiguration | None
    oracle: GradedConfiguration | None = Field(description="the best candidate by LDS on calibration points")
    regret: Difference | None = Field(description="LDS of the oracle minus that of the selected configuration")
    gap_closed: float | None = Field(description="(selected − default)/(oracle − default); null where there is no gap")
    rank_correlation: Correlation | None = Field(description="Spearman between −objective and LDS over candidates")
    seconds: Seconds = Field(description="of the fit and the choice")
    n_retrains: Count = Field(description="retrains that the same choice by LDS takes")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        for name in ("criterion", "objective"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.candidates):
                raise ValueError(f"{name} has {len(values)} values for {len(self.candidates)} candidates")
        if self.status == "failed" and self.reason is None:
            raise ValueError("status = failed: a reason is required")
        return self
