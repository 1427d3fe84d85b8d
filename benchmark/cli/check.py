"""`attriboard check FILE`: is this a valid record, score matrix, bundle, card or plugin?"""

from pathlib import Path
from typing import Annotated

import typer

from attriboard.cli.shell import Json, command, emit

KINDS = ("attributor", "record", "scores", "bundle", "card", "entry")


@command
def check(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[KIND] FILE",
            help="A record (.json), bundle or scores (.safetensors), card (.yaml), attributor (.py), or the folder of "
            f"an entry. The kind, one of {', '.join(KINDS)}, may be said first.",
        ),
    ],
    task: Annotated[str | None, typer.Option(help="For a score matrix: the task it is for.")] = None,
    json: Json = False,
) -> None:
    """Validate a file and say what is wrong with it; exit code 2 where something is.

    An attributor goes through the conformance suite, in a process of its own. Of an entry nothing is run; its scores
    are graded again.
    """
    from attriboard.base.errors import InputError
    from attriboard.checking.files import check_file

    *kind, file = files
    if len(kind) > 1 or any(str(word) not in KINDS for word in kind):
        raise InputError(f"check {' '.join(map(str, files))}: give one file, or one of {', '.join(KINDS)} and a file")
    report = check_file(file, task)
    if json:
        emit(report.document())
    else:
        for problem in report.warnings:
            print(f"{file}: to know: {problem.where}: {problem.message}")
        for problem in report.errors:
            print(f"{file}: {problem.where}: {problem.message}")
        print(f"{file}: {'a valid' if report.ok else 'not a valid'} {report.kind}")
    if not report.ok:
        raise typer.Exit(2)
