"""An entry's records run again in the sandbox, on the word of the person who checks it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from attriboard.attribution.limits import NO_LIMITS, Limits
from attriboard.attribution.runner import Outcome
from attriboard.base.display import Display, Silent
from attriboard.base.errors import AttriboardError
from attriboard.checking.entries import RECORDS
from attriboard.checking.problems import Problem
from attriboard.evaluation.grader import evaluate
from attriboard.evaluation.rerun import HeldOutExaminer, check_task, check_truth, method_of
from attriboard.evaluation.workspace import Workspace
from attriboard.records.files import read_record
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


@dataclass(frozen=True)
class Found:
    """What came of it.

    Attributes:
        verifications: one for each record that was run.
        errors: records that disagree or cannot be right.
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
        InputError: there is no bubblewrap, or held-out masks that the list does not name.
    """
    verifications: list[Verification] = []
    errors: list[Problem] = []
    warnings: list[Problem] = []
    for group, records in groupby(sorted(_records(folder), key=lambda pair: _group(pair[1])), lambda p: _group(p[1])):
        claimed = list(records)
        place = f"{RECORDS}/"
        try:
            method = method_of(claimed[0][1], how.code)
        except AttriboardError as error:
            warnings += [Problem(place + path.name, f"not run again: {error}") for path, _ in claimed]
            continue
        workspace = Workspace(
            group[0], how.groundtruth, limits=how.limits, sandbox=True, seed=group[1], threads=group[2],
            display=how.display,
        )  # fmt: skip
        try:
            found = list(_verified([record for _, record in claimed], workspace, method, how))
        except AttriboardError as error:
            errors += [Problem(place + path.name, f"cannot be run again: {error}") for path, _ in claimed]
            continue
        for (path, _), verification in zip(claimed, found, strict=True):
            verifications.append(verification)
            if verification.status != "verified":
                errors.append(Problem(place + path.name, f"run again in the sandbox: {verification.reason}"))
    return Found(tuple(verifications), tuple(errors), tuple(warnings))


def _records(folder: Path) -> Iterator[tuple[Path, AttributionRecord]]:
    for path in sorted((folder / RECORDS).glob("*.json")):
        record = read_record(path)
        if isinstance(record, AttributionRecord):
            yield path, record


def _group(record: AttributionRecord) -> tuple[str, int, int, str]:
    """What one process can run: the same task, seed, threads and kind of code."""
    return record.task.name, record.seed, record.provenance.threads, record.attributor.origin


def _verified(
    claimed: Sequence[AttributionRecord], workspace: Workspace, method: str, how: Rerun
) -> Iterator[Verification]:
    """The verifications of a group of records, in their order."""
    for record in claimed:
        check_task(record, workspace)
        check_truth(record, workspace)
    examine = _examiner(workspace, how.held_out)
    job = workspace.job(method, [dict(record.hyperparameters) for record in claimed])
    outcomes: list[Outcome] = []

    def listen(outcome: Outcome) -> None:
        outcomes.append(outcome)
        examine(outcome)

    made: dict[int, Verification] = {}
    for again in evaluate(workspace.task, workspace.grader, job, ["custom"] * len(claimed), workspace.runner, listen):
        index = outcomes[-1].index
        made[index] = verify_record(claimed[index], again, how.by, TOLERANCE, sandbox=True, held_out=examine.found)
    yield from (made[index] for index in range(len(claimed)))


def _examiner(workspace: Workspace, files: Sequence[Path]) -> HeldOutExaminer:
    """What grades on the held-out masks of the workspace's task, if there are any."""
    if not files:
        return HeldOutExaminer(None, workspace)
    from attriboard.groundtruth.held_out import read_held_out  # PyTorch, not for grading

    fingerprint = workspace.task.card.fingerprint
    mine = [path for path in files if read_held_out(path).card.fingerprint == fingerprint]
    return HeldOutExaminer(mine[0] if mine else None, workspace)
