"""The runner: starts the attributor's process, follows it, and turns whatever happens into outcomes.

A crash, a time-out or NaN in one configuration is that configuration's outcome; the others go on in a new process.
The process sees a folder of its own and the job, never the ground truth. That keeps results honest against mistakes;
it is not a security boundary against a hostile author, who should enter scores instead of code.
"""

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from attriboard.attribution.job import Began, Described, Event, Finished, Folder, Job, Refused, Selected
from attriboard.attribution.limits import MEMORY_POLL_SECONDS, NO_LIMITS, Limits, MemoryWatch
from attriboard.base.errors import InputError
from attriboard.base.paths import datasets_folder
from attriboard.base.scores import map_scores
from attriboard.contracts.attributor import HyperparameterValue

_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)
_WITHHELD = ("PWD", "OLDPWD", "ATTRIBOARD_MIRROR", "ATTRIBOARD_CACHE")  # bundles may lie where they point
_POLL_SECONDS = 0.5  # how often a silent process is looked at


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one configuration.

    Attributes:
        attributor: what the attributor says of itself.
        index: position of the configuration: of the job's first, then those that selectors added.
        hyperparameters: the complete configuration.
        reason: `None`, or why there are no scores: `category: text`.
        scores: (n_test, n_train) float32, or `None`.
        fit_seconds: wall-clock seconds of the fit, which configurations with the same fit-stage values share.
        score_seconds: wall-clock seconds of scoring.
        peak_bytes: largest resident memory of the process since the fit began.
        notes: what the attributor says of the fit.
    """

    attributor: Described
    index: int
    hyperparameters: dict[str, HyperparameterValue]
    reason: str | None
    scores: NDArray[np.float32] | None = None
    fit_seconds: float | None = None
    score_seconds: float | None = None
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()


def describe_attributor(job: Job) -> Described:
    """What a job's attributor says of itself, with the job's configurations completed.

    Raises:
        InputError: it does not import, or does not have these hyperparameters.
    """
    with _Process(job.model_copy(update={"describe_only": True}), NO_LIMITS) as process:
        for event in process.events():
            if isinstance(event, Described):
                return event
        raise process.ended_early()


def run_attributor(job: Job, limits: Limits = NO_LIMITS) -> Iterator[Outcome | Selected]:
    """Run a job in a process of its own; yields outcomes and selectors' choices as they come.

    A configuration in which the process dies, or exceeds a limit, has failed; the others go on in a new process.

    Args:
        job: what to run; its checkpoints' path must be absolute.
        limits: of each process.

    Raises:
        InputError: the job cannot be run at all, whatever the configuration.
    """
    everything = list(job.configurations)
    waiting = list(range(len(everything)))
    selected: set[tuple[str, int]] = set()
    while waiting:
        numbers = waiting  # position in this process → position in the whole
        done: set[int] = set()
        mine = tuple(everything[number] for number in numbers)
        part = job.model_copy(update={"configurations": mine, "memory_limit": limits.bytes})
        with _Process(part, limits) as process:
            for event in process.events():
                match event:
                    case Described():
                        for number, complete in zip(numbers, event.configurations, strict=True):
                            everything[number] = complete
                    case Selected():
                        choice = _renumbered(event, numbers, everything)
                        if not {(choice.selector, number) for number in choice.configurations} & selected:
                            selected |= {(choice.selector, number) for number in choice.configurations}
                            yield choice
                    case Finished():
                        number = numbers[event.configuration]
                        done.add(number)
                        yield process.outcome(event, number, everything[number])
            for position in process.busy_at_the_end():
                number = numbers[position]
                done.add(number)
                yield Outcome(process.described, number, everything[number], process.death())
        waiting = [number for number in numbers if number not in done]


def _renumbered(event: Selected, numbers: list[int], everything: list[dict[str, HyperparameterValue]]) -> Selected:
    """A choice in the whole's numbers; a configuration that the process added is added to the whole."""
    group = tuple(numbers[position] for position in event.configurations)
    position = event.configuration
    if position is not None and position == len(numbers):
        complete = everything[group[0]] | event.values
        if complete not in everything:
            everything.append(complete)
        numbers.append(everything.index(complete))
    number = None if position is None else numbers[position]
    return event.model_copy(update={"configurations": group, "configuration": number})


class _Process:
    """One run of the worker: started on entry, ended with everything it started on exit."""

    described: Described

    def __init__(self, job: Job, limits: Limits) -> None:
        self._job = job
        self._limits = limits
        self._busy: set[int] = set()
        self._finished = 0

    def __enter__(self) -> Self:
        # What it started may still write while the folder goes.
        self._temporary = tempfile.TemporaryDirectory(prefix="attriboard-", ignore_cleanup_errors=True)
        self._folder = Folder(Path(self._temporary.name))
        self._folder.job.write_text(self._job.model_dump_json(), encoding="utf-8")
        seconds = self._limits.seconds
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._process, self._events = _start(self._folder)
        self._memory = MemoryWatch(self._process.pid, self._limits.bytes)
        return self

    def __exit__(self, *exception: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._events)
        self._temporary.cleanup()

    def events(self) -> Iterator[Described | Selected | Finished]:
        """What it reports until it ends or exceeds a limit.

        Raises:
            InputError: it refuses the job.
        """
        for line in self._lines():
            event = _EVENTS.validate_json(line)
            match event:
                case Refused():
                    raise InputError(event.message)
                case Began():
                    self._busy = set(event.configurations)
                    continue
                case Described():
                    self.described = event
                case Finished():
                    self._busy.discard(event.configuration)
                    self._finished += 1
            yield event

    def outcome(self, event: Finished, number: int, hyperparameters: dict[str, HyperparameterValue]) -> Outcome:
        """A finished configuration with its scores."""
        scores = None
        if event.reason is None:
            path = self._folder.scores(event.configuration)
            scores = map_scores(path)
            path.unlink()  # the mapping keeps the bytes
        return Outcome(
            self.described,
            number,
            hyperparameters,
            event.reason,
            scores,
            event.fit_seconds,
            event.score_seconds,
            event.peak_bytes,
            event.notes,
        )

    def busy_at_the_end(self) -> list[int]:
        """Positions it was working on when it died.

        Raises:
            InputError: it died before it worked on anything.
        """
        if not self._finished and not self._busy:
            raise self.ended_early()
        return sorted(self._busy)

    def ended_early(self) -> InputError:
        """The error for a process that got nowhere."""
        name = self._job.attributor.name
        return InputError(f"attributor {name!r}: its process ended before any result; {self.death()}")

    def death(self) -> str:
        """Why it ended before its work did."""
        if self._memory.reason:
            return self._memory.reason
        if self._deadline is not None and time.monotonic() >= self._deadline:
            return f"timeout: not finished after {self._limits.seconds:g} s"
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "crash: the process stopped reporting and did not end"
        if code == -signal.SIGKILL:
            return "out_of_memory: the process was killed from outside, most likely for its memory"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        printed = self._folder.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"crash: {how}" + (f"; it last printed: {printed[-1][:300]}" if printed else "")

    def _lines(self) -> Iterator[bytes]:
        """Lines until the other end closes, the process has ended, or a limit is exceeded.

        The other end stays open after the process where something that it forked lives on.
        """
        rest, looked = b"", time.monotonic()
        every = _POLL_SECONDS if self._limits.bytes is None else MEMORY_POLL_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            while True:
                ended = self._process.poll() is not None
                left = every if self._deadline is None else min(every, self._deadline - time.monotonic())
                ready = selector.select(0 if ended or left < 0 else left)
                if time.monotonic() - looked >= every:
                    looked = time.monotonic()
                    if self._memory.exceeded():
                        return
                if not ready:
                    if ended or left <= 0:
                        return
                    continue
                received = os.read(self._events, 1 << 16)
                if not received:
                    return
                *lines, rest = (rest + received).split(b"\n")
                yield from lines


def _start(folder: Folder) -> tuple[subprocess.Popen[bytes], int]:
    """Start the process in the folder; returns it and the file descriptor of its events."""
    read, write = os.pipe()
    with folder.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "attriboard.attribution.worker", str(folder.path), str(write)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder.path,
            env=_environment(),
            pass_fds=(write,),
            start_new_session=True,  # so that whatever it starts can be ended with it
        )
    os.close(write)
    return process, read


def _environment() -> dict[str, str]:
    """Our environment, without where ground truth may be and with relative paths made absolute: it works elsewhere."""
    environment = {name: value for name, value in os.environ.items() if name not in _WITHHELD}
    environment["ATTRIBOARD_DATASETS"] = str(datasets_folder())
    for name, separator in (("PYTHONPATH", os.pathsep), ("ATTRIBOARD_DATA", "\0"), ("ATTRIBOARD_DATASETS", "\0")):
        if value := environment.get(name):
            environment[name] = separator.join(str(Path(part).absolute()) for part in value.split(separator))
    return environment
