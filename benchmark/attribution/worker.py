"""The process that runs an attributor: `python -m attriboard.attribution.worker FOLDER EVENTS`.

It is told a job and given a context; ground truth is on the other side. Configurations that share their fit-stage
values share one fit. Events go to the file descriptor EVENTS, scores into FOLDER; standard output and error are the
attributor's own and end up in a log.
"""

import gc
import inspect
import os
import re
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel

from attriboard.attribution.choosing import Chooser
from attriboard.attribution.context import ContextChangedError, ContextWatch, build_context
from attriboard.attribution.job import Began, Described, Finished, Folder, Job, Refused
from attriboard.base.digests import canonical_json, digest_file
from attriboard.base.errors import AttriboardError, InputError, NotApplicableError
from attriboard.base.scores import write_scores
from attriboard.contracts.attributor import Attributor, Context, HyperparameterValue
from attriboard.contracts.task import Task
from attriboard.toolkit.memory import require_memory

T = TypeVar("T")
Configuration = dict[str, HyperparameterValue]

NOTE_LENGTH = 1000
"""Characters of a note that a record keeps."""


class InvalidScoresError(AttriboardError):
    """The attributor returned something that is no score matrix."""


def run_job(job: Job, folder: Folder, report: Callable[[BaseModel], None]) -> None:
    """Run every configuration of a job; failures are reported, not raised."""
    torch.set_num_threads(job.threads)
    attributor_class = job.attributor.load_attributor()
    configurations = [attributor_class.configure(values) for values in job.configurations]
    report(
        Described(
            name=attributor_class.name,
            paper=attributor_class.paper,
            family=attributor_class.family,
            code_sha256=digest_file(Path(inspect.getfile(attributor_class))),
            configurations=tuple(configurations),
            grids={hp.name: hp.grid for hp in attributor_class.hyperparameters},
        )
    )
    if job.describe_only:
        return
    _check_device(job.device)
    selectors = [spec.load_selector()() for spec in job.selectors]
    donor = job.donors[attributor_class.curvature].load_attributor() if job.donors else None
    report(Began(configurations=tuple(range(len(configurations)))))
    attributor, (task, context) = attributor_class(), _load(job)
    chooser = Chooser(selectors, task.card, context, attributor, donor, job.candidates)
    _Run(attributor, context, configurations, chooser, folder, report, job.memory_limit).run()


@dataclass
class _Run:
    """The loop over fits and configurations."""

    attributor: Attributor
    context: Context
    configurations: list[Configuration]  # grows where selectors choose new ones
    chooser: Chooser
    folder: Folder
    report: Callable[[BaseModel], None]
    memory_limit: int | None

    def __post_init__(self) -> None:
        self.watch = ContextWatch(self.context)

    def run(self) -> None:
        """Fit each group once, let selectors choose, score every member; chosen configurations may need new fits.

        Ends early once the context was changed: nothing after that would be worth a record, and the runner goes on
        with what is left in a new process.
        """
        given = self._groups(range(len(self.configurations)))
        chosen: list[int] = []
        for group in given:
            chosen += self._run_group(group, choose=True)
            if self.watch.changes():
                return
        for group in self._groups(chosen):
            self._run_group(group, choose=False)
            if self.watch.changes():
                return

    def _groups(self, indices: Iterable[int]) -> list[list[int]]:
        """Configurations that share their fit-stage values, in order of first appearance."""
        groups: dict[str, list[int]] = {}
        for index in indices:
            groups.setdefault(self._fit_key(index), []).append(index)
        return list(groups.values())

    def _fit_key(self, index: int) -> str:
        return canonical_json(self.attributor.stage(self.configurations[index], "fit"))

    def _run_group(self, group: list[int], choose: bool) -> list[int]:
        """Fit and score one group; returns the chosen configurations that need another fit."""
        self.report(Began(configurations=tuple(group)))
        _reset_peak()
        values = self.attributor.stage(self.configurations[group[0]], "fit")
        state, seconds, failure = _attempt(lambda: self._fit(values))
        if failure is not None:
            for index in group:
                self.report(Finished(configuration=index, reason=failure, peak_bytes=_peak()))
            return []
        added = self._choose(group, state) if choose else []
        elsewhere = [index for index in added if self._fit_key(index) != self._fit_key(group[0])]
        for index in [*group, *(index for index in added if index not in elsewhere)]:
            self.report(Began(configurations=(index,)))
            self.report(self._score(index, state, seconds))
            if self.watch.changes():
                break
        del state
        gc.collect()
        return elsewhere

    def _fit(self, values: Configuration) -> Any:
        """Fit, unless that takes more memory than there is."""
        need = self.attributor.memory_need(self.context, **values)
        require_memory(need, self.context.device, self.memory_limit)
        state = self.attributor.fit(self.context, **values)
        self.watch.check("fit")
        return state

    def _choose(self, group: list[int], state: Any) -> list[int]:
        """Positions of the configurations that selectors add."""
        added = []
        for selected in self.chooser.choose(self.configurations[group[0]], state):
            position = None
            if selected.reason is None:
                chosen = self.attributor.configure(self.configurations[group[0]] | selected.values)
                if chosen not in self.configurations:
                    self.configurations.append(chosen)
                    added.append(len(self.configurations) - 1)
                position = self.configurations.index(chosen)
            update = {"configurations": tuple(group), "configuration": position}
            self.report(selected.model_copy(update=update))
        return added

    def _score(self, index: int, state: Any, fit_seconds: float) -> Finished:
        values = self.attributor.stage(self.configurations[index], "score")
        shape = (len(self.context.test), len(self.context.train))

        def work() -> tuple[np.ndarray[Any, np.dtype[np.float32]], tuple[str, ...]]:
            scores = checked_scores(self.attributor.score(state, **values), shape)
            self.watch.check("score")
            return scores, tuple(note[:NOTE_LENGTH] for note in self.attributor.notes(state))

        found, seconds, reason = _attempt(work)
        if found is not None:
            write_scores(self.folder.scores(index), found[0])
        return Finished(
            configuration=index,
            reason=reason,
            fit_seconds=fit_seconds,
            score_seconds=seconds,
            peak_bytes=_peak(),
            notes=() if found is None else found[1],
        )


def checked_scores(scores: Any, shape: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Turn what `score` returned into a float32 array.

    Raises:
        InvalidScoresError: not a tensor, another shape, not floating point, or finite nowhere.
    """
    if not isinstance(scores, torch.Tensor):
        raise InvalidScoresError(f"shape: score returned {type(scores).__name__}, must be a torch.Tensor")
    if tuple(scores.shape) != shape:
        raise InvalidScoresError(f"shape: scores are {tuple(scores.shape)}, must be (n_test, n_train) = {shape}")
    if not scores.is_floating_point():
        raise InvalidScoresError(f"shape: scores are {scores.dtype}, must be floating point")
    array = scores.detach().to("cpu", torch.float32).contiguous().numpy()
    if not any(np.isfinite(row).all() for row in array):
        raise InvalidScoresError(f"nan: all {shape[0]} rows have scores that are NaN or infinite")
    return array


def _attempt(work: Callable[[], T]) -> tuple[T | None, float, str | None]:
    """Result, seconds, and the reason of a failure."""
    started = time.perf_counter()
    result, reason = None, None
    try:
        result = work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        reason = _reason(error)
    return result, time.perf_counter() - started, reason


def _reason(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()[:500]
    text = text.encode(errors="backslashreplace").decode()  # a path may hold what no JSON can
    if isinstance(error, (InvalidScoresError, ContextChangedError)):
        return text
    if isinstance(error, NotApplicableError):
        return f"not_applicable: {text or 'no reason given'}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return f"out_of_memory: {text or 'MemoryError'}"
    return f"error: {type(error).__name__}: {text}"


def _load(job: Job) -> tuple[Task, Context]:
    try:
        task = job.task.load()
        context = build_context(
            task,
            job.checkpoints,
            device=job.device,
            seed=job.seed,
            queries=job.queries,
            memory_bytes=job.memory_limit,
        )
        return task, context
    except AttriboardError:
        raise
    except Exception as error:  # a task may be somebody else's code too
        raise InputError(f"task {job.task.card.name!r} does not load: {type(error).__name__}: {error}") from error


def _check_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: a PyTorch without CUDA
        text = str(error).partition("\n")[0]
        raise InputError(f"device {device!r}: PyTorch cannot use it: {text}") from error


def _reset_peak() -> None:
    # Linux: 5 resets the high-water mark of resident memory (proc(5)).
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Largest resident memory in bytes since `_reset_peak`, or of the whole process where that cannot be had."""
    with suppress(OSError):
        match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        if match:
            return int(match[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(arguments: list[str]) -> None:
    """Entry point of the process."""
    folder, events = Folder(Path(arguments[0])), int(arguments[1])
    job = Job.model_validate_json(folder.job.read_text())

    def report(event: BaseModel) -> None:
        os.write(events, event.model_dump_json().encode() + b"\n")

    try:
        run_job(job, folder, report)
    except AttriboardError as error:  # the job itself is wrong: say so to the runner, for the user
        report(Refused(message=str(error)))


def _end_with_the_runner(events: int) -> None:
    """End this process and whatever it started once nobody reads its events: the runner was killed."""
    reader = select.poll()
    reader.register(events, 0)  # errors are reported always, and a pipe without a reader is one
    reader.poll()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_runner, args=(int(sys.argv[2]),), daemon=True).start()
    code = 0
    try:
        main(sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        code = 1
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code)  # threads and children that the attributor left behind are not waited for
