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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors.numpy import load_file

from attriboard.attribution.job import (
    AttributorSpec,
    Began,
    Described,
    Event,
    Finished,
    Folder,
    Job,
    Refused,
    TaskSpec,
)
from attriboard.contracts import HyperparameterValue, Task
from attriboard.errors import InputError

__all__ = ["Outcome", "run_attributor"]

_EVENTS: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one configuration.

    Attributes:
        attributor: what the attributor says of itself.
        index: position of the configuration.
        hyperparameters: the complete configuration.
        reason: `None`, or why there are no scores: `category: text`.
        scores: (n_test, n_train) float32, or `None`.
        fit_seconds, score_seconds: wall-clock seconds; the fit is shared by its group.
        peak_bytes: largest resident memory of the process.
    """

    attributor: Described
    index: int
    hyperparameters: dict[str, HyperparameterValue]
    reason: str | None
    scores: NDArray[np.float32] | None = None
    fit_seconds: float | None = None
    score_seconds: float | None = None
    peak_bytes: int | None = None


def run_attributor(
    task: Task,
    attributor: AttributorSpec,
    configurations: Sequence[Mapping[str, HyperparameterValue]],
    checkpoints: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    threads: int | None = None,
    time_limit: float | None = None,
) -> Iterator[Outcome]:
    """Run configurations of an attributor in a process of its own; yields outcomes as they come.

    Args:
        task: the task.
        attributor: where its code is.
        configurations: hyperparameter values, completed with the defaults; texts are read as on the command line.
        checkpoints: the task's checkpoint bundle.
        device: where the attributor's tensors live.
        seed: for its randomness.
        threads: of the numerical libraries; by default the cores this process may use.
        time_limit: seconds for each process; what it has not finished by then becomes a `timeout`.

    Raises:
        InputError: the job cannot be run at all, whatever the configuration.
    """
    waiting = list(range(len(configurations)))
    while waiting:
        job = Job(
            task=TaskSpec.of(task),
            attributor=attributor,
            configurations=tuple(dict(configurations[i]) for i in waiting),
            checkpoints=checkpoints.resolve(),
            device=device,
            seed=seed,
            threads=threads or len(os.sched_getaffinity(0)),
        )
        done: set[int] = set()
        for outcome in _run_once(job, time_limit):
            done.add(outcome.index)
            yield replace(outcome, index=waiting[outcome.index])
        waiting = [index for position, index in enumerate(waiting) if position not in done]


def _run_once(job: Job, time_limit: float | None) -> Iterator[Outcome]:
    """Follow one process until it ends; what it was busy with when it died has failed."""
    with tempfile.TemporaryDirectory(prefix="attriboard-") as name:
        folder = Folder(Path(name))
        folder.job.write_text(job.model_dump_json(), encoding="utf-8")
        deadline = None if time_limit is None else time.monotonic() + time_limit
        process, events = _start(folder)
        described: Described | None = None
        busy: set[int] = set()
        done = 0
        try:
            for line in _lines(events, deadline):
                event = _EVENTS.validate_json(line)
                match event:
                    case Refused():
                        raise InputError(event.message)
                    case Described():
                        described = event
                    case Began():
                        busy = set(event.configurations)
                    case Finished():
                        assert described is not None
                        busy.discard(event.configuration)
                        done += 1
                        yield _outcome(described, event, folder)
            reason = _death(process, deadline, time_limit, folder)
        finally:
            _kill(process)
            os.close(events)
        if described is None or not done + len(busy):
            raise InputError(f"attributor {job.attributor.name!r}: its process ended before any result; {reason}")
        for index in sorted(busy):
            yield Outcome(described, index, described.configurations[index], reason)


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
            pass_fds=(write,),
            start_new_session=True,  # so that whatever it starts can be ended with it
        )
    os.close(write)
    return process, read


def _lines(events: int, deadline: float | None) -> Iterator[bytes]:
    """Lines from a file descriptor until its other end closes or the deadline passes."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(events, selectors.EVENT_READ)
        while True:
            timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not selector.select(timeout):
                return
            received = os.read(events, 1 << 16)
            if not received:
                return
            *lines, rest = (rest + received).split(b"\n")
            yield from lines


def _outcome(described: Described, event: Finished, folder: Folder) -> Outcome:
    path = folder.scores(event.configuration)
    scores = None
    if event.reason is None:
        scores = load_file(path)["scores"]
        path.unlink()
    return Outcome(
        described,
        event.configuration,
        described.configurations[event.configuration],
        event.reason,
        scores,
        event.fit_seconds,
        event.score_seconds,
        event.peak_bytes,
    )


def _death(process: subprocess.Popen[bytes], deadline: float | None, time_limit: float | None, folder: Folder) -> str:
    """Why a process ended before its work did."""
    if deadline is not None and time.monotonic() >= deadline:
        return f"timeout: not finished after {time_limit:g} s"
    try:
        code = process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        return "crash: the process stopped reporting and did not end"
    if code == -signal.SIGKILL:
        return "out_of_memory: the process was killed from outside, most likely for its memory"
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    printed = folder.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"crash: {how}" + (f"; it last printed: {printed[-1][:300]}" if printed else "")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
