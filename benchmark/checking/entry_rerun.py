"""An entry's records run again in the sandbox, on the word of the person who checks it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

from attriboard.attribution.limits import NO_LIMITS, Limits
from attriboard.attribution.runner import Outcome
from attriboard.base.display import Display, Silent
from attriboard.base.errors import AttriboardError
from attriboard.checking.entries import RECORDS
from attriboard.checking.problems import Problem
from attriboard.evaluation.grader import evaluate
from attriboard.evaluation.rerun import HeldOutExaminer, check_task, check_truth, grader_of, method_of
from attriboard.evaluation.workspace import Workspace
from attriboard.records.files import AnyRecord, read_record
from attriboard.records.model import AttributionRecord
from attriboard.records.verifications import TOLERANCE, Verification, verify_record


@dataclass(frozen=True)
class Rerun:
    """How an entry is run again.

    Attributes:
        by: who runs it.
        code: the method's `.py` file; without one, records of installed methods alone are run.
        held_out: files of held-out masks, one for each task that has some.
        limits: of an attributor's process.
        groundtruth: folder of bundles; the published ones by default.
        display: where progress goes.
    """

    by: str
    code: Path | None = None
    held_out: Sequence[Path] = ()
    limits: Limits = NO_LIMITS
    groundtruth: Path | None = None
    display: Display = field(default_factory=Silent)


class _Group(NamedTuple):
    """What one process can run."""

    task: str
    seed: int
    threads: int
    origin: str
    parameters: tuple[str, ...]
    question: str

    @classmethod
    def of(cls, record: AttributionRecord) -> Self:
        """The group of a record."""
        info, threads = record.attributor, record.provenance.threads
        question = record.ground_truth.question
        return cls(record.task.name, record.seed, threads, info.origin, record.parameters, question)


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        verifications: one for each record that was run.
        errors: records that disagree or cannot be right; that none was run.
        warnings: records that were not run, and why.
    """

    verifications: tuple[Verification, ...]
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def run_entry_again(folder: Path, how: Rerun) -> Found:
    """Run every record of one configuration again in the sandbox, and judge it as `attriboard verify` does.

    Args:
        folder: an entry that was checked.
        how: by whom, and with which code.

    Raises:
        InputError: there is no tool for sandboxes, or held-out masks that the list does not name.
    """
    verifications: list[Verification] = []
    errors: list[Problem] = []
    warnings: list[Problem] = []
    groups: dict[_Group, dict[str, AttributionRecord]] = {}
    for place, record in _records(folder):
        if isinstance(record, AttributionRecord):
            groups.setdefault(_Group.of(record), {})[place] = record
        else:
            warnings.append(Problem(place, f"not run again: of kind {record.kind}; only those of kind attribution are"))
    for group, claimed in sorted(groups.items()):
        places, records = list(claimed), list(claimed.values())
        try:
            method = method_of(records[0], how.code)
        except AttriboardError as error:
            warnings += [Problem(place, f"not run again: {error}") for place in places]
            continue
        workspace = Workspace(
            group.task, how.groundtruth, limits=how.limits, sandbox=True, seed=group.seed, threads=group.threads,
            parameters=group.parameters, display=how.display,
        )  # fmt: skip
        try:
            found = list(_verified(records, workspace, method, how))
        except AttriboardError as error:
            errors += [Problem(place, f"cannot be run again: {error}") for place in places]
            continue
        verifications += found
        errors += [
            Problem(place, f"run again in the sandbox: {verification.reason}")
            for place, verification in zip(places, found, strict=True)
            if verification.status != "verified"
        ]
    if not (verifications or errors):
        errors.append(Problem(RECORDS, "none was run again; the warnings say why of each"))
    return Found(tuple(verifications), tuple(errors), tuple(warnings))


def _records(folder: Path) -> Iterator[tuple[str, AnyRecord]]:
    """The records of an entry, by their places in it."""
    for path in sorted((folder / RECORDS).glob("*.json")):
        yield f"{RECORDS}/{path.name}", read_record(path)


def _verified(
    claimed: Sequence[AttributionRecord], workspace: Workspace, method: str, how: Rerun
) -> Iterator[Verification]:
    """The verifications of a group of records, in their order."""
    for record in claimed:
        check_task(record, workspace)
        check_truth(record, workspace)
    grader = grader_of(claimed[0], workspace)
    examine = _examiner(workspace, () if grader.truth.question else how.held_out)  # held-out masks ask the usual one
    job = workspace.job(method, [dict(record.hyperparameters) for record in claimed])
    outcomes: list[Outcome] = []

    def listen(outcome: Outcome) -> None:
        outcomes.append(outcome)
        examine(outcome)

    made: dict[int, Verification] = {}
    for again in evaluate(workspace.task, grader, job, ["custom"] * len(claimed), workspace.runner, listen):
        index = outcomes[-1].index
        made[index] = verify_record(claimed[index], again, how.by, TOLERANCE, sandbox=True, held_out=examine.found)
    yield from (made[index] for index in range(len(claimed)))


def _examiner(workspace: Workspace, files: Sequence[Path]) -> HeldOutExaminer:
    """What grades on the held-out masks of the workspace's task, if there are any."""
    if not files:
        return HeldOutExaminer(None, workspace)
    from attriboard.groundtruth.held_out import read_held_out  # PyTorch, not for grading

    fingerprint = workspace.task.card.fingerprint
    mine = [truth for truth in map(read_held_out, files) if truth.card.fingerprint == fingerprint]
    return HeldOutExaminer(mine[0] if mine else None, workspace)
