"""What passes between the runner and the process that runs an attributor: JSON one way, JSON and tensors back."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from attriboard.attribution.plugins import PluginSpec
from attriboard.base.digests import digest_file
from attriboard.contracts.attributor import Curvature, HyperparameterValue
from attriboard.contracts.task import TaskSpec


class _Message(BaseModel):
    # NaN and infinity travel as they are, so that whoever judges a hyperparameter sees what was asked.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class Job(_Message):
    """Everything the process is told.

    Attributes:
        task, attributor: what to run.
        configurations: hyperparameter values, one score matrix each; the process completes them with the
            defaults and reads texts as on the command line, since only it imports the attributor.
        checkpoints: path of the task's checkpoint bundle.
        device, seed, threads: of the run.
        selectors: to run on every fit, each of which may add a configuration.
        donors: whose spectrum selectors get where the attributor has none, by the matrix that it adds λ to.
        candidates: hyperparameter → values that selectors choose from; the attributor's own grid where absent.
        memory_limit: bytes that the process may have resident; what declares that it needs more is not begun.
        queries: whose targets are attributed: the test points', or, for self-influence, the training examples' own.
        describe_only: import the attributor, complete the configurations, and end.
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
    candidates: dict[str, tuple[float, ...]] = {}
    memory_limit: int | None = None
    queries: Literal["test", "train"] = "test"
    describe_only: bool = False

    @property
    def checkpoints_sha256(self) -> str:
        """Digest of the checkpoint bundle, which is read once as long as the file is the same."""
        status = self.checkpoints.stat()
        return _digest(self.checkpoints, status.st_size, status.st_mtime_ns)


class Described(_Message):
    """The attributor is imported; comes first.

    Attributes:
        name, paper, family: of the class.
        code_sha256: of the file that defines it.
        configurations: complete hyperparameter values.
        grids: hyperparameter → values worth sweeping.
    """

    event: Literal["described"] = "described"
    name: str
    paper: str
    family: str
    code_sha256: str
    configurations: tuple[dict[str, HyperparameterValue], ...]
    grids: dict[str, tuple[HyperparameterValue, ...]]


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
        objective: what it minimised, per candidate.
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
        configuration: its position: of the job's first, then those that selectors added.
        reason: `None`, or why it failed: `category: text`.
        fit_seconds, score_seconds: wall-clock time of the two stages.
        peak_bytes: largest resident memory since the fit began.
        notes: what the attributor says of the fit.
    """

    event: Literal["finished"] = "finished"
    configuration: int
    reason: str | None = None
    fit_seconds: float | None = None
    score_seconds: float | None = None
    peak_bytes: int | None = None
    notes: tuple[str, ...] = ()


class Refused(_Message):
    """The job cannot be run at all: the attributor does not import, the data is missing."""

    event: Literal["refused"] = "refused"
    message: str


Event = Annotated[Described | Began | Selected | Finished | Refused, Field(discriminator="event")]


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

    def scores(self, configuration: int) -> Path:
        """Score matrix of one configuration: safetensors with one tensor, `scores` (n_test, n_train) float32."""
        return self.path / f"scores-{configuration}.safetensors"


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    return digest_file(path)
