"""Retraining on a cluster: the workers of a dask.distributed scheduler.

Workers get a reference to the task's class, its card and the requests, as JSON, and send back a shard's bytes. No path
travels, and no file is written by them: a worker loads the data from its own ATTRIBOARD_DATA, cache or hub, checked
against the digests in the card, and the store stays on the submitting side. dask pickles what it moves between its own
processes, so anyone who can reach a scheduler can run code on it and on everything connected to it: connect only to one
that you trust, in a network that you trust, or over tls://.

Queueing, results and lost workers are dask's: its futures, `as_completed`, and its scheduler, which has the stacks of a
worker that died trained by another. A worker that hangs is ours: once others are idle and nothing comes any more, they
get copies of what it has, and whichever ends first counts. Copies are harmless, because a retrain's bits depend on its
request alone.
"""

import importlib.metadata
import logging
import re
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import AttriboardError, DataError, InputError
from attriboard.retraining.choosing import current_reasons

if TYPE_CHECKING:
    from distributed import Client, Future

ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d{1,5}")
CONNECT_SECONDS = 10
BEAT_SECONDS = 5.0
"""How often the cluster is looked at, and the user told."""

PACKAGES = ("attriboard", "torch")
"""What must have the same version on both sides: a retrain's bits depend on it."""

TOPIC = "attriboard-notes"
"""Under which workers report what their user must know."""

KEPT = "finished retrains are kept: the same command goes on from them"


class DaskCluster:
    """The workers of a dask scheduler, one retrain stack per worker at a time.

    Args:
        address: of the scheduler, `tcp://host:port` or `tls://host:port`.
        heartbeat: called every few seconds with one line on the state of the cluster.
        patience: seconds without a result after which idle workers get copies of what others have.

    Raises:
        InputError: the address is of another form, or dask.distributed is not installed.
    """

    def __init__(
        self, address: str, heartbeat: Callable[[str], None] = lambda text: None, *, patience: float = 60.0
    ) -> None:
        if not ADDRESS.fullmatch(address):
            raise InputError(f"executor = {address!r}: must be tcp://host:port or tls://host:port of a dask scheduler")
        try:
            import distributed  # noqa: F401
        except ImportError as error:
            raise InputError(f"executor = {address}: needs dask.distributed; pip install 'attriboard[dask]'") from error
        self.address = address
        self._heartbeat, self._patience = heartbeat, patience

    def reach(self) -> None:
        """Find out whether the scheduler answers; workers may come later.

        Raises:
            InputError: it does not.
        """
        with self._client():
            return

    @property
    def n_workers(self) -> int:
        """Workers now; waits for the first one.

        Raises:
            InputError: no scheduler answers.
        """
        with self._client() as client:
            while not (workers := len(client.nthreads())):
                self._heartbeat(f"no workers yet; start some with: dask worker {self.address} --nthreads 1")
                time.sleep(1)
        return workers

    def map(self, function: Callable[[str], bytes], payloads: Sequence[str]) -> Generator[bytes, None, None]:
        """See `Executor`. Closing the generator cancels what has not begun.

        Raises:
            AttriboardError: the scheduler was lost, a worker failed or lacks the data, or a stack ends every worker
                that tries it.
        """
        try:
            with self._client() as client:
                client.subscribe_topic(TOPIC, lambda event: self._heartbeat(event[1]))
                serve = partial(_serve, function, versions=_versions())
                yield from _Run(client, serve, self._heartbeat, self._patience).results(payloads)
        except OSError as error:  # dask's CommClosedError is one
            raise AttriboardError(f"the connection to the dask scheduler {self.address} is lost; {KEPT}") from error

    @contextmanager
    def _client(self) -> "Iterator[Client]":
        from distributed import Client

        # Our own errors report lost connections; dask's loggers print tracebacks.
        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        try:
            client = Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"executor = {self.address}: no dask scheduler answers within {CONNECT_SECONDS} s; start one with: "
                "dask scheduler"
            ) from error
        try:
            yield client
        finally:
            client.close(timeout=2)


@dataclass(eq=False)
class _Stack:
    """A payload and its futures: one, and copies where it takes too long."""

    payload: str
    futures: "list[Future[bytes]]" = field(default_factory=list)


@dataclass
class _Run:
    """One `map`."""

    client: "Client"
    serve: Callable[[str], bytes]
    heartbeat: Callable[[str], None]
    patience: float
    under_way: "dict[Future[bytes], _Stack]" = field(default_factory=dict)  # copies too
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)  # result, or the beginning

    def results(self, payloads: Sequence[str]) -> Iterator[bytes]:
        """Shards as they come."""
        from distributed import as_completed

        self._submit([_Stack(payload) for payload in payloads])
        while self.under_way:
            self._look()
            ended = as_completed(
                self.under_way, self.client.loop, with_results=True, raise_errors=False, timeout=BEAT_SECONDS
            )
            with suppress(TimeoutError):  # time to look again
                for future, result in ended:
                    if future in self.under_way:  # else a copy was faster
                        yield self._shard(future, result)
                    if not self.under_way:
                        return

    def _submit(self, stacks: Sequence[_Stack], workers: Sequence[str] | None = None) -> None:
        payloads = [stack.payload for stack in stacks]
        futures = self.client.map(self.serve, payloads, key="retrain", pure=False, workers=workers)
        for stack, future in zip(stacks, futures, strict=True):
            stack.futures.append(future)
            self.under_way[future] = stack

    def _shard(self, future: "Future[bytes]", result: Any) -> bytes:
        # The result decides: the future of one that is here is pending again where its worker has died since.
        if not isinstance(result, bytes):
            raise _failure(result[1] if isinstance(result, tuple) else None)
        for copy in self.under_way[future].futures:
            del self.under_way[copy]
        self.done += 1
        self.last = time.monotonic()
        return result

    def _look(self) -> None:
        """Report the state of the cluster, and give idle workers copies of what others do not get done."""
        if self.client.status != "running":
            raise ConnectionError
        busy: dict[str, Sequence[str]] = self.client.processing()  # every worker → keys of its tasks
        stacks, now = set(self.under_way.values()), time.monotonic()
        self.heartbeat(
            f"{len(busy)} worker{'' if len(busy) == 1 else 's'}, {len(stacks)} stacks to go, "
            f"last result {now - self.last:.0f} s ago"
        )
        usual = (now - self.began) * len(busy) / self.done if self.done else 0.0  # seconds for a stack
        idle = [worker for worker, keys in busy.items() if not keys]
        for stack in stacks if idle else ():
            # Ever more patient: a stack may be long.
            if now - self.last < max(self.patience, 3 * usual) * 2 ** (len(stack.futures) - 1):
                continue
            own = {future.key for future in stack.futures}
            holders = {worker for worker, keys in busy.items() if own.intersection(keys)}
            holders.update(*self.client.who_has(stack.futures).values())  # done, and not handed over
            if others := [worker for worker in idle if worker not in holders]:
                idle.remove(others[0])
                self.heartbeat(f"nothing from {', '.join(holders)} for {now - self.last:.0f} s: tried elsewhere")
                self._submit([stack], others[:1])


def _failure(error: BaseException | None) -> Exception:
    """What to raise for a future's error; without one it was canceled, as all are once the scheduler is gone."""
    from distributed import KilledWorker

    if error is None:
        return ConnectionError()
    if isinstance(error, AttriboardError):  # raised in `_serve`, with the worker's name
        return error
    if isinstance(error, KilledWorker):
        return AttriboardError(
            f"a stack of retrains ended every worker that tried it, the last one {error.last_worker.address}, perhaps "
            f"for want of memory: see that worker's log; {KEPT}"
        )
    return AttriboardError(
        f"a worker could not begin its task: {type(error).__name__}: {error}; it needs attriboard and the package of "
        "the task's class"
    )


def _versions() -> dict[str, str]:
    """Public versions: builds for CPUs and for GPUs may meet."""
    return {name: importlib.metadata.version(name).partition("+")[0] for name in PACKAGES}


def _serve(function: Callable[[str], bytes], payload: str, versions: dict[str, str]) -> bytes:
    """Run one payload; on a worker. Every error names the worker."""
    from distributed import get_worker

    worker: Any = get_worker()
    who = f"worker {worker.address}"
    if worker.state.nthreads != 1:
        # The random state and the number of threads of PyTorch belong to a process: two retrains would share them.
        raise InputError(
            f"{who} runs {worker.state.nthreads} tasks in one process, must run 1: start it with --nthreads 1, and "
            "--nworkers for the number of processes"
        )
    if (own := _versions()) != versions:
        raise InputError(f"{who} has {_listed(own)}, the submitting side {_listed(versions)}: install the same there")
    try:
        content = function(payload)
        _report(worker, who)
        return content
    except DataError as error:
        raise DataError(
            f"{who} does not have the data, and none is sent to it: set ATTRIBOARD_DATA in the worker's environment, "
            f"or give it another source; there, {error}"
        ) from None
    except AttriboardError as error:
        raise type(error)(f"{who}: {error}") from None
    except Exception as error:
        raise AttriboardError(f"{who}: {type(error).__name__}: {error}") from None


def _report(worker: Any, who: str) -> None:
    """Say, once for each worker and reason, why it trains in a slower way than was planned."""
    for reason in current_reasons():
        if (who, reason) not in _REPORTED:
            _REPORTED.add((who, reason))
            worker.log_event(TOPIC, f"{who}: {reason}")


_REPORTED: set[tuple[str, str]] = set()


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
