"""A task with everything that running attributors on it takes: one way in for the command line and for Python."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from attriboard.attribution.executors import OwnProcess, ThisProcess
from attriboard.attribution.job import Job
from attriboard.attribution.limits import NO_LIMITS, Limits
from attriboard.attribution.runner import Runner
from attriboard.attribution.sandbox import Sandbox, find_tool
from attriboard.base.display import Display, Silent
from attriboard.base.errors import InputError
from attriboard.base.processes import begin_work
from attriboard.contracts.question import Question
from attriboard.contracts.task import Task, TaskSpec
from attriboard.evaluation.catalog import (
    attributor_spec,
    known_names,
    load_task,
    selector_spec,
    spectrum_donors,
)
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.opening import open_bundles
from attriboard.records.files import AnyRecord, read_records
from attriboard.records.published import published_results
from attriboard.retraining.executors import Executor, InProcess, LocalProcesses, usable_cores


class Workspace:
    """A task, its ground truth and checkpoints, and how attributors are run on it.

    Args:
        task: a live task, its name, or a card's path.
        groundtruth: folder of bundles; the published ones by default.
        limits: of an attributor's process.
        isolated: whether attributors run in a process of their own. In this process a debugger stops in their code, and
            their exceptions arrive unchanged; they could see the ground truth, so what comes of it is not for a board.
        sandbox: whether that process sees what a run takes and nothing else; see `attriboard.attribution.sandbox`.
        log: file that gets all that attributors print in their process.
        seed: for the attributor's randomness.
        parameters: glob patterns of the attributed parameters; the task's own by default.
        device: where its tensors live.
        threads: of its numerical libraries; by default all cores.
        workers: processes that retrain; by default one for each core.
        cluster: address of a dask scheduler whose workers retrain instead.
        display: where notes and progress go; nowhere by default.

    Raises:
        UnknownNameError: no such task.
        InputError: both workers and a cluster are given, or the cluster cannot be used; or limits, a log or a sandbox
            for what runs in this process; or a sandbox where no tool makes one; or no task, or no numbers.
    """

    def __init__(
        self,
        task: Task | str | Path,
        groundtruth: Path | None = None,
        *,
        limits: Limits = NO_LIMITS,
        isolated: bool = True,
        sandbox: bool = False,
        log: Path | None = None,
        seed: int = 0,
        parameters: str | Sequence[str] = (),
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        cluster: str | None = None,
        display: Display | None = None,
    ) -> None:
        begin_work()
        if not isinstance(task, Task | str | Path):
            raise InputError(f"task of type {type(task).__name__}: give a task, its name, or a card's or task's file")
        for name, number in (("threads", threads), ("workers", workers)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise InputError(f"{name} = {number}: must be a whole number, 1 or more")
        self.task = task if isinstance(task, Task) else load_task(task)
        self.seed, self.device = seed, device
        patterns = (parameters,) if isinstance(parameters, str) else parameters
        self.parameters = tuple(patterns) or tuple(self.task.parameters)
        self.threads = threads or usable_cores()
        self.display = display or Silent()
        if not self.task.portable:
            self.display.note(f"everything runs in this process, and is not for a board: {self.task.stays}")
            if sandbox:
                raise InputError(f"--sandbox: {self.task.card.name} lives in this process: {self.task.stays}")
        here = isolated and not self.task.portable
        where = ThisProcess(False) if here else _attribution_executor(limits, isolated, log)
        if sandbox:
            find_tool()
            where = _sandboxed(where, groundtruth)
        self.runner = Runner(where, self.display, known_names())
        self._workers, self._cluster = workers, cluster
        self._executor()  # what is wrong with it is found now, not after hours of attributing
        self._graders: dict[Question, Grader] = {}
        self.bundles = open_bundles(self.task, groundtruth, self.display)

    @cached_property
    def grader(self) -> Grader:
        """The task's ground truth, ready to grade.

        Raises:
            DataError: there is none, or no place has it.
        """
        return Grader(self.bundles.truth)

    def graders(self, questions: Sequence[str]) -> list[Grader]:
        """The ground truths of questions by name, the usual one where there is no name; see `TaskCard.asked`.

        Raises:
            InputError: no such question.
            DataError: there is no such ground truth, or no place has it.
        """
        return [self.grader_of(question) for question in self.task.card.asked(questions)]

    def grader_of(self, question: Question | None) -> Grader:
        """A question's ground truth, ready to grade; see `grader`."""
        if question is None:
            return self.grader
        if question not in self._graders:
            self._graders[question] = Grader(self.bundles.truth_of(question))
        return self._graders[question]

    @property
    def grader_if_any(self) -> Grader | None:
        """The grader of a task that has ground truth."""
        return self.grader if self.bundles.graded else None

    def executor(self, heartbeat: Callable[[str], None] | None = None) -> Executor:
        """Where retraining runs: local processes with one thread each, or a cluster.

        What every retrain starts from is on this machine then; see `TaskBundles.start`.

        Args:
            heartbeat: what the cluster reports to; by default the display.

        Raises:
            InputError: both workers and a cluster are given, or the cluster cannot be used: no such address, no
                scheduler that answers, or no dask.distributed.
            DataError: no place has the published weights that retrains start from.
        """
        self.bundles.start()
        return self._executor(heartbeat)

    def _executor(self, heartbeat: Callable[[str], None] | None = None) -> Executor:
        if not self.task.portable:
            return InProcess()
        if self._cluster is None:
            return LocalProcesses(self._workers)
        if self._workers is not None:
            raise InputError(f"--workers {self._workers}: with --executor, the cluster sets the number of workers")
        from attriboard.retraining.cluster import DaskCluster

        where = DaskCluster(self._cluster, heartbeat or self.display.note)
        where.reach()
        return where

    def job(
        self,
        attributor: str | Path,
        configurations: Sequence[dict[str, Any]] = ({},),
        *,
        selectors: Sequence[str] = (),
    ) -> Job:
        """A job on this task, with its checkpoints: published, cached, or trained now.

        Args:
            attributor: a name, or the path of a `.py` file.
            configurations: hyperparameter values that differ from the defaults, one score matrix each.
            selectors: names or files of selectors that run on every fit.
        """
        return Job(
            task=TaskSpec.here(self.task),
            attributor=attributor_spec(attributor),
            configurations=tuple(configurations),
            checkpoints=self.bundles.checkpoints(self.executor),
            device=self.device,
            seed=self.seed,
            threads=self.threads,
            selectors=tuple(selector_spec(name) for name in selectors),
            donors=spectrum_donors() if selectors else {},
            parameters=self.parameters,
        )

    def records(self, folder: Path, *attributors: str) -> list[AnyRecord]:
        """Finished records of the task below a folder of results; where attributors are named, theirs alone."""
        mine = folder / self.task.card.name
        folders = [mine / name for name in attributors] or [mine]
        return [record for one in folders if one.is_dir() for record in read_records(one)]

    @cached_property
    def published_records(self) -> list[AnyRecord]:
        """Records of the task that come with this installation; they are many, and read once."""
        return self.records(published_results())


def _sandboxed(executor: OwnProcess | ThisProcess, groundtruth: Path | None) -> Sandbox:
    """The same in a sandbox, where a folder of bundles stays unseen."""
    if isinstance(executor, ThisProcess):
        raise InputError("sandbox = True: is for an attributor's own process; leave it out, or run it isolated")
    return Sandbox(executor.limits, executor.log, () if groundtruth is None else (groundtruth,))


def _attribution_executor(limits: Limits, isolated: bool, log: Path | None) -> OwnProcess | ThisProcess:
    """Where attributors run."""
    if isolated:
        return OwnProcess(limits, None if log is None else log.resolve())
    for name, value in (("limits", None if limits == NO_LIMITS else limits), ("log", log)):
        if value is not None:
            raise InputError(f"{name} = {value}: is for an attributor's own process; leave it out, or run it isolated")
    return ThisProcess()
