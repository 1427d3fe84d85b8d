"""The worker: runs an attributor on a job's context, plan after plan; ground truth is on the other side.

Configurations that share their fit-stage values share one fit. Scores go into the job's folder.
"""

import gc
import inspect
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file

from attriboard.attribution.choosing import Chooser
from attriboard.attribution.context import ContextChangedError, ContextWatch, build_context
from attriboard.attribution.frames import own_frames
from attriboard.attribution.job import (
    Began,
    Described,
    Done,
    Event,
    Finished,
    Folder,
    Job,
    Knob,
    Plan,
    Progressed,
    Tokens,
    on_task,
)
from attriboard.attribution.plugins import code_sha256
from attriboard.base.digests import canonical_json
from attriboard.base.errors import AttriboardError, InputError, NotApplicableError
from attriboard.base.scores import Scores, as_matrix, extremes, write_scores
from attriboard.contracts.attributor import Attributor, Context
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.progress import listening
from attriboard.contracts.task import Task
from attriboard.toolkit.effort import TooLongError, require_time
from attriboard.toolkit.memory import require_memory
from attriboard.toolkit.positions import position_scores

T = TypeVar("T")
Configuration = dict[str, HyperparameterValue]

BUILT_IN = "attriboard.attributors."
"""Where built-in methods are defined."""
NOTE_LENGTH = 1000
"""Characters of a note that a record keeps."""


class InvalidScoresError(AttriboardError):
    """The attributor returned something that is no score matrix."""


class Attributing:
    """A job's attributor and, once a plan needs it, what it is given.

    Args:
        job: which, and on what.
        folder: gets the scores.
        listen: called with the progress of each fit and scoring.
        propagate: whether exceptions of the attributor pass through; else they are events.
    """

    def __init__(self, job: Job, folder: Folder, listen: Callable[[Progressed], None], propagate: bool = False) -> None:
        torch.set_num_threads(job.threads)
        self._job, self._folder, self._listen, self._propagate = job, folder, listen, propagate
        self._method = job.attributor.load_attributor()
        self._given: _Given | None = None

    def describe(self) -> Iterator[Event]:
        """What the attributor says of itself."""
        method = self._method
        yield Described(
            name=method.name,
            paper=method.paper,
            family=method.family,
            code_sha256=code_sha256(method),
            knobs=tuple(map(Knob.of, on_task(method.hyperparameters, self._job.task.card.checkpoints))),
        )

    def work(self, plan: Plan) -> Iterator[Event]:
        """Run every configuration of a plan; failures are events.

        Ends without `Done` once the context was changed: nothing after that would be worth a record, and the runner
        goes on with what is left in a new worker.
        """
        given = self._given = self._given or self._load()
        yield Began(configurations=tuple(range(len(plan.configurations))))
        chooser = replace(given.chooser, candidates=plan.candidates)
        run = _Run(given, chooser, list(plan.configurations), self._folder, self._attempt, self._job)
        yield from run.events()
        if not given.watch.changes():
            yield Done()

    def _load(self) -> "_Given":
        job, attributor = self._job, self._method()
        _check_device(job.device)
        selectors = [spec.load_selector()() for spec in job.selectors]
        donor = job.donors[attributor.curvature].load_attributor() if job.donors else None
        task, context = _load(job)
        chooser = Chooser(selectors, task.card, context, attributor, donor, job.donated, {})
        return _Given(attributor, context, chooser, ContextWatch(context))

    def _attempt(self, work: Callable[[], T]) -> "_Attempt[T]":
        """Work, listened to and timed."""

        def hear(done: int, total: int, text: str) -> None:
            self._listen(Progressed(done=done, total=total, text=text))

        started = time.perf_counter()
        result, reason, trace = None, None, ""
        try:
            with listening(hear):
                result = work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        except (Exception, SystemExit) as error:
            if self._propagate:
                raise
            reason = _reason(error)
            # That a built-in method does not apply is an answer, not a fault in its code.
            if not (isinstance(error, NotApplicableError) and self._method.__module__.startswith(BUILT_IN)):
                trace = own_frames(error, Path(inspect.getfile(self._method)))
                if not trace:  # nowhere in its own code: the engine's frames are all there is
                    traceback.print_exc()
            sys.stdout.flush()
        return _Attempt(result, time.perf_counter() - started, reason, trace)


@dataclass(frozen=True)
class _Given:
    """What an attributor works with."""

    attributor: Attributor
    context: Context
    chooser: Chooser
    watch: ContextWatch


@dataclass(frozen=True)
class _Attempt(Generic[T]):
    """Result and seconds of some work, and the reason of a failure with where it was."""

    result: T | None
    seconds: float
    reason: str | None
    traceback: str


@dataclass
class _Run:
    """The loop over fits and configurations."""

    given: _Given
    chooser: Chooser
    configurations: list[Configuration]  # grows where selectors choose new ones
    folder: Folder
    attempt: Callable[[Callable[[], Any]], _Attempt[Any]]
    job: Job

    def __post_init__(self) -> None:
        self.attributor, self.context, self.watch = self.given.attributor, self.given.context, self.given.watch

    def events(self) -> Iterator[Event]:
        """Fit each group once, let selectors choose, score every member; chosen configurations may need new fits.

        Ends early once the context was changed.
        """
        chosen: list[int] = []
        for group in self._groups(range(len(self.configurations))):
            chosen += yield from self._group(group, choose=True)
            if self.watch.changes():
                return
        for group in self._groups(chosen):
            yield from self._group(group, choose=False)
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

    def _group(self, group: list[int], choose: bool) -> Generator[Event, None, list[int]]:
        """Fit and score one group; returns the chosen configurations that need another fit."""
        yield Began(configurations=tuple(group))
        _reset_peak()
        refused = {index: self.attempt(partial(self._require_time, index)).reason for index in group}
        for index in group:
            if refused[index] is not None:
                yield Finished(configuration=index, reason=refused[index], peak_bytes=_peak())
        group = [index for index in group if refused[index] is None]
        if not group:
            return []
        values = self.attributor.stage(self.configurations[group[0]], "fit")
        fit = self.attempt(lambda: self._fit(values))
        if fit.reason is not None:
            for index in group:
                yield Finished(configuration=index, reason=fit.reason, traceback=fit.traceback, peak_bytes=_peak())
            return []
        added = (yield from self._choose(group, fit.result)) if choose else []
        elsewhere = [index for index in added if self._fit_key(index) != self._fit_key(group[0])]
        for index in [*group, *(index for index in added if index not in elsewhere)]:
            yield Began(configurations=(index,))
            yield self._score(index, fit.result, fit.seconds)
            if self.watch.changes():
                break
        del fit
        gc.collect()
        return elsewhere

    def _require_time(self, index: int) -> None:
        """Refuse a configuration that cannot end within the time limit."""
        if self.job.time_limit is not None:
            need = self.attributor.work_need(self.context, **self.configurations[index])
            require_time(need, self.context, self.job.time_limit)

    def _fit(self, values: Configuration) -> Any:
        """Fit, unless that takes more memory than there is, or tokens are asked of a method that has none."""
        if self.job.tokens is not None and type(self.attributor).directions is Attributor.directions:
            self.attributor.directions(self.context, None, self.job.tokens.tests)  # says so, before a long fit
        need = self.attributor.memory_need(self.context, **values)
        require_memory(need, self.context.device, self.job.memory_limit)
        state = self.attributor.fit(self.context, **values)
        self.watch.check("fit")
        return state

    def _choose(self, group: list[int], state: Any) -> Generator[Event, None, list[int]]:
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
            yield selected.model_copy(update={"configurations": tuple(group), "configuration": position})
        return added

    def _score(self, index: int, state: Any, fit_seconds: float) -> Finished:
        values = self.attributor.stage(self.configurations[index], "score")
        shape = (len(self.context.test), len(self.context.train))

        def work() -> tuple[Scores, tuple[str, ...]]:
            scores = checked_scores(self.attributor.score(state, **values), shape)
            self.watch.check("score")
            notes = (*self.attributor.notes(state), *self.context.remarks)
            return scores, tuple(note[:NOTE_LENGTH] for note in notes)

        done = self.attempt(work)
        if done.result is not None:
            write_scores(self.folder.scores(index), done.result[0])
            if self.job.tokens is not None and done.reason is None:
                wanted, scores = self.job.tokens, done.result[0]
                tokens = self.attempt(lambda: self._tokens(index, state, scores, wanted))
                done = replace(done, reason=tokens.reason, traceback=tokens.traceback)
        return Finished(
            configuration=index,
            reason=done.reason,
            traceback=done.traceback,
            fit_seconds=fit_seconds,
            score_seconds=done.seconds,
            peak_bytes=_peak(),
            notes=() if done.result is None else done.result[1],
        )

    def _tokens(self, index: int, state: Any, scores: Scores, wanted: Tokens) -> None:
        """Scores of the tokens of the examples that help and harm most, into the folder."""
        _, best, worst = extremes(scores, wanted.tests, wanted.k)
        examples = torch.from_numpy(np.unique(np.concatenate([best, worst])))
        directions = self.attributor.directions(self.context, state, wanted.tests, **self.configurations[index])
        chosen = self.context.train[examples.to(self.context.device)]
        found = position_scores(self.context, directions, chosen).cpu()
        save_file({"examples": examples, "scores": found}, self.folder.tokens(index))


def checked_scores(scores: Any, shape: tuple[int, int]) -> Scores:
    """Turn what `score` returned into an array: float64 stays, so that no value is lost before it is graded.

    Raises:
        InvalidScoresError: not a tensor, another shape, not floating point, or finite nowhere.
    """
    if not isinstance(scores, torch.Tensor):
        raise InvalidScoresError(f"shape: score returned {type(scores).__name__}, must be a torch.Tensor")
    if tuple(scores.shape) != shape:
        raise InvalidScoresError(f"shape: scores are {tuple(scores.shape)}, must be (n_test, n_train) = {shape}")
    if not scores.is_floating_point():
        raise InvalidScoresError(
            f"shape: scores are {scores.dtype}, must be floating point; scores.float() makes them so"
        )
    array = np.ascontiguousarray(as_matrix(scores))
    if not any(np.isfinite(row).all() for row in array):
        raise InvalidScoresError(f"nan: all {shape[0]} rows have scores that are NaN or infinite")
    return array


def _reason(error: BaseException) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()[:500]
    text = text.encode(errors="backslashreplace").decode()  # a path may hold what no JSON can
    if isinstance(error, (InvalidScoresError, ContextChangedError)):
        return text
    if isinstance(error, NotApplicableError):
        return f"not_applicable: {text or 'no reason given'}"
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return f"out_of_memory: {text or 'MemoryError'}"
    if isinstance(error, TooLongError):
        return f"timeout: {text}"
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
            parameters=job.parameters,
        )
        return task, context
    except AttriboardError:
        raise
    except Exception as error:  # a task may be other people's code too
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
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024  # bytes there, kibibytes elsewhere
