"""How long work says how far it is: the engine is handed a display, and prints nothing itself."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

Unit = Literal["", "bytes"]


class Progress(Protocol):
    """Shows how far one piece of work is."""

    def __call__(self, done: int, total: int) -> None:
        """So much of it is done."""

    def say(self, text: str) -> None:
        """What those who do it report."""


class Display(Protocol):
    """Where notes and progress go."""

    def note(self, text: str) -> None:
        """Say something beside the result."""

    def progress(self, description: str, unit: Unit = "") -> AbstractContextManager[Progress]:
        """A progress bar for as long as the context lasts.

        Args:
            description: of the work.
            unit: of what is counted, where it is not pieces of work.
        """


class Silent:
    """A display that shows nothing."""

    def note(self, text: str) -> None:
        """See `Display`."""

    @contextmanager
    def progress(self, description: str, unit: Unit = "") -> Iterator[Progress]:
        """See `Display`."""
        yield _Nothing()


class _Nothing:
    def __call__(self, done: int, total: int) -> None:
        """See `Progress`."""

    def say(self, text: str) -> None:
        """See `Progress`."""


NOTHING: Progress = _Nothing()
"""Progress that nobody sees."""
