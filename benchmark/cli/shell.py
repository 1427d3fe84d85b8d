"""What every command shares: errors without tracebacks, one JSON document, progress on standard error."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast, get_type_hints

import typer

from attriboard.base.terminal import note

if TYPE_CHECKING:
    from attriboard.leaderboard.plots.charts import Chart

F = TypeVar("F", bound=Callable[..., None])

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Offline mirror of the data sets.", envvar="ATTRIBOARD_DATA", show_envvar=True),
]
INTERRUPTED = 130  # what a shell reports for SIGINT


def command(function: F) -> F:
    """A command of the program: option groups as single arguments, errors as one line, Ctrl-C as a clean end.

    A parameter whose type is a dataclass of options stands for all of them: Typer sees one option for each field, the
    function gets the object.
    """
    return _wrapped(function, lambda given: False)


def resuming(when: Callable[[Mapping[str, Any]], bool] = lambda given: True) -> Callable[[F], F]:
    """A command that keeps finished work when it is interrupted, so that it goes on from there; see `command`.

    Args:
        when: whether it does, of its arguments.
    """
    return lambda function: _wrapped(function, when)


def _wrapped(function: F, resumes: Callable[[Mapping[str, Any]], bool]) -> F:
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    signature = _flattened(inspect.signature(function), hints, groups)

    @functools.wraps(function)
    def run(**given: Any) -> None:
        from attriboard.base.errors import AttriboardError

        json = given.get("json", False)
        if (data_dir := given.get("data_dir")) is not None:
            os.environ["ATTRIBOARD_DATA"] = str(data_dir.resolve())
        for name, group in groups.items():
            given[name] = group(**{option.name: given.pop(option.name) for option in fields(group)})
        try:
            _print_all(function, given)
        except AttriboardError as error:
            _fail(str(error), json)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            full = error.filename is None and _cannot_print("\n")  # it does not say what was full
            where = "standard output" if full else error.filename or "file"
            _fail(f"{where}: {error.strerror or error}", json and not full)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            if json:
                emit({"error": "interrupted"})
            note("interrupted" + ("; finished work is kept, run the same command to go on" if resumes(given) else ""))
            raise typer.Exit(INTERRUPTED) from None

    run.__doc__ = _unwrapped(inspect.getdoc(function) or "")
    run.__signature__ = signature  # type: ignore[attr-defined]  # what Typer reads
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return cast("F", run)


def _flattened(signature: inspect.Signature, hints: Mapping[str, Any], groups: Mapping[str, type]) -> inspect.Signature:
    """The signature with the fields of a group in the group's place."""
    parameters = []
    for name, parameter in signature.parameters.items():
        if name not in groups:
            parameters.append(parameter.replace(annotation=hints[name], kind=parameter.KEYWORD_ONLY))
            continue
        types = get_type_hints(groups[name], include_extras=True)
        parameters += [
            inspect.Parameter(f.name, parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
            for f in fields(groups[name])
        ]
    return inspect.Signature(parameters)


def _unwrapped(text: str) -> str:
    """Text with one line for each paragraph: Typer would keep a docstring's own line breaks after the first."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _print_all(function: Callable[..., None], given: Mapping[str, Any]) -> None:
    """Call a command's function; what it printed has arrived then, also where it ends with an exit code."""
    try:
        function(**given)
    except typer.Exit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _cannot_print(text: str = "") -> bool:
    """Whether standard output does not take a text, as on a full disk; what is left for it is dropped then."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def _fail(message: str, json: bool) -> None:
    print(f"error: {message}", file=sys.stderr)
    if json:
        with suppress(OSError):
            emit({"error": message})
        _cannot_print()


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    import json

    # ASCII is valid under every locale, and names of files may hold bytes that are no text.
    print(json.dumps(document, indent=2, allow_nan=False))


def no_document(option: str, json: bool) -> None:
    """Refuse `--json` beside an option that prints a file of another kind.

    Raises:
        InputError: both are given.
    """
    from attriboard.base.errors import InputError

    if json:
        raise InputError(f"{option}: prints a file, which is no JSON; leave --json out")


def setting(value: object) -> str:
    """A hyperparameter's value as the command line takes it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def drawn_figure(draw: "Callable[[], Chart]", stem: Path) -> Path | None:
    """Draw a figure and save it under a path without its ending; `None` where there is too little to draw."""
    from attriboard.base.errors import InputError
    from attriboard.leaderboard.plots.charts import save_figure

    try:
        return save_figure(draw(), stem)
    except InputError:
        return None


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = ()) -> None:
    """Print a table on standard output.

    Args:
        title: above it.
        columns: headings.
        rows: cells.
        numeric: positions of the right-aligned columns.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # All as Text: a name in brackets is no markup.
    table = Table(title=Text(title, style="bold"), title_justify="left", header_style="bold")
    for position, heading in enumerate(columns):
        table.add_column(Text(heading), justify="right" if position in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    # A pipe has no width; wide enough that no cell is folded then.
    Console(width=None if sys.stdout.isatty() else 200).print(table)
