"""`attriboard submit`: from records and a method card to a folder that a pull request adds."""

from pathlib import Path
from typing import Annotated

import typer

from attriboard.cli.shell import Json, command, emit, note


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
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the entry.", file_okay=False)] = Path(
        "attriboard-entry"
    ),
    template: Annotated[bool, typer.Option("--template", help="Print a method card to fill in, and end.")] = False,
    json: Json = False,
) -> None:
    """Bundle a checked entry: card, records and, where given, scores; exit code 2 where something is missing.

    Run it again after mending what it names: parts that are there already stay.
    """
    from attriboard.base.errors import InputError
    from attriboard.checking.entries import draft_entry, write_entry
    from attriboard.checking.entry_check import check_entry
    from attriboard.records.method_card import TEMPLATE
    from attriboard.records.published import published_folders

    if template:
        print(TEMPLATE, end="")
        return
    if method is None:
        raise InputError(
            "method card: none given; attriboard submit --template > method.yaml prints one to fill in, --method "
            "method.yaml names it"
        )
    draft = draft_entry(method, records or [Path("attriboard-results")], scores or [])
    if draft.others:
        note(f"{draft.others} records of other methods left out")
    folder = write_entry(draft, out)
    report = check_entry(folder, published_folders())
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if json:
        emit({"entry": str(folder), "files": files, **report.document()})
    else:
        for name in files:
            print(f"{folder}/{name}")
        for problem in report.warnings:
            print(f"to know: {problem.where}: {problem.message}")
        for problem in report.errors:
            print(f"to mend: {problem.where}: {problem.message}")
        print(
            f"ready: copy {folder} to leaderboard/entries/ in a checkout of the repository, commit, open a pull request"
            if report.ok
            else "not ready: mend what is named above and run the same command again"
        )
    if not report.ok:
        raise typer.Exit(2)
