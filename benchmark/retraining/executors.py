"""Where retraining runs: in this process, or in local processes; `attriboard.retraining.cluster` adds clusters.

An executor maps a module-level function of one string over payloads and yields results as they come.
Functions and payloads are plain (a reference and JSON), results are bytes: nothing that a remote executor
could not send.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from attriboard.base.errors import AttriboardError


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
    """Processes on this machine, one thread each.

    One thread per process, not several: products of the size that retraining makes scale better over
    processes, and with one thread their sums have one order, which makes results independent of everything else.

    Args:
        n_workers: number of processes, ≥ 1; by default the cores this process may use.
    """

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_workers = n_workers or usable_cores()

    def map(self, function: Callable[[str], bytes], payloads: Sequence[str]) -> Generator[bytes, None, None]:
        """See `Executor`.

        Raises:
            AttriboardError: a worker process died (killed, or out of memory).
        """
        pool = ProcessPoolExecutor(
            min(self.n_workers, len(payloads)),
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_worker,
        )
        with TemporaryDirectory(prefix="attriboard-results-") as folder:
            try:
                with _interrupts_held():
                    futures = [
                        pool.submit(_into_file, function, payload, Path(folder) / str(number))
                        for number, payload in enumerate(payloads)
                    ]
                for future in as_completed(futures):
                    result = future.result()
                    content = result.read_bytes()
                    result.unlink()
                    yield content
            except BrokenProcessPool as error:
                raise AttriboardError(
                    "a retraining process died, perhaps out of memory; finished retrains are kept: run the same "
                    "command again, with fewer --workers if memory is short"
                ) from error
            finally:
                # Also reached on Ctrl-C and when the consumer stops early: unfinished stacks are not waited for.
                for process in list((pool._processes or {}).values()):
                    process.terminate()
                pool.shutdown(wait=True, cancel_futures=True)


def _into_file(function: Callable[[str], bytes], payload: str, path: Path) -> Path:
    """Run one payload, and write its result to a file.

    The pool's pipe carries paths alone: one write each, whole or not at all. The pool waits without end for the rest of
    a message whose sender was ended in the middle, and a result of megabytes has a long middle.
    """
    path.write_bytes(function(payload))
    return path


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


def _prepare_worker() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    # A parent that is killed cannot tell its workers; without this they would wait for work indefinitely.
    threading.Thread(target=leave_with_parent, daemon=True).start()
