"""Verifications: a record's method was run again by other people, and this is what came out.

A record is never edited, so a verification is a file of its own beside it, immutable like it and named by its own
digest: `<task>/<attributor>/<record>-<id>.verification`, JSON. It says who ran it, when, on what machine, and with
which code.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from attriboard.base.digests import digest
from attriboard.base.documents import parse_json, read_bounded
from attriboard.base.errors import FormatError
from attriboard.base.paths import write_atomically
from attriboard.base.schema import RecordId, in_words
from attriboard.records.model import (
    AttributionRecord,
    Correlation,
    Created,
    HeldOut,
    LdsResult,
    Name,
    Provenance,
    Reason,
    RecordPart,
)

SUFFIX = ".verification"
TOLERANCE = 0.005  # LDS; other machines add in another order, which moves LDS by less
FITTED_DEVIATIONS = 3.0  # standard deviations between the LDS on published and on held-out masks
MAX_BYTES = 1 << 20
_JUDGED = ("lds.mean", "lds.pearson", "ceiling")


class Verification(RecordPart):
    """One re-run of one record."""

    schema_version: Literal[1] = 1
    created: Created
    record: RecordId = Field(description="id of the record")
    task: Name
    attributor: Name
    by: Annotated[str, Field(min_length=1, max_length=200)] = Field(description="who ran it")
    status: Literal["verified", "failed", "implausible"] = Field(
        description="implausible: the numbers came out again, and cannot be right"
    )
    reason: Reason | None = Field(description="of a failure: the numbers that disagree; or why they cannot be right")
    tolerance: float = Field(gt=0, le=1, description="the largest difference in LDS that counts as none")
    same_code: bool | None = Field(description="whether the attributor's code had the record's digest; null: no code")
    same_scores: bool = Field(description="whether the scores were the same to the last bit")
    claimed: Correlation | None = Field(description="the record's LDS; null for a failed run")
    found: Correlation | None
    provenance: Provenance
    sandbox: bool | None = Field(default=None, description="whether the code ran in the sandbox; null: not known")
    held_out: HeldOut | None = Field(default=None, description="the LDS on masks that are not public")

    @model_validator(mode="after")
    def _status_agrees(self) -> Self:
        if (self.status == "verified") == (self.reason is not None):
            raise ValueError(f"status = {self.status}: a failure has a reason, a success has none")
        return self

    def to_json(self) -> dict[str, Any]:
        """As JSON data, without fields at a default that a later version of the schema added."""
        added = {name for name in ("sandbox", "held_out") if getattr(self, name) is None}
        return self.model_dump(mode="json", exclude=added)

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return digest(self.to_json())[:16]

    @property
    def path(self) -> Path:
        """Where the file is, below a folder of results."""
        stem = f"{self.task}-{self.attributor}-{self.record}-{self.id}"
        return Path(self.task, self.attributor, stem + SUFFIX)


def verify_record(
    record: AttributionRecord,
    again: AttributionRecord,
    by: str,
    tolerance: float = TOLERANCE,
    *,
    sandbox: bool | None = None,
    held_out: HeldOut | None = None,
) -> Verification:
    """Judge a re-run.

    A failed record is verified where its method failed again for the same kind of reason. One that fits the published
    masks better than held-out ones is implausible.

    Args:
        record: what is claimed.
        again: the same attributor, configuration and seed, run now.
        by: who ran it.
        tolerance: see `Verification`.
        sandbox: see `Verification`.
        held_out: what the re-run's scores get on masks that are not public.
    """
    reason = _disagreement(record, again, tolerance)
    doubt = reason is None and (again.doubt or (held_out and again.lds and fitted(again.lds, held_out)))
    claimed, found = (each.lds.mean if each.lds else None for each in (record, again))
    return Verification(
        created=again.created,
        record=record.id,
        task=record.task.name,
        attributor=record.attributor.name,
        by=by,
        status="failed" if reason else "implausible" if doubt else "verified",
        reason=reason or doubt or None,
        tolerance=tolerance,
        same_code=None if record.attributor.digest is None else record.attributor.digest == again.attributor.digest,
        same_scores=record.scores_sha256 is not None and record.scores_sha256 == again.scores_sha256,
        claimed=claimed,
        found=found,
        provenance=again.provenance,
        sandbox=sandbox,
        held_out=held_out,
    )


def fitted(lds: LdsResult, held_out: HeldOut) -> str | None:
    """Why scores must have been fitted to the published masks; `None` where held-out ones agree.

    Both LDS estimate the same quantity. They share their test points, so that the intervals, which count those in
    both, are wider than the difference needs, and a difference of `FITTED_DEVIATIONS` of them is no accident.

    Args:
        lds: on the published masks.
        held_out: of the same scores.
    """
    deviation = sum((high - low) ** 2 for low, high in (lds.ci95, held_out.ci95)) ** 0.5 / (2 * 1.96)
    if lds.mean - held_out.mean <= FITTED_DEVIATIONS * deviation:
        return None
    return (
        f"implausible: LDS {lds.mean:.3f} on the published masks, {held_out.mean:.3f} on {held_out.n_masks} held-out "
        "masks; so the scores were fitted to the published ones"
    )


def _disagreement(record: AttributionRecord, again: AttributionRecord, tolerance: float) -> str | None:
    categories = [(each.reason or "").partition(":")[0] for each in (record, again)]
    if record.status != again.status or categories[0] != categories[1]:
        shown = [each.status + (f" ({each.reason})" if each.reason else "") for each in (record, again)]
        return f"status: {shown[0]} is claimed, {shown[1]} was found"[:2000]
    if record.hyperparameters != again.hyperparameters:
        return f"hyperparameters: {record.hyperparameters} became {again.hyperparameters}"[:2000]
    found = [d for d in compare_numbers(record, again, tolerance) if d.name in _JUDGED]
    return "numbers: " + "; ".join(map(str, found)) if found else None


@dataclass(frozen=True)
class Disagreement:
    """One number of which two records say different things; of a vector, the entry that differs most."""

    name: str
    claimed: float | int | None
    found: float | int | None

    def __str__(self) -> str:
        return f"{self.name} = {self.claimed}: {self.found} was found"


def compare_numbers(claimed: AttributionRecord, found: AttributionRecord, tolerance: float) -> list[Disagreement]:
    """Numbers that differ by more than a tolerance; what only one of the two gives is not compared.

    Args:
        claimed: a record.
        found: another of the same task, ground truth and scores.
        tolerance: the largest difference that counts as none.
    """
    return [
        Disagreement(name, first, second)
        for name, first, second in _numbers(claimed, found)
        if (first is None) != (second is None)
        or (first is not None and second is not None and abs(first - second) > tolerance)
    ]


def _numbers(
    claimed: AttributionRecord, found: AttributionRecord
) -> Iterator[tuple[str, float | int | None, float | int | None]]:
    yield "ceiling", claimed.ceiling, found.ceiling
    if claimed.calibration is not None and found.calibration is not None:
        yield "calibration", claimed.calibration, found.calibration
    first, second = claimed.lds, found.lds
    if first is None or second is None:
        return
    for name in ("mean", "pearson", "n_degenerate", "n_scoring"):
        yield f"lds.{name}", getattr(first, name), getattr(second, name)
    for end in (0, 1):
        yield f"lds.ci95.{end}", first.ci95[end], second.ci95[end]
    for name in ("per_test", "mask_influence"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours is not None and theirs is not None:
            if len(ours) != len(theirs):
                yield f"the length of lds.{name}", len(ours), len(theirs)
                continue
            worst = max(range(len(ours)), key=lambda i: abs(ours[i] - theirs[i]))
            yield f"lds.{name}.{worst}", ours[worst], theirs[worst]


def write_verification(verification: Verification, folder: Path) -> Path:
    """Write a verification below a folder of results; one that is there stays."""
    path = folder / verification.path
    if not path.exists():
        data = verification.to_json()
        write_atomically(path, json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return path


def read_verification(path: Path) -> Verification:
    """Read and validate a verification.

    Raises:
        FormatError: it cannot be read, breaks the schema, or is not named after its content.
    """
    content = read_bounded(path, MAX_BYTES, "a verification")
    try:
        parse_json(content)
        verification = Verification.model_validate_json(content, strict=True)
    except ValidationError as error:
        raise FormatError(f"{path}: {in_words(error)}") from error
    except ValueError as error:
        raise FormatError(f"{path}: not a readable verification: {error}") from error
    if path.name != verification.path.name:
        raise FormatError(f"{path}: altered or renamed; its content belongs to {verification.path.name}")
    return verification
