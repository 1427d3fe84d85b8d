"""`attriboard check` and `attriboard submit`: is a file what it claims to be, and is an entry ready."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.base.terminal import Terminal, note
from attriboard.cli.options import RESULTS, MemoryLimit, TimeLimit, limits, prepare_folder
from attriboard.cli.shell import Json, command, emit, no_document

if TYPE_CHECKING:
    from attriboard.checking.problems import Problem, Report
    from attriboard.records.verifications import Verification

KINDS = ("attributor", "record", "scores", "bundle", "card", "entry")


@dataclass(frozen=True)
class RunAgain:
    """Whether and how the records of an entry are made again."""

    run_again: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="For an entry: also run its records again in the sandbox; NAME is the person running it. Needs "
            "bubblewrap or crun.",
        ),
    ] = None
    code: Annotated[
        Path | None,
        typer.Option(help="The method's .py file, in a folder of its own.", exists=True, dir_okay=False),
    ] = None
    held_out: Annotated[
        list[Path] | None,
        typer.Option(
            help="File of a task's held-out masks: grade on them too; repeatable.", exists=True, dir_okay=False
        ),
    ] = None
    out: Annotated[Path, typer.Option("--out", help="Output folder for the verifications.", file_okay=False)] = RESULTS
    time_limit: TimeLimit = None
    memory_limit: MemoryLimit = None


@command
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[KIND] FILE",
            help="A record (.json), bundle or scores (.safetensors), card (.yaml), attributor (.py), or the folder of "
            f"an entry. KIND, one of {', '.join(KINDS)}, says what it must be.",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="For a score matrix: the task it is for.")] = None,
    again: RunAgain = RunAgain(),
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every warning.")] = False,
    json: Json = False,
) -> None:
    """Validate a file and report what is wrong. Exit code 2: invalid; 1: not of the given KIND.

    An attributor goes through the conformance suite, in a process of its own. For an entry, no code is run and its
    scores are graded again; with --run-again, its records are also made again in the sandbox.
    """
    from attriboard.base.errors import InputError
    from attriboard.checking.files import check_file, wrong_kind

    *kind, file = files
    if len(kind) > 1 or any(str(word) not in KINDS for word in kind):
        raise InputError(f"check {' '.join(map(str, files))}: give one file, or one of {', '.join(KINDS)} and a file")
    if kind and (other := wrong_kind(file, str(kind[0]))):
        if json:
            emit(other.document())
        print(f"error: {file}: {other.errors[0].message}", file=sys.stderr)
        raise typer.Exit(1)
    if file.suffix == ".py":
        note("running the conformance suite, which takes a minute or two")
    report = check_file(file, task)
    if again.run_again is not None:
        report = _run_again(file, report, again)
    elif again.code or again.held_out:
        raise InputError("--code, --held-out: are for --run-again NAME, the name of who runs the entry again")
    if json:
        emit(report.document())
    else:
        for line in _warnings(report.warnings, verbose):
            print(f"{file}: warning: {line}")
        for problem in report.errors:
            print(f"{file}: {problem.where}: {problem.message}")
        for problem in report.run_again:
            print(f"{file}: run again: {problem.where}: {problem.message}")
        print(f"{file}: {'a valid' if report.ok else 'not a valid'} {report.kind}")
    if not report.ok:
        raise typer.Exit(2)


def _counted(files: Sequence[str]) -> str:
    """What an entry holds: "method card, 53 records, 1 score matrix"."""
    records, scores = (sum(name.startswith(f"{folder}/") for name in files) for folder in ("records", "scores"))
    matrices = "matrix" if scores == 1 else "matrices"
    return f"method card, {records} record{'s' * (records != 1)}, {scores} score {matrices}"


def _warnings(problems: "Sequence[Problem]", verbose: bool) -> list[str]:
    """A line for each kind of message, with the first of them and how many more there are; all where asked for."""
    kinds: dict[str, list[Problem]] = {}
    for problem in problems:
        kinds.setdefault(problem.message.partition(":")[0], []).append(problem)
    return [
        f"{first.where}{f' and {len(others)} more (--verbose names them)' * bool(others)}: {first.message}"
        for first, *others in ([[p] for p in problems] if verbose else kinds.values())
    ]


def _run_again(folder: Path, report: "Report", again: RunAgain) -> "Report":
    """The report of an entry with what came of running its records again.

    Raises:
        InputError: the file is no entry, or there is no tool for sandboxes.
    """
    from attriboard.base.errors import InputError
    from attriboard.checking.entry_rerun import Rerun, run_entry_again
    from attriboard.checking.problems import Problem
    from attriboard.records.verifications import write_verification

    if report.kind != "entry":
        raise InputError(f"--run-again: {folder} is no entry; attriboard verify runs a record again")
    if not report.ok:
        note("nothing was run again: the entry has errors")
        return report
    prepare_folder(again.out)
    how = Rerun(
        again.run_again or "",
        again.code,
        again.held_out or (),
        limits(again.time_limit, again.memory_limit),
        display=Terminal(),
    )
    found = run_entry_again(folder, how)
    for verification in found.verifications:
        write_verification(verification, again.out)
    shown = [Problem(v.path.name, _verified(v)) for v in found.verifications]
    return replace(
        report,
        errors=(*report.errors, *found.errors),
        warnings=(*report.warnings, *found.warnings),
        run_again=tuple(shown),
    )


def _verified(verification: "Verification") -> str:
    found = f"LDS {_number(verification.claimed)} claimed, {_number(verification.found)} found"
    other = ", by other code than the record's" if verification.same_code is False else ""
    return f"{verification.status}: {found}{_held_out(verification)}{other}"


def _number(lds: float | None) -> str:
    return "failed" if lds is None else f"{lds:.4f}"


def _held_out(verification: "Verification") -> str:
    held_out = verification.held_out
    return f", {held_out.mean:.4f} on {held_out.n_masks} held-out masks" if held_out else ""


@command
def submit(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RECORD|FOLDER…", help="Records, or folders of them. By default attriboard-results."),
    ] = None,
    method: Annotated[Path | None, typer.Option("--method", help="The method card, YAML; see --template.")] = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", help="Score matrix of one of the records, so that others can grade it; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Output folder for the entry.", file_okay=False)] = Path(
        "attriboard-entry"
    ),
    verbose: Annotated[bool, typer.Option("--verbose", help="Print every file and every warning.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print a method card to fill in, and exit.")] = False,
    json: Json = False,
) -> None:
    """Bundle a checked entry: card, records and, if given, scores; exit code 2 if something is missing.

    Run it again after fixing what it names: parts that are there already stay.
    """
    from attriboard.base.errors import InputError
    from attriboard.checking.entries import draft_entry, write_entry
    from attriboard.checking.entry_check import check_entry
    from attriboard.records.method_card import TEMPLATE
    from attriboard.records.published import published_folders

    if template:
        no_document("--template", json)
        print(TEMPLATE, end="")
        return
    if method is None:
        raise InputError(
            "method card: none given; attriboard submit --template > method.yaml prints one to fill in, --method "
            "method.yaml names it"
        )
    draft = draft_entry(method, records or [RESULTS], scores or [])
    if draft.others:
        note(f"{draft.others} records of other methods left out")
    folder = write_entry(draft, out)
    report = check_entry(folder, published_folders())
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if json:
        emit({"entry": str(folder), "files": files, **report.document()})
    else:
        parts = [f"{folder}/{name}" for name in files] if verbose else [f"{folder}: {_counted(files)}"]
        print("\n".join(parts))
        for line in _warnings(report.warnings, verbose):
            print(f"warning: {line}")
        for problem in report.errors:
            print(f"to fix: {problem.where}: {problem.message}")
        print(
            f"ready: copy {folder} to leaderboard/entries/ in a checkout of the repository, commit, open a pull request"
            if report.ok
            else "not ready: fix what is named above and run the same command again"
        )
    if not report.ok:
        raise typer.Exit(2)
