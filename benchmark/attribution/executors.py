"""Where attributors run: an executor starts the worker of a job's folder, hands it plans, and yields its events.

`OwnProcess` is the way of everything that is graded, `attriboard.attribution.sandbox.Sandbox` that of code that nobody
trusts. `ThisProcess` is for authors: a debugger stops in their code, and their exceptions arrive unchanged.
"""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import psutil
from pydantic import TypeAdapter, ValidationError

from attriboard.attribution.cgroups import ENDING_SECONDS, ControlGroup
from attriboard.attribution.forkserver import ForkedWorker, fork_worker
from attriboard.attribution.job import Done, Event, Folder, Job, Plan, Progressed
from attriboard.attribution.limits import NO_LIMITS, POLL_SECONDS, Limits, Watch
from attriboard.base.errors import InputError
from attriboard.base.paths import datasets_folder

Listen = Callable[[Progressed], None]
_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
_WITHHELD = ("PWD", "OLDPWD", "ATTRIBOARD_MIRROR", "ATTRIBOARD_CACHE")  # bundles may lie where they point
_IDLE_SECONDS = 0.5  # how often a silent process without limits is looked at
_PRINTED_BYTES = 4096  # of what was printed, that is looked at
_SHELL_SIGNAL = 128  # and the number of a signal: the exit code of what died of it
_MAX_EVENT = 16 << 20  # bytes of one event


class Worker(ABC):
    """A started worker.

    Attributes:
        trusted: whether what it leaves in its folder is what our own code wrote.
    """

    trusted = True

    @abstractmethod
    def events(self) -> Iterator[Event]:
        """What it reports until it waits for a plan (the last event is `Described` or `Done`), or until it is gone."""

    @abstractmethod
    def send(self, plan: Plan) -> None:
        """Let it work on a plan; `events` has what comes of it."""

    @abstractmethod
    def death(self) -> str:
        """Why it is gone before its work was done: `category: text`."""

    def disbelieve(self) -> None:
        """Take it for gone: it reports what no worker of ours would."""
        raise AssertionError("our own worker does not")

    def printed(self) -> list[str]:
        """The last lines that the attributor printed, where they are kept."""
        return []

    @abstractmethod
    def close(self) -> None:
        """End it with everything that it started."""


class Executor(ABC):
    """Where attributors run.

    Attributes:
        limits: of one worker.
    """

    limits: Limits = NO_LIMITS

    @abstractmethod
    def start(self, folder: Folder, listen: Listen) -> Worker:
        """Start the worker of a folder that has a job in it.

        Args:
            folder: the worker's own.
            listen: called with the progress of each fit and scoring.
        """


@dataclass(frozen=True)
class Launch:
    """What is started, and under which limits.

    Attributes:
        command: the program with its arguments.
        environment: all of it.
        folder: in which it starts.
        log: the file that gets what it prints.
        limits: what is enforced.
        written: files and folders on the disk that it can write to.
        descriptors: that it inherits; closed here once it has started.
        wrapped: whether another program starts the worker, tells how it ended in the way of shells, and keeps it from
            everything that is ours, so that nothing that it leaves is believed unseen.
        group: that it enters; closed with it.
        forked: whether a fork of a process that has the worker's code does as well as the command.
    """

    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    limits: Limits
    written: tuple[Path, ...] = ()
    descriptors: tuple[int, ...] = ()
    wrapped: bool = False
    group: ControlGroup | None = None
    forked: bool = False


@dataclass(frozen=True)
class OwnProcess(Executor):
    """A process of its own, which sees a folder of its own and the job, never the ground truth.

    That keeps results honest against mistakes; it is no security boundary against a hostile author.

    Attributes:
        limits: of a process.
        log: file that all prints are added to; by default the last lines are kept as long as they are needed.
    """

    limits: Limits = NO_LIMITS
    log: Path | None = None

    def launch(self, folder: Folder, events: int, plans: int) -> Launch:
        """How the worker of a folder is started, given the file descriptors to report to and to read plans from."""
        command, log = worker_command(folder, events, plans), self.log or folder.log
        return Launch(command, self.environment(), folder.path, log, self.limits, forked=True)

    def environment(self) -> dict[str, str]:
        """Ours, without where ground truth may be and with relative paths made absolute: it works elsewhere."""
        environment = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
        environment["ATTRIBOARD_DATASETS"] = str(datasets_folder())
        for name, separator in (("PYTHONPATH", os.pathsep), ("ATTRIBOARD_DATA", "\0"), ("ATTRIBOARD_DATASETS", "\0")):
            if value := environment.get(name):
                environment[name] = separator.join(str(Path(part).absolute()) for part in value.split(separator))
        return environment

    def start(self, folder: Folder, listen: Listen) -> Worker:
        """See `Executor`.

        Raises:
            InputError: the log cannot be written.
        """
        return _Process(self, folder, listen)


@dataclass(frozen=True)
class ThisProcess(Executor):
    """This process, without limits: what the attributor prints and raises comes out here, and it sees what we see.

    Attributes:
        propagate: whether its exceptions do; else they are outcomes, as they are of an `OwnProcess`.
    """

    propagate: bool = True

    def start(self, folder: Folder, listen: Listen) -> Worker:
        """See `Executor`."""
        return _Here(folder, listen, self.propagate)


class _Here(Worker):
    """The worker as an object of this process."""

    def __init__(self, folder: Folder, listen: Listen, propagate: bool) -> None:
        import torch

        from attriboard.attribution.worker import Attributing

        self._threads = torch.get_num_threads()
        job = Job.model_validate_json(folder.job.read_text(encoding="utf-8"))
        self._attributing = Attributing(job, folder, listen, propagate)
        self._events: Iterator[Event] = self._attributing.describe()

    def events(self) -> Iterator[Event]:
        """See `Worker`."""
        yield from self._events

    def send(self, plan: Plan) -> None:
        """See `Worker`."""
        self._events = self._attributing.work(plan)

    def death(self) -> str:
        """See `Worker`; it lives as long as we do."""
        return "error: it ended early"

    def close(self) -> None:
        """See `Worker`."""
        import torch

        torch.set_num_threads(self._threads)


class _Process(Worker):
    """The worker as a process of its own."""

    def __init__(self, executor: OwnProcess, folder: Folder, listen: Listen) -> None:
        self._listen, self._keep = listen, executor.log
        read, write = os.pipe()
        plans, self._plans = os.pipe()
        self._events, self._rest, self._nonsense = read, b"", False
        self._group: ControlGroup | None = None
        inherited = [write, plans]
        try:
            self._launch = launch = executor.launch(folder, write, plans)
            inherited += launch.descriptors
            self._group = launch.group
            self._limits, self.trusted = launch.limits, not launch.wrapped
            self._log = launch.log
            with self._log.open("ab") as log:
                self._printed_from = log.tell()
                self._process = _start(launch, log, write, plans, inherited)
        except BaseException as error:
            os.close(read)
            os.close(self._plans)
            if self._group is not None:
                self._group.close()
            if isinstance(error, OSError) and executor.log is not None and error.filename == str(executor.log):
                raise InputError(f"log {executor.log}: cannot be written: {error.strerror}") from error
            raise
        finally:
            for descriptor in inherited:
                os.close(descriptor)
        self._watch = Watch(self._process.pid, self._limits, (*launch.written, self._log) if launch.written else ())
        self._start_clock()

    def _start_clock(self) -> None:
        seconds = self._limits.seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def events(self) -> Iterator[Event]:
        """See `Worker`; ends too where a limit is exceeded."""
        for line in self._lines():
            try:
                event = _EVENTS.validate_json(line)
            except ValidationError:
                self._nonsense = True
                return
            if isinstance(event, Progressed):
                self._listen(event)
                continue
            yield event
            if isinstance(event, Done) or event.event == "described":
                return

    def send(self, plan: Plan) -> None:
        """See `Worker`."""
        self._start_clock()
        with suppress(BrokenPipeError):  # it is gone, which `events` finds out
            _write_all(self._plans, plan.model_dump_json().encode() + b"\n")

    def disbelieve(self) -> None:
        """See `Worker`."""
        self._nonsense = True

    def printed(self) -> list[str]:
        """See `Worker`."""
        with self._log.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._printed_from, end - _PRINTED_BYTES))
            return log.read().decode(errors="replace").strip().splitlines()

    def close(self) -> None:
        """See `Worker`."""
        # The kernel ends what is inside a wrapper when the wrapper has ended, a moment later.
        inside = self._watch.members() if self._launch.wrapped else []
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        psutil.wait_procs(inside, timeout=ENDING_SECONDS)
        if self._group is not None:
            self._group.close()
        os.close(self._events)
        os.close(self._plans)
        if self._keep is not None and self._keep != self._log:
            with self._log.open("rb") as printed, self._keep.open("ab") as log:
                shutil.copyfileobj(printed, log)

    def death(self) -> str:
        """See `Worker`."""
        if reason := self._watch.reason or (self._group and self._group.exceeded()):
            return reason
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"timeout: not finished after {self._limits.seconds:g} s"
        if self._nonsense:
            return "crash: it reported what no worker reports"
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "crash: the process stopped reporting and did not end"
        if self._launch.wrapped and code > _SHELL_SIGNAL:
            code = _SHELL_SIGNAL - code
        if code == -signal.SIGKILL:
            return "out_of_memory: the process was killed from outside, most likely for its memory"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        printed = self.printed()
        return f"crash: {how}" + (f"; it last printed: {printed[-1][:300]}" if printed else "")

    def _lines(self) -> Iterator[bytes]:
        """Lines until the other end closes, the process has ended, or a limit is exceeded.

        The other end stays open after the process where something that it forked lives on.
        """
        looked = time.monotonic()
        every = POLL_SECONDS if self._limits.watched else _IDLE_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            while True:
                while b"\n" in self._rest:
                    line, _, self._rest = self._rest.partition(b"\n")
                    yield line
                ended = self._process.poll() is not None
                left = every if self._deadline is None else min(every, self._deadline - time.monotonic())
                ready = selector.select(0 if ended or left < 0 else left)
                if time.monotonic() - looked >= every:
                    looked = time.monotonic()
                    if self._watch.exceeded():
                        return
                if not ready:
                    if ended or left <= 0:
                        return
                    continue
                received = os.read(self._events, 1 << 16)
                if not received:
                    return
                self._rest += received
                if len(self._rest) > _MAX_EVENT:
                    self._nonsense = True
                    return


def _start(
    launch: Launch, log: BinaryIO, events: int, plans: int, inherited: list[int]
) -> "subprocess.Popen[bytes] | ForkedWorker":
    if launch.forked and (worker := fork_worker(launch.folder, launch.environment, log, events, plans)):
        return worker
    return subprocess.Popen(
        launch.group.entering(launch.command) if launch.group else launch.command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        cwd=launch.folder,
        env=launch.environment,
        pass_fds=inherited,
        start_new_session=True,  # so that whatever it starts can be ended with it
    )


def worker_command(folder: Folder, events: int, plans: int) -> list[str]:
    """The worker of a folder, given the file descriptors to report to and to read plans from."""
    return [sys.executable, "-m", "attriboard.attribution.process", str(folder.path), str(events), str(plans)]


def _write_all(descriptor: int, data: bytes) -> None:
    """Write everything; a pipe may take less at a time."""
    while data:
        data = data[os.write(descriptor, data) :]
