"""Retraining on a cluster: the workers of a dask.distributed scheduler.

Workers get a reference to the task's class, its card and the requests, as JSON, and send back a shard's bytes. No path
travels, and no file is written by them: a worker loads the data from its own ATTRIBOARD_DATA, cache or hub, checked
against the digests in the card, and the store stays on the submitting side. dask pickles what it moves between its own
processes, so whoever can reach a scheduler can run code on it and on everything connected to it: connect only to one
that you trust, in a network that you trust, or over tls://.

A worker that dies is dask's to replace: its stacks are trained elsewhere. A worker that hangs is ours: once the others
have nothing left to do, a copy of what it holds is given to one of them, and whichever ends first counts. Copies are
harmless, because a retrain's bits depend on its request alone.
"""

import importlib.metadata
import logging
import re
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import AttriboardError, DataError, InputError

if TYPE_CHECKING:
    from distributed import Client, Future

ADDRESS = re.compile(r"(tcp|tls)://[^\s/]+:\d{1,5}")
CONNECT_SECONDS = 10
BEAT_SECONDS = 5.0
"""How often the cluster is looked at, and the user told."""

QUEUED = 2
"""Stacks submitted per worker: one that it trains, and the next, so that it need not wait for us."""

BATCH_BYTES = 8 << 20
"""Payloads are submitted, and shards fetched, together up to this size: a message costs far more than what is in it."""

PACKAGES = ("attriboard", "torch")
"""What must have the same version on both sides: a retrain's bits depend on it."""

KEPT = "finished retrains are kept: the same command goes on from them"


class DaskCluster:
    """The workers of a dask scheduler, one retrain stack per worker at a time.

    Args:
        address: of the scheduler, `tcp://host:port` or `tls://host:port`.
        heartbeat: told in one line how the cluster is, every few seconds.
        patience: seconds after which a stack that others could train is given to a second worker.

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
        self._client: Client | None = None

    def reach(self) -> None:
        """Find out whether the scheduler answers; workers may come later.

        Raises:
            InputError: it does not.
        """
        self._connect()
        self._close()

    @property
    def n_workers(self) -> int:
        """Workers now; waits for the first one.

        Raises:
            InputError: no scheduler answers.
        """
        client = self._connect()
        while not (workers := len(client.nthreads())):
            self._heartbeat(f"no workers yet; start some with: dask worker {self.address} --nthreads 1")
            time.sleep(1)
        return workers

    def map(self, function: Callable[[str], bytes], payloads: Sequence[str]) -> Generator[bytes, None, None]:
        """See `Executor`. What workers are in the middle of when the generator is closed, they finish for nobody.

        Raises:
            AttriboardError: the scheduler was lost, a worker failed or lacks the data, or a stack ends every worker
                that tries it.
        """
        client = self._connect()
        try:
            yield from _Run(client, function, deque(enumerate(payloads)), self._heartbeat, self._patience).results()
        except OSError as error:  # dask's CommClosedError is one
            raise AttriboardError(f"the connection to the dask scheduler {self.address} is lost; {KEPT}") from error
        finally:
            self._close()

    def _connect(self) -> "Client":
        if self._client is None:
            from distributed import Client

            # Lost connections are told by our own errors; dask's loggers print tracebacks.
            for name in ("distributed", "distributed.client"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            try:
                self._client = Client(self.address, timeout=CONNECT_SECONDS, set_as_default=False)
            except (OSError, ValueError) as error:
                raise InputError(
                    f"executor = {self.address}: no dask scheduler answers within {CONNECT_SECONDS} s; "
                    "start one with: dask scheduler"
                ) from error
        return self._client

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close(timeout=2)


@dataclass
class _Stack:
    """A payload under way.

    Attributes:
        payload: what is trained.
        futures: one, and a second one where the first takes too long.
        since: when it was submitted, monotonic seconds.
    """

    payload: str
    futures: "list[Future[bytes]]"
    since: float = field(default_factory=time.monotonic)


@dataclass
class _Run:
    """One `map`: a bounded number of stacks under way, in whatever order they end."""

    client: "Client"
    function: Callable[[str], bytes]
    waiting: deque[tuple[int, str]]
    heartbeat: Callable[[str], None]
    patience: float
    running: dict[int, _Stack] = field(default_factory=dict)
    ended: "SimpleQueue[tuple[int, Future[bytes]]]" = field(default_factory=SimpleQueue)
    seconds: list[float] = field(default_factory=list)  # from submission to result
    workers: Mapping[str, int] = field(default_factory=dict)  # address → threads
    looked: float = float("-inf")
    last_result: float = field(default_factory=time.monotonic)
    largest: int = BATCH_BYTES  # bytes of a shard; until there is one, they are fetched one by one

    def results(self) -> Iterator[bytes]:
        """Shards as they come."""
        while self.waiting or self.running:
            self._look()
            while self.waiting and (room := QUEUED * max(1, len(self.workers)) - len(self.running)) > 0:
                count = min(room, len(self.waiting), max(1, BATCH_BYTES // len(self.waiting[0][1])))
                stacks = dict(self.waiting.popleft() for _ in range(count))
                for (number, payload), future in zip(stacks.items(), self._submit(stacks), strict=True):
                    self.running[number] = _Stack(payload, [future])
            if ended := self._ended():
                yield from self._shards(ended)
            else:
                self._repeat_stragglers()

    def _submit(self, stacks: Mapping[int, str], workers: list[str] | None = None) -> "list[Future[bytes]]":
        """Number → payload of some stacks, in one message."""
        serve = partial(_serve, self.function, versions=_versions())
        payloads = list(stacks.values())
        futures: list[Future[bytes]] = self.client.map(serve, payloads, key="retrain", pure=False, workers=workers)
        for number, future in zip(stacks, futures, strict=True):
            self._listen(number, future)
        return futures

    def _listen(self, number: int, future: "Future[bytes]") -> None:
        future.add_done_callback(lambda done: self.ended.put((number, done)))

    def _ended(self) -> "dict[int, Future[bytes]]":
        """Stacks that have ended, as many as may be fetched at once; waits for the first one, but not for long."""
        found: dict[int, Future[bytes]] = {}
        with suppress(Empty):
            while len(found) * self.largest < BATCH_BYTES:
                number, future = self.ended.get(timeout=0 if found else BEAT_SECONDS)
                found[number] = future
        return {number: future for number, future in found.items() if number in self.running}  # else a copy was faster

    def _shards(self, ended: "Mapping[int, Future[bytes]]") -> Iterator[bytes]:
        """What ended stacks gave; one that lies on a worker which does not give it is trained again."""
        for future in ended.values():
            _raise_failure(future)
        try:
            contents = self.client.sync(self._fetch, dict(ended), callback_timeout=self._grace())
        except TimeoutError:
            if len(ended) == 1:
                self._train_again(*ended)
            else:  # perhaps one worker's alone
                for number, future in ended.items():
                    yield from self._shards({number: future})
            return
        self.largest = max(map(len, contents.values()))
        for number, content in contents.items():
            self._finish(number, ended[number])
            yield content

    async def _fetch(self, futures: "dict[int, Future[bytes]]") -> dict[int, bytes]:
        contents: dict[int, bytes | None] = await self.client.gather(futures, errors="skip", asynchronous=True)
        given = {number: content for number, content in contents.items() if content is not None}
        for number in futures.keys() - given.keys():  # lost with its worker, and failed when it was done again
            _raise_failure(futures[number])
        return given

    def _finish(self, number: int, future: "Future[bytes]") -> None:
        stack = self.running.pop(number)
        for copy in stack.futures:
            if copy is not future:
                copy.cancel()
        self.last_result = time.monotonic()
        self.seconds.append(self.last_result - stack.since)

    def _look(self) -> None:
        """Every few seconds: who is there, and a word to the user."""
        now = time.monotonic()
        if now - self.looked < BEAT_SECONDS:
            return
        if self.client.status != "running":
            raise ConnectionError
        self.looked, self.workers = now, self.client.nthreads()
        count = len(self.workers)
        self.heartbeat(
            f"{count} worker{'' if count == 1 else 's'}, {len(self.running)} stacks under way, "
            f"{len(self.waiting)} waiting, last result {now - self.last_result:.0f} s ago"
        )

    def _grace(self) -> float:
        """Seconds after which a worker is taken to hang."""
        return max(self.patience, 3 * statistics.median(self.seconds or [0.0]))

    def _train_again(self, number: int) -> None:
        """Have a finished stack done once more, by workers other than those that keep it to themselves."""
        stack = self.running[number]
        if under_way := [future for future in stack.futures if not future.done()]:  # a copy, or lost with its worker
            for future in under_way:
                self._listen(number, future)
            return
        holders = {worker for workers in self.client.who_has(stack.futures).values() for worker in workers}
        others = [worker for worker in self.workers if worker not in holders]
        self.heartbeat(f"{', '.join(sorted(holders)) or 'a worker'} does not give its result: tried elsewhere")
        stack.futures += self._submit({number: stack.payload}, others or None)

    def _repeat_stragglers(self) -> None:
        """Give an idle worker a copy of what another one has had for much longer than the others took."""
        if self.waiting:
            return
        patience = self._grace()
        busy = self.client.processing()
        holders = {key: worker for worker, keys in busy.items() for key in keys}
        idle = [worker for worker in self.workers if not busy.get(worker)]
        for number, stack in self.running.items():
            holder = holders.get(stack.futures[0].key)
            if idle and holder and len(stack.futures) == 1 and time.monotonic() - stack.since > patience:
                self.heartbeat(f"{holder} has had a stack for {time.monotonic() - stack.since:.0f} s: tried elsewhere")
                stack.futures += self._submit({number: stack.payload}, [idle.pop()])


def _raise_failure(future: "Future[bytes]") -> None:
    """Raise what keeps an ended future from having a result, if anything does."""
    if future.status == "cancelled":  # dask's word for all futures once the scheduler is gone
        raise ConnectionError
    if future.status == "error":
        raise _failure(future.exception())


def _failure(error: BaseException | None) -> AttriboardError:
    from distributed import KilledWorker

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
    """Public versions: builds for processors and for GPUs may meet."""
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
        return function(payload)
    except DataError as error:
        raise DataError(
            f"{who} does not have the data, and none is sent to it: set ATTRIBOARD_DATA in the worker's environment, "
            f"or give it another source; there, {error}"
        ) from None
    except AttriboardError as error:
        raise type(error)(f"{who}: {error}") from None
    except Exception as error:
        raise AttriboardError(f"{who}: {type(error).__name__}: {error}") from None


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
