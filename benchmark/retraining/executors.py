"""Where retraining runs: in this process, or in local processes; `attriboard.retraining.cluster` adds clusters.

An executor maps a module-level function of one string over payloads and yields results as they come.
Functions and payloads are plain (a reference and JSON), results are bytes: nothing that a remote executor
could not send.
"""

import json
import os
import selectors
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from attriboard.base import errors
from attriboard.base.errors import AttriboardError, InputError
from attriboard.base.processes import python_command


class Executor(Protocol):
    """Runs work."""

    @property
    def n_workers(self) -> int:
        """How many payloads it works on at a time."""

    def map(self, function: Callable[[str], bytes], payloads: Sequence[str]) -> Generator[bytes, None, None]:
        """Yield `function(payload)` for every payload, in any order; closing the generator stops the work."""


class InProcess:
    """One after the other, here."""

    n_workers = 1

    def map(self, function: Callable[[str], bytes], payloads: Sequence[str]) -> Generator[bytes, None, None]:
        """See `Executor`."""
        for payload in payloads:
            yield function(payload)


class LocalProcesses:
    """Processes on this machine, one thread each; see `attriboard.retraining.worker`.

    One thread per process, not several: products of the size that retraining makes scale better over
    processes, and with one thread their sums have one order, which makes results independent of everything else.

    Args:
        n_workers: number of processes, ≥ 1; by default the cores this process may use.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_workers = n_workers or usable_cores()

    def map(self, function: Callable[[str], bytes], payloads: Sequence[str]) -> Generator[bytes, None, None]:
        """See `Executor`. Where no process can be started, payloads are worked on in this one.

        Raises:
            AttriboardError: a worker process died (killed, or out of memory), or what `function` raised in it.
        """
        with TemporaryDirectory(prefix="attriboard-results-") as folder, selectors.DefaultSelector() as selector:
            workers: list[_Worker] = []
            waiting = deque(range(len(payloads)))
            try:
                try:
                    command = python_command("attriboard.retraining.worker", _reference(function), folder)
                    for _ in range(min(self.n_workers, len(payloads))):
                        workers.append(_Worker(command, selector))
                except (InputError, OSError):
                    if not workers:
                        yield from InProcess().map(function, payloads)
                        return
                for worker in workers:
                    _order(worker, waiting, payloads, Path(folder))
                while any(worker.busy is not None for worker in workers):
                    for key, _ in selector.select():
                        ready: _Worker = key.data
                        for result in ready.answers(Path(folder)):
                            _order(ready, waiting, payloads, Path(folder))
                            yield result
            finally:
                # Also reached on Ctrl-C and when the consumer stops early: unfinished stacks are not waited for.
                for worker in workers:
                    worker.end()


def _order(worker: "_Worker", waiting: deque[int], payloads: Sequence[str], folder: Path) -> None:
    """Give a worker the next payload, if there is one."""
    if waiting:
        number = waiting.popleft()
        (folder / f"{number}.payload").write_text(payloads[number], encoding="utf-8")
        worker.give(number)


def _reference(function: Callable[[str], bytes]) -> str:
    return f"{function.__module__}:{function.__qualname__}"


class _Worker:
    """A worker process, and the number of the payload that it has."""

    def __init__(self, command: Sequence[str], selector: selectors.BaseSelector) -> None:
        self.busy: int | None = None
        self._rest = b""
        with _interrupts_held():
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        assert self._process.stdin is not None, "it is a pipe"
        assert self._process.stdout is not None, "it is a pipe"
        self._orders, self._output = self._process.stdin, self._process.stdout
        self._selector = selector
        selector.register(self._output, selectors.EVENT_READ, self)

    def give(self, number: int) -> None:
        self.busy = number
        with suppress(BrokenPipeError):  # it died; its output says so
            self._orders.write(f"{number}\n".encode())

    def answers(self, folder: Path) -> Iterator[bytes]:
        """Results that it reports now.

        Raises:
            AttriboardError: it died, or the work in it raised an error.
        """
        received = os.read(self._output.fileno(), 1 << 16)
        if not received:
            self._selector.unregister(self._output)
            raise AttriboardError(
                "a retraining process died, perhaps out of memory; finished retrains are kept: run the same "
                "command again, with fewer --workers if memory is short"
            )
        *lines, self._rest = (self._rest + received).split(b"\n")
        for line in lines:
            answer = json.loads(line)
            if "error" in answer:
                raise _error(**answer["error"])
            self.busy = None
            result = folder / str(answer["number"])
            content = result.read_bytes()
            result.unlink()
            yield content

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._orders.close()
        self._output.close()


class WorkerTraceback(Exception):  # noqa: N818 - it is shown as a cause, not raised by itself
    """The traceback of an error in a worker process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _error(kind: str, message: str, traceback: str) -> AttriboardError:
    """The error that a worker reports, of its own kind where it is one of ours; its traceback is the cause."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, AttriboardError):
        error = found(message)
    else:
        error = AttriboardError(f"retraining raised {kind}: {message}")
    error.__cause__ = WorkerTraceback(traceback)
    return error


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while processes start, and always in them: the parent answers it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
