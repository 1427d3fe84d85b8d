"""The runner: opens an attributor, follows what its worker does, and turns whatever happens into outcomes.

A crash, a time-out or NaN in one configuration is that configuration's outcome; the others go on in a new worker.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.executors import Executor, Listen, OwnProcess
from attriboard.attribution.job import (
    Began,
    Described,
    Done,
    Event,
    Finished,
    Folder,
    Job,
    Plan,
    Progressed,
    Refused,
    Selected,
)
from attriboard.attribution.results import Results
from attriboard.base.digests import digest_file
from attriboard.base.display import Display, Progress, Silent
from attriboard.base.errors import FormatError, InputError
from attriboard.base.scores import Scores
from attriboard.contracts.hyperparameter import HyperparameterValue

MAX_PRINTED = 20
"""Lines of what a failed attributor printed that are shown."""

Configuration = dict[str, HyperparameterValue]
Candidates = Mapping[str, tuple[float, ...]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of one configuration.

    Attributes:
        attributor: what the attributor says of itself.
        index: position of the configuration: of the job's first, then those that selectors added.
        hyperparameters: the complete configuration.
        reason: `None`, or why there are no scores: `category: text`.
        scores: (n_test, n_train), float32 or float64 as the attributor gave them, or `None`.
        fit_seconds: wall-clock seconds of the fit, which configurations with the same fit-stage values share.
        score_seconds: wall-clock seconds of scoring.
        peak_bytes: largest resident memory of the process since the fit began.
        notes: what the attributor says of the fit.
        details: for the attributor's author, where it failed: the last frames of its traceback, and what it printed.
        tokens: training example → scores of its tokens (length,), where they were asked for.
    """

    attributor: Described
    index: int
    hyperparameters: dict[str, HyperparameterValue]
    reason: str | None
    scores: Scores | None = None
    fit_seconds: float | None = None
    score_seconds: float | None = None
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()
    details: str = ""
    tokens: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)


@dataclass(frozen=True)
class Runner:
    """How attributors are run.

    Attributes:
        executor: where.
        display: gets the details of failures.
        known: names of attributors and selectors → which of them; a class in a file should leave them alone.
    """

    executor: Executor = field(default_factory=OwnProcess)
    display: Display = field(default_factory=Silent)
    known: Mapping[str, str] = field(default_factory=dict, compare=False)
    _taken: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    def warn_of_taken(self, name: str) -> None:
        """Say once that a class in a file has a known name: its records would be taken for those of the known one."""
        if name in self.known and name not in self._taken:
            self._taken.add(name)
            known = f"{name} is the name of a known {self.known[name]}"
            self.display.note(f"warning: {known}; give the class in your file a name of its own")

    @contextmanager
    def open(self, job: Job, listen: Listen | None = None) -> Iterator["Attribution"]:
        """A job's attributor, described, ready to run; one worker does both.

        Args:
            job: its checkpoints' path must be absolute.
            listen: called with the progress of each fit and scoring.

        Raises:
            InputError: it does not import, or does not have the job's hyperparameters.
        """
        attribution = Attribution(self, job, listen or (lambda event: None))
        try:
            yield attribution
        finally:
            attribution.close()

    def describe(self, job: Job) -> Described:
        """What a job's attributor says of itself, with the job's configurations completed; see `open`."""
        with self.open(job) as attribution:
            return attribution.described

    def run(self, job: Job, listen: Listen | None = None) -> Iterator[Outcome | Selected]:
        """Open a job's attributor and run the job's configurations; see `open` and `Attribution.run`."""
        with self.open(job, listen) as attribution:
            yield from attribution.run()


DEFAULT_RUNNER = Runner()
"""A process of its own, without limits, and silent."""


def shown(progress: Progress) -> Listen:
    """What shows how far one fit or scoring is."""

    def listen(event: Progressed) -> None:
        progress.say(event.text)
        progress(event.done, event.total)

    return listen


def said(progress: Progress) -> Listen:
    """What says how far one of several fits or scorings is, where the progress is that of all."""

    def listen(event: Progressed) -> None:
        progress.say(f"{event.text or 'steps'}: {event.done} of {event.total}")

    return listen


class Attribution:
    """An attributor that was opened for a job: what it says of itself, and the means to run it.

    Args:
        runner: how it is run.
        job: which, and on what.
        listen: called with the progress of each fit and scoring.

    Attributes:
        described: what it says of itself, with the job's configurations completed.
        job: the job.
        limits: of its worker.
    """

    def __init__(self, runner: Runner, job: Job, listen: Listen) -> None:
        self.limits = runner.executor.limits
        self.job = job.model_copy(update={"memory_limit": self.limits.bytes, "time_limit": self.limits.seconds})
        self._runner, self._listen = runner, listen
        self._session: _Session | None = None
        self._shown: set[str] = set()
        try:
            found = self._ready().described
            complete = tuple(map(found.configure, job.configurations))
        except BaseException:
            self.close()
            raise
        known: dict[str, object] = {"configurations": complete}
        if job.attributor.origin == "file":  # other people's code may say anything of itself
            known["code_sha256"] = digest_file(Path(job.attributor.location))
            runner.warn_of_taken(found.name)
        self.described = found.model_copy(update=known)

    def close(self) -> None:
        """End the worker."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _ready(self) -> "_Session":
        if self._session is None:
            self._session = _Session(self._runner.executor, self.job, self._listen)
        return self._session

    def run(
        self, configurations: Sequence[Configuration] | None = None, candidates: Candidates | None = None
    ) -> Iterator[Outcome | Selected]:
        """Run configurations; yields outcomes and selectors' choices as they come.

        A configuration in which the worker dies, or exceeds a limit, has failed; the others go on in a new one.

        Args:
            configurations: complete ones; by default the job's.
            candidates: hyperparameter → values that selectors choose from; the attributor's own grid where absent.

        Raises:
            InputError: the job cannot be run at all, whatever the configuration.
        """
        everything = list(self.described.configurations if configurations is None else configurations)
        waiting = list(range(len(everything)))
        selected: set[tuple[str, int]] = set()
        finished: set[int] = set()  # a new worker's selectors may choose what an earlier worker finished
        registered = {spec.name for spec in self.job.selectors if spec.origin != "file"}
        while waiting:
            numbers = waiting  # position in this plan → position in the whole
            plan = Plan(configurations=tuple(everything[n] for n in numbers), candidates=dict(candidates or {}))
            session = self._ready()
            for event in session.work(plan):
                if isinstance(event, Selected):
                    choice = _renumbered(event, numbers, everything)
                    if not {(choice.selector, number) for number in choice.configurations} & selected:
                        selected |= {(choice.selector, number) for number in choice.configurations}
                        if choice.selector not in registered:
                            self._runner.warn_of_taken(choice.selector)
                        yield choice
                elif (number := numbers[event.configuration]) not in finished:
                    finished.add(number)
                    yield self._shown_outcome(session.outcome(event, self.described, number, everything[number]))
            for position in session.busy_at_the_end():
                if (number := numbers[position]) not in finished:
                    finished.add(number)
                    failed = Outcome(self.described, number, everything[number], session.death())
                    yield self._shown_outcome(replace(failed, details=session.details("")))
            if not session.waits:
                self.close()
            waiting = [number for number in numbers if number not in finished]

    def _shown_outcome(self, outcome: Outcome) -> Outcome:
        """The outcome; what its failure has to say to the attributor's author is shown once."""
        if outcome.details and outcome.details not in self._shown:
            self._shown.add(outcome.details)
            self._runner.display.note(f"{self.described.name} failed:\n{outcome.details}")
        return outcome


def _renumbered(event: Selected, numbers: list[int], everything: list[Configuration]) -> Selected:
    """A choice in the whole's numbers; a configuration that the worker added is added to the whole."""
    group = tuple(numbers[position] for position in event.configurations)
    position = event.configuration
    if position is not None and position == len(numbers):
        complete = everything[group[0]] | event.values
        if complete not in everything:
            everything.append(complete)
        numbers.append(everything.index(complete))
    number = None if position is None else numbers[position]
    return event.model_copy(update={"configurations": group, "configuration": number})


def _believable(event: Event, waiting: set[int], known: int) -> bool:
    """Whether what is finished was waited for, and a choice is among the configurations that there are, or the next."""
    match event:
        case Finished():
            return event.configuration in waiting
        case Selected(configurations=group, configuration=chosen):
            return all(0 <= c < known for c in group) and (chosen is None or 0 <= chosen <= known)
    return True


class _Session:
    """One worker from its start to its end.

    Attributes:
        described: what its attributor says of itself.
        waits: whether it waits for a plan.
    """

    def __init__(self, executor: Executor, job: Job, listen: Listen) -> None:
        self._name = job.attributor.name
        self._busy: set[int] = set()
        self._finished = 0
        self.waits = False
        # What it started may still write while the folder goes.
        self._temporary = tempfile.TemporaryDirectory(prefix="attriboard-", ignore_cleanup_errors=True)
        folder = Folder(Path(self._temporary.name))
        folder.results.mkdir()
        folder.job.write_text(job.model_dump_json(), encoding="utf-8")
        try:
            self._worker = executor.start(folder, listen)
        except BaseException:
            self._temporary.cleanup()
            raise
        self._results = Results(folder, job, self._worker.trusted)
        try:
            self.described = self._described()
        except BaseException:
            self.close()
            raise

    def _described(self) -> Described:
        for event in self._worker.events():
            if isinstance(event, Refused):
                raise InputError(event.message)
            if isinstance(event, Described):
                return event
        raise self._ended_early()

    def close(self) -> None:
        """End the worker with everything it started."""
        self._worker.close()
        self._temporary.cleanup()

    def work(self, plan: Plan) -> Iterator[Selected | Finished]:
        """What the worker reports of a plan until it is done, or gone.

        Raises:
            InputError: it refuses the job.
        """
        self._busy, self._finished, self.waits = set(), 0, False
        self._worker.send(plan)
        waiting, known = set(range(len(plan.configurations))), len(plan.configurations)
        for event in self._worker.events():
            if not _believable(event, waiting, known):
                self._worker.disbelieve()
                return
            match event:
                case Refused():
                    raise InputError(event.message)
                case Began():
                    self._busy = set(event.configurations)
                case Finished():
                    waiting.discard(event.configuration)
                    self._busy.discard(event.configuration)
                    self._finished += 1
                    yield event
                case Selected():
                    if event.configuration == known:
                        waiting.add(known)
                        known += 1
                    yield event
                case Done():
                    self.waits = True

    def outcome(self, event: Finished, described: Described, number: int, hyperparameters: Configuration) -> Outcome:
        """A finished configuration with its scores."""
        scores, reason = None, event.reason
        tokens: Mapping[int, NDArray[np.float64]] = {}
        if reason is None:
            try:
                scores = self._results.scores(event.configuration)
                tokens = self._results.tokens(event.configuration)
            except (OSError, FormatError, TypeError, ValueError) as error:
                scores, reason = None, f"crash: it reported scores and left none that can be read: {error}"
        return Outcome(
            described,
            number,
            hyperparameters,
            reason,
            scores,
            event.fit_seconds,
            event.score_seconds,
            event.peak_bytes,
            event.notes,
            self.details(event.traceback) if event.traceback else "",
            tokens,
        )

    def busy_at_the_end(self) -> list[int]:
        """Positions it was working on when it died.

        Raises:
            InputError: it died before it worked on anything.
        """
        if not self.waits and not self._finished and not self._busy:
            raise self._ended_early()
        return [] if self.waits else sorted(self._busy)

    def _ended_early(self) -> InputError:
        """The error for a worker that got nowhere."""
        return InputError(f"attributor {self._name!r}: its process ended before any result; {self._worker.death()}")

    def death(self) -> str:
        """Why it ended before its work did."""
        return self._worker.death()

    def details(self, traceback: str) -> str:
        """What the attributor's author needs to know of a failure."""
        printed = self._worker.printed()[-MAX_PRINTED:]
        return "\n".join([*([traceback] if traceback else []), *(["it printed:", *printed] if printed else [])])
