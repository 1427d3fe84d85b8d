"""What passes between the runner and the worker that runs an attributor: JSON one way, JSON and tensors back.

The worker is given a job and says which attributor that is (`Described`). Then it is given plans, one after another,
and reports on each until it is `Done`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from attriboard.attribution.plugins import PluginSpec
from attriboard.base.digests import digest_file
from attriboard.contracts.attributor import Curvature, Hyperparameter
from attriboard.contracts.card import CheckpointSpec
from attriboard.contracts.hyperparameter import HyperparameterValue, Stage, completed
from attriboard.contracts.selector import Choice
from attriboard.contracts.task import TaskSpec


class _Message(BaseModel):
    # NaN and infinity travel as they are, so that a check of a hyperparameter sees what was asked.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Tokens(_Message):
    """Scores of tokens are wanted, of the training examples that help and harm most.

    Attributes:
        tests: test points whose scores are averaged.
        k: how many examples of either kind.
    """

    tests: tuple[int, ...]
    k: int


class Donated(_Message):
    """What a selector chose on a donor's spectrum in a finished run.

    Attributes:
        donor, code_sha256, hyperparameters: which method that was, of which code, with which complete values.
        selector: its name.
        candidates: what it chose from, ascending.
        choice: what it chose.
        seconds: of the donor's fit and of choosing.
    """

    donor: str
    code_sha256: str
    hyperparameters: dict[str, HyperparameterValue]
    selector: str
    candidates: tuple[float, ...]
    choice: Choice
    seconds: float


class Job(_Message):
    """What is run, and on what.

    Attributes:
        task, attributor: what to run.
        configurations: hyperparameter values that differ from the defaults, one score matrix each; texts are read as on
            the command line, once the attributor has said which hyperparameters it has.
        checkpoints: path of the task's checkpoint bundle.
        device, seed, threads: of the run.
        selectors: to run on every fit, each of which may add a configuration.
        donors: whose spectrum selectors get where the attributor has none, by the matrix that it adds λ to.
        donated: what selectors chose on donors' spectra before; such a donor is not fitted again.
        memory_limit: bytes that the process may have resident; what declares that it needs more is not begun.
        time_limit: seconds that the process may take; what declares that it needs more is not begun.
        queries: whose targets are attributed: the test points', or, for self-influence, the training examples' own.
        parameters: glob patterns of the attributed parameters; the task's own where empty.
        tokens: whose tokens get scores too.
    """

    task: TaskSpec
    attributor: PluginSpec
    configurations: tuple[dict[str, HyperparameterValue], ...]
    checkpoints: Path
    device: str = "cpu"
    seed: int = 0
    threads: int = 1
    selectors: tuple[PluginSpec, ...] = ()
    donors: dict[Curvature, PluginSpec] = {}
    donated: tuple[Donated, ...] = ()
    memory_limit: int | None = None
    time_limit: float | None = None
    queries: Literal["test", "train"] = "test"
    parameters: tuple[str, ...] = ()
    tokens: Tokens | None = None

    @property
    def checkpoints_sha256(self) -> str:
        """Digest of the checkpoint bundle, which is read once as long as the file is the same."""
        status = self.checkpoints.stat()
        return _digest(self.checkpoints, status.st_size, status.st_mtime_ns)


class Confinement(_Message):
    """What the worker's process gives up before it imports anything of other people's; nothing gets it back.

    Attributes:
        user: whose id it takes where it starts as root.
        processes: processes and threads of that user.
        file_bytes: of each file.
    """

    user: int | None
    processes: int | None
    file_bytes: int | None


class Plan(_Message):
    """What the worker is to do now.

    Attributes:
        configurations: complete hyperparameter values.
        candidates: hyperparameter → values that selectors choose from; the attributor's own grid where absent.
    """

    configurations: tuple[dict[str, HyperparameterValue], ...]
    candidates: dict[str, tuple[float, ...]] = {}


class Knob(_Message):
    """A hyperparameter on its way between processes; see `Hyperparameter` for its fields."""

    name: str
    default: HyperparameterValue
    source: str
    stage: Stage
    grid: tuple[HyperparameterValue, ...]
    type: Literal["float", "int", "str", "bool"]
    optional: bool
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]
    description: str
    aliases: tuple[str, ...]

    @classmethod
    def of(cls, hyperparameter: Hyperparameter) -> Self:
        """What is sent of a hyperparameter."""
        assert hyperparameter.type is not None
        fields: dict[str, Any] = asdict(hyperparameter)
        return cls(**{**fields, "type": hyperparameter.type.__name__})

    def hyperparameter(self) -> Hyperparameter:
        """The hyperparameter as it was."""
        types: dict[str, type] = {"float": float, "int": int, "str": str, "bool": bool}
        return Hyperparameter(**{**dict(self), "type": types[self.type]})


def on_task(table: Sequence[Hyperparameter], models: CheckpointSpec) -> list[Hyperparameter]:
    """A method's table where a task has fewer models than its default averages: there the default is all of them.

    Args:
        table: the method's.
        models: how many the task has, trained on all data and on random subsets.
    """
    half = any(hp.name == "checkpoint_data" and hp.default == "half" for hp in table)
    there = (models.half if half else 0) or models.full
    return [
        replace(hp, default=there, source=f"{hp.source}; this task has {there}")
        if hp.name == "checkpoints" and isinstance(hp.default, int) and there < hp.default
        else hp
        for hp in table
    ]


class Described(_Message):
    """The attributor is imported; comes first.

    Attributes:
        name, paper, family: of the class.
        code_sha256: of the file that defines it.
        knobs: its hyperparameters.
        configurations: the job's, complete.
    """

    event: Literal["described"] = "described"
    name: str
    paper: str = ""
    family: str = "other"
    code_sha256: str
    knobs: tuple[Knob, ...] = ()
    configurations: tuple[dict[str, HyperparameterValue], ...] = ()

    @property
    def hyperparameters(self) -> tuple[Hyperparameter, ...]:
        """Its table of hyperparameters."""
        return tuple(knob.hyperparameter() for knob in self.knobs)

    def configure(self, values: Mapping[str, Any]) -> dict[str, HyperparameterValue]:
        """Complete a configuration; see `Attributor.configure`.

        Raises:
            HyperparameterError: a name that this attributor does not have, or a value out of range.
        """
        return completed(self.name, self.hyperparameters, values)

    def own_name(self, name: str) -> str:
        """What the attributor calls a hyperparameter that goes by this name or alias."""
        return next((knob.name for knob in self.knobs if name in knob.aliases), name)

    def grid(self, name: str) -> tuple[HyperparameterValue, ...]:
        """The values of a hyperparameter that are worth sweeping; none where it does not have it."""
        return next((knob.grid for knob in self.knobs if knob.name == name), ())


class Began(_Message):
    """Work on some configurations has started; if the process dies now, they are the ones that failed."""

    event: Literal["began"] = "began"
    configurations: tuple[int, ...]


class Selected(_Message):
    """A selector has chosen, or could not.

    Attributes:
        selector: its name.
        hyperparameter: what it chooses, under the attributor's name.
        configurations: positions of the configurations that share the fit it was given.
        configuration: position of the configuration that it chose, which may be a new one; `None` with a reason.
        values: the hyperparameters that it changes.
        transferred: whether the spectrum was a donor's.
        candidates: what it chose from, ascending.
        criterion: the quantity it looked at, per candidate.
        objective: what it minimized, per candidate.
        note: one sentence for the record.
        seconds: of choosing, with the donor's fit where there was one, without the attributor's own.
        reason: why it could not: `category: text`.
    """

    event: Literal["selected"] = "selected"
    selector: str
    hyperparameter: str = "regularization"
    configurations: tuple[int, ...] = ()
    configuration: int | None = None
    values: dict[str, HyperparameterValue]
    transferred: bool
    candidates: tuple[float, ...]
    criterion: tuple[float, ...] | None
    objective: tuple[float, ...] | None
    note: str
    seconds: float
    reason: str | None


class Finished(_Message):
    """A configuration is done.

    Attributes:
        configuration: its position: of the plan's first, then those that selectors added.
        reason: `None`, or why it failed: `category: text`.
        traceback: where it failed in the attributor's own code: file, line and text of the last frames.
        fit_seconds, score_seconds: wall-clock time of the two stages.
        peak_bytes: largest resident memory since the fit began.
        notes: what the attributor says of the fit.
    """

    event: Literal["finished"] = "finished"
    configuration: int
    reason: str | None = None
    traceback: str = ""
    fit_seconds: float | None = None
    score_seconds: float | None = None
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()


class Refused(_Message):
    """The job cannot be run at all: the attributor does not import, the data is missing."""

    event: Literal["refused"] = "refused"
    message: str


class Progressed(_Message):
    """How far a fit or a scoring is.

    Attributes:
        done, total: steps.
        text: what the steps are.
    """

    event: Literal["progressed"] = "progressed"
    done: int
    total: int
    text: str = ""


class Done(_Message):
    """The plan is worked off; the worker waits for another one."""

    event: Literal["done"] = "done"


Event = Annotated[Described | Began | Selected | Finished | Refused | Progressed | Done, Field(discriminator="event")]


@dataclass(frozen=True)
class Folder:
    """File names inside the folder that the two processes share."""

    path: Path

    @property
    def job(self) -> Path:
        """The job, JSON."""
        return self.path / "job.json"

    @property
    def log(self) -> Path:
        """Whatever the attributor printed."""
        return self.path / "log.txt"

    @property
    def results(self) -> Path:
        """The folder that the worker writes to."""
        return self.path / "scores"

    def scores(self, configuration: int) -> Path:
        """Scores of one configuration: safetensors, one tensor `scores` (n_test, n_train), float32 or float64."""
        return self.results / f"{configuration}.safetensors"

    def tokens(self, configuration: int) -> Path:
        """Scores of tokens: safetensors, `examples` (m,) and `scores` (m, length)."""
        return self.results / f"tokens-{configuration}.safetensors"


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    return digest_file(path)
