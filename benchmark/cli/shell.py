"""What every command shares: errors without tracebacks, one JSON document, progress on standard error."""

import functools
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DataDir", "Display", "Json", "command", "drawn_figure", "emit", "note", "progress_bar", "show_table"]

F = TypeVar("F", bound=Callable[..., None])

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Offline mirror of the data sets.", envvar="ATTRIBOARD_DATA", show_envvar=True),
]
INTERRUPTED = 130  # what a shell reports for SIGINT


def command(function: F) -> F:
    """Turn deliberate errors into one line and an exit code, and Ctrl-C into a clean end."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        from attriboard.errors import AttriboardError

        if (data_dir := kwargs.get("data_dir")) is not None:
            os.environ["ATTRIBOARD_DATA"] = str(data_dir.resolve())
        try:
            function(*args, **kwargs)
        except AttriboardError as error:
            _fail(str(error), kwargs.get("json", False))
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            _fail(f"{error.filename or 'file'}: {error.strerror or error}", kwargs.get("json", False))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            note("interrupted; finished work is kept, the same command goes on from it")
            raise typer.Exit(INTERRUPTED) from None

    return run  # type: ignore[return-value]  # same signature, as functools.wraps keeps for typer


def _fail(message: str, json: bool) -> None:
    if json:
        emit({"error": message})
    print(f"error: {message}", file=sys.stderr)


def emit(document: Any) -> None:
    """Print one JSON document on standard output."""
    import json

    # ASCII is valid under every locale, and names of files may hold bytes that are no text.
    print(json.dumps(document, indent=2, allow_nan=False))


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    print(text, file=sys.stderr)


def drawn_figure(draw: "Callable[[], Figure]", stem: Path) -> Path | None:
    """Draw a figure and save it under a path without its ending; `None` where there is too little to draw."""
    from attriboard.drawing import save_figure
    from attriboard.errors import InputError

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

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for position, heading in enumerate(columns):
        table.add_column(heading, justify="right" if position in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # as Text: a name in brackets is no markup
    # A pipe has no width; wide enough that no cell is folded then.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


class Display(Protocol):
    """Shows how far long work is."""

    def __call__(self, done: int, total: int) -> None:
        """So much of it is done."""

    def say(self, text: str) -> None:
        """How those who do it are."""


@contextmanager
def progress_bar(description: str) -> Iterator[Display]:
    """A progress bar on standard error with rate and time left; plain lines where there is no terminal."""
    if not sys.stderr.isatty():
        yield _Lines(description)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[said]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=None, rate="", said="")
        yield _Bar(lambda **fields: bar.update(task, **fields))


class _Bar:
    """Progress for terminals."""

    def __init__(self, update: Callable[..., None]) -> None:
        self._update = update
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int) -> None:
        self._first = self._first or (done, time.monotonic())
        before, since = self._first
        passed = time.monotonic() - since
        rate = f"{(done - before) / passed:.2f}/s" if done > before and passed > 0 else ""
        self._update(completed=done, total=total, rate=rate)

    def say(self, text: str) -> None:
        self._update(said=text)


class _Lines:
    """Progress for logs: at most one line in ten seconds, and the last one."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._start: tuple[int, float] | None = None
        self._said = self._spoke = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._start = self._start or (done, now)
        if now - self._said < 10 and done < total:
            return
        self._said = now
        passed, finished = now - self._start[1], done - self._start[0]
        pace = f", {finished / passed:.2f}/s, {(total - done) * passed / finished:.0f} s left" if finished else ""
        note(f"{self._description}: {done}/{total}{pace}")

    def say(self, text: str) -> None:
        if time.monotonic() - self._spoke >= 10:
            self._spoke = time.monotonic()
            note(f"{self._description}: {text}")
