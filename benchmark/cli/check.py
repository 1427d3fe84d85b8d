"""`attriboard check FILE`: is this a valid record, score matrix, bundle, card or plugin?"""

from pathlib import Path
from typing import Annotated

import typer

from attriboard.cli.shell import Json, command, emit

__all__ = ["check"]


@command
def check(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A record (.json), bundle or scores (.safetensors), card (.yaml) or plugin (.py).",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="For a score matrix: the task it is for.")] = None,
    json: Json = False,
) -> None:
    """Validate a file and say what is wrong with it; exit code 2 where something is."""
    from attriboard.checking import check_file

    report = check_file(file, task)
    if json:
        emit(report.document())
    else:
        for problem in report.errors:
            print(f"{file}: {problem.where}: {problem.message}")
        print(f"{file}: {'a valid' if report.ok else 'not a valid'} {report.kind}")
    if not report.ok:
        raise typer.Exit(2)
