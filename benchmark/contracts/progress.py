"""How long loops say how far they are, from wherever they run: a method's own code or a shared routine.

Loops nest: "3 of 5 models" with "64 of 128 batches" inside is 448 of 640 steps. Where nobody listens, it costs a
comparison.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[int, int, str], None]
"""Is given the steps done, all steps, and what they are."""

EVERY_SECONDS = 0.5
"""A listener hears at most this often."""


class _Loops:
    """The loops that run now, outermost first, and who hears of them."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._open: list[tuple[int, int, str]] = []
        self._heard = time.monotonic()

    def enter(self) -> int:
        """Depth of a new loop."""
        self._open.append((0, 1, ""))
        return len(self._open) - 1

    def leave(self, depth: int) -> None:
        """A loop is over, and with it whatever was left open inside."""
        del self._open[depth:]

    def at(self, depth: int, done: int, total: int, text: str) -> None:
        """So many steps of a loop are done."""
        if depth >= len(self._open):  # it ran between the steps of a loop that is over
            return
        self._open[depth] = done, total, text
        now = time.monotonic()
        if now - self._heard < EVERY_SECONDS:
            return
        self._heard = now
        steps, everything, words = 0, 1, []
        for finished, count, what in self._open[: depth + 1]:
            steps, everything = steps * count + min(finished, count), everything * count
            words += [what] if what and what not in words else []
        self._listener(steps, everything, ", ".join(words))


_LOOPS: ContextVar[_Loops | None] = ContextVar("loops", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell a listener of the loops that run while the context lasts."""
    token = _LOOPS.set(_Loops(listener))
    try:
        yield
    finally:
        _LOOPS.reset(token)


def track(items: Iterable[T], text: str = "", total: int | None = None) -> Iterator[T]:
    """The items, one step each.

    Args:
        items: what the loop runs over.
        text: what the steps are, in a few words: "gradients".
        total: how many there are, where `items` has no length.
    """
    loops, count = _LOOPS.get(), len(items) if isinstance(items, Sized) else total
    if loops is None or not count:
        yield from items
        return
    depth = loops.enter()
    try:
        for done, item in enumerate(items):
            loops.at(depth, done, count, text)
            yield item
    finally:
        loops.leave(depth)


def progress(done: int, total: int, text: str = "") -> None:
    """Say how far a loop is that `track` does not fit; see `Context.progress`."""
    loops = _LOOPS.get()
    if loops is not None and total > 0:
        depth = loops.enter()
        loops.at(depth, done, total, text)
        loops.leave(depth)
