"""`attriboard verify`: a record run again, and what it found compared with what the record claims."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.base.terminal import note
from attriboard.cli.options import RESULTS, OutDir, Process, Sources, Untrusted, open_workspace, prepare_folder
from attriboard.cli.shell import Json, command, emit

if TYPE_CHECKING:
    from attriboard.groundtruth.bundle import GroundTruth
    from attriboard.records.model import AttributionRecord
    from attriboard.records.verifications import Verification

HeldOutFile = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        help="File of held-out masks, whose SHA-256 the list of bundles names: grade on them too.",
        exists=True,
        dir_okay=False,
    ),
]


@command
def verify(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record of one configuration, JSON.")],
    by: Annotated[str, typer.Option("--by", help="Name of the person verifying.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="The method's .py file, if the record's method came from a file."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference in LDS accepted as a match.", min=1e-9, max=1)
    ] = 0.005,
    held_out: HeldOutFile = None,
    out: OutDir = RESULTS,
    machine: Untrusted = Untrusted(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Run a record's configuration and seed again and compare; exit code 1 if the numbers disagree.

    The result is a new file in --out, which the board shows. The record stays as it is.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.grader import evaluate
    from attriboard.evaluation.rerun import (
        HeldOutExaminer,
        check_method,
        check_task,
        check_truth,
        grader_of,
        method_of,
    )
    from attriboard.records.files import read_record
    from attriboard.records.model import AttributionRecord
    from attriboard.records.verifications import verify_record, write_verification

    claimed = read_record(record)
    if not isinstance(claimed, AttributionRecord):
        raise InputError(f"{record}: a record of a {claimed.kind}; verify the records of one configuration it rests on")
    method = method_of(claimed, file)
    if held_out and claimed.ground_truth.question:
        raise InputError(f"--held-out: its masks are random halves, {record} asks {claimed.ground_truth.question}")
    machine = replace(machine, threads=machine.threads or claimed.provenance.threads)
    process = Process(**vars(machine), seed=claimed.seed, parameters=list(claimed.parameters))
    workspace = open_workspace(claimed.task.name, sources, process)
    check_task(claimed, workspace)
    check_truth(claimed, workspace)
    check_method(claimed, workspace, method)
    job = workspace.job(method, [dict(claimed.hyperparameters)])
    examiner = HeldOutExaminer(_held_out_truth(held_out), workspace)
    prepare_folder(out)
    grader = grader_of(claimed, workspace)
    (again,) = evaluate(workspace.task, grader, job, ["custom"], workspace.runner, examiner)
    verification = verify_record(claimed, again, by, tolerance, sandbox=process.sandbox, held_out=examiner.found)
    path = write_verification(verification, out)
    if json:
        emit(verification.to_json() | {"verification": str(path)})
    else:
        _show_verification(claimed, verification, path)
    if verification.status != "verified":
        raise typer.Exit(1)


def _held_out_truth(path: Path | None) -> "GroundTruth | None":
    if path is None:
        return None
    from attriboard.groundtruth.held_out import read_held_out  # PyTorch, not for grading

    return read_held_out(path)


def _show_verification(claimed: "AttributionRecord", verification: "Verification", path: Path) -> None:
    first, second = (f"{v:.4f}" if v is not None else "failed" for v in (verification.claimed, verification.found))
    print(f"{claimed.attributor.name} on {claimed.task.name}: LDS {first} claimed, {second} found")
    if verification.same_code is False:
        note("the attributor's code is not the record's: it has changed since, or is another file")
    print("scores are the same to the last bit" if verification.same_scores else "scores differ")
    if (held_out := verification.held_out) is not None:
        low, high = held_out.ci95
        print(f"on {held_out.n_masks} held-out masks: LDS {held_out.mean:.4f}, 95 % interval {low:.3f} … {high:.3f}")
    print(verification.reason or f"verified: within {verification.tolerance:g}")
    print(f"verification: {path}")
