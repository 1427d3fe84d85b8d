"""`attriboard verify RECORD`: run a record's method again, and say what came out."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.cli.options import (
    AttributorFile,
    OutDir,
    Process,
    Sources,
    open_workspace,
    prepare_folder,
)
from attriboard.cli.shell import Json, command, emit, note

if TYPE_CHECKING:
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import AttributionRecord


@command
def verify(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record of one configuration, JSON.")],
    by: Annotated[str, typer.Option("--by", help="Who runs this: a name that readers can ask.")],
    attributor_file: AttributorFile = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference in LDS that counts as none.", min=1e-9, max=1)
    ] = 0.005,
    out: OutDir = Path("attriboard-results"),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Run a record's attributor again, with its configuration and seed, and compare; exit code 1 where they disagree.

    The result is a new file beside the record, which stays as it is. The board shows it.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.grader import evaluate
    from attriboard.records.files import read_record
    from attriboard.records.model import AttributionRecord
    from attriboard.records.verifications import verify_record, write_verification

    claimed = read_record(record)
    if not isinstance(claimed, AttributionRecord) or claimed.negates:
        raise InputError(
            f"{record}: only records of one configuration are run again; of what it rests on, verify those"
        )
    attributor = str(attributor_file) if attributor_file else _known_attributor(claimed, record)
    bench = open_workspace(claimed.task.name, sources, replace(process, seed=claimed.seed))
    _check_yardstick(claimed, bench, record)
    job = bench.job(attributor, [dict(claimed.hyperparameters)])
    prepare_folder(out)
    (again,) = evaluate(bench.task, bench.grader, job, [claimed.variant], bench.runner)
    if again.attributor.name != claimed.attributor.name:
        raise InputError(f"{record}: is of {claimed.attributor.name}, {attributor} is {again.attributor.name}")
    verification = verify_record(claimed, again, by, tolerance)
    path = write_verification(verification, out)
    if json:
        emit({**verification.model_dump(mode="json"), "verification": str(path)})
    else:
        numbers = (verification.claimed, verification.found)
        first, second = (f"{value:.4f}" if value is not None else "failed" for value in numbers)
        print(f"{claimed.attributor.name} on {claimed.task.name}: LDS {first} claimed, {second} found")
        if verification.same_code is False:
            note("the attributor's code is not the record's: it has changed since, or is another file")
        print("scores are the same to the last bit" if verification.same_scores else "scores differ")
        print(verification.reason or f"verified: within {tolerance:g}")
        print(f"verification: {path}")
    if verification.status == "failed":
        raise typer.Exit(1)


def _known_attributor(record: "AttributionRecord", path: Path) -> str:
    """The name under which the record's attributor is known here.

    Raises:
        InputError: it is not.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.catalog import attributor_names

    names = {name.replace(":", "-"): name for name in attributor_names()}
    if record.attributor.origin not in ("builtin", "entry_point") or record.attributor.name not in names:
        raise InputError(
            f"{path}: {record.attributor.name} came as {record.attributor.origin} and is not installed here; give its "
            "code with --attributor FILE"
        )
    return names[record.attributor.name]


def _check_yardstick(record: "AttributionRecord", bench: "Workspace", path: Path) -> None:
    """The record must be on the task and ground truth that are here.

    Raises:
        InputError: it is not.
    """
    from attriboard.base.errors import InputError

    card, truth = bench.task.card, bench.grader.truth
    if (record.task.fingerprint, record.ground_truth.sha256) != (card.fingerprint, truth.sha256):
        raise InputError(
            f"{path}: fingerprint {record.task.fingerprint[:12]}…, ground truth {record.ground_truth.sha256[:12]}…; "
            f"those here are {card.fingerprint[:12]}… and {truth.sha256[:12]}…: nothing can be compared"
        )
