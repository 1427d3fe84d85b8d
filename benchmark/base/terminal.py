"""The display of people at a terminal or in a notebook: notes and progress on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from attriboard.base.display import Progress, Unit


def note(text: str) -> None:
    """Say something beside the result, on standard error."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar(description: str, unit: Unit = "") -> Iterator[Progress]:
    """How far work is, on standard error: a bar on a terminal, else a line now and then, and one at its end."""
    if not sys.stderr.isatty():
        lines = _Lines(description, unit)
        yield lines
        lines.end()
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}", markup=False),  # a name in brackets is no markup
        progress.BarColumn(),
        progress.TextColumn("{task.fields[state]}", markup=False),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=None, state="")
        yield _Bar(lambda **fields: bar.update(task, **fields), unit)


class Terminal:
    """The display of the command line: standard error."""

    def note(self, text: str) -> None:
        """See `note`."""
        note(text)

    def progress(self, description: str, unit: Unit = "") -> AbstractContextManager[Progress]:
        """See `progress_bar`."""
        return progress_bar(description, unit)


def duration(seconds: float) -> str:
    """A time in the unit that suits it: "40 s", "3 min", "2 h 10 min", "3 days"."""
    if seconds < 59.5:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{round(hours / 24)} days"


def counted(count: int, noun: str) -> str:
    """How many there are of something: "1 record", "1,297 records"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


SETTLED = 3.0
"""Seconds of work before its pace says anything."""


class State:
    """How far work is, in words: "12 of 26, about 3 min left".

    Args:
        unit: see `Display.progress`.
    """

    def __init__(self, unit: Unit = "") -> None:
        self._unit = unit
        self._start = (0, 0.0)  # steps done, when
        self._last = (0, 0)  # steps done, all steps
        self._warming = False

    def __call__(self, done: int, total: int, now: float) -> str:
        """The state at a time in seconds; work that starts again, or another piece of it, has a pace of its own.

        The pace is that of the steps after the first, which also loads libraries, or fits what the others only score.
        """
        again = total != self._last[1] or done < self._last[0]
        if again or (self._warming and done > self._last[0]):
            self._start, self._warming = (done, now), again and self._unit != "bytes"
        self._last = done, total
        before, since = self._start
        counts = f"{done:,} of {total:,}"
        if self._unit == "bytes":
            counts = f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
        if done == before or done >= total or now - since < SETTLED:
            return counts
        return f"{counts}, about {duration((total - done) * (now - since) / (done - before))} left"


class _Bar:
    """Progress for terminals."""

    def __init__(self, update: Callable[..., None], unit: Unit) -> None:
        self._update, self._state = update, State(unit)
        self._said = self._counted = ""

    def __call__(self, done: int, total: int) -> None:
        self._counted = self._state(done, total, time.monotonic())
        self._update(completed=done, total=total, state=self._words())

    def say(self, text: str) -> None:
        self._said = text
        self._update(state=self._words())

    def _words(self) -> str:
        return "; ".join(filter(None, (self._counted, self._said)))


class _Lines:
    """Progress for logs: at most one line in ten seconds, and one at the end."""

    def __init__(self, description: str, unit: Unit) -> None:
        self._description, self._state = description, State(unit)
        self._counted = self._said = ""
        self._written = float("-inf")
        self._ended = True

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._counted = self._state(done, total, now)
        self._write(now, done >= total)

    def say(self, text: str) -> None:
        self._said = text
        self._write(time.monotonic(), False)

    def end(self) -> None:
        """Say that the work is done, where the last line does not."""
        if not self._ended:
            note(f"{self._description}: done")

    def _write(self, now: float, last: bool) -> None:
        if last or now - self._written >= 10:
            self._written, self._ended = now, last
            note(f"{self._description}: {'; '.join(filter(None, (self._counted, self._said)))}")
