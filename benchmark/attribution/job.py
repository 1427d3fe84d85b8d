"""What passes between the runner and the process that runs an attributor: JSON one way, JSON and tensors back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from attriboard.cards import TaskCard
from attriboard.contracts import Attributor, HyperparameterValue, Task
from attriboard.errors import InputError
from attriboard.registry import load_plugin_file, resolve_reference

__all__ = [
    "AttributorSpec",
    "Began",
    "Described",
    "Event",
    "Finished",
    "Folder",
    "Job",
    "Refused",
    "TaskSpec",
]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskSpec(_Message):
    """How to bring the task to life elsewhere: its class and its card."""

    reference: str
    card: TaskCard

    @classmethod
    def of(cls, task: Task) -> "TaskSpec":
        """The specification of a live task."""
        return cls(reference=f"{type(task).__module__}:{type(task).__qualname__}", card=task.card)

    def load(self) -> Task:
        """The live task."""
        task: Task = resolve_reference(self.reference)(self.card)
        return task


class AttributorSpec(_Message):
    """Where an attributor's code is: a reference `module:class`, or a Python file."""

    name: str
    origin: Literal["builtin", "entry_point", "file"]
    location: str

    def load(self) -> type[Attributor]:
        """Import the class.

        Raises:
            InputError: it does not import or is no attributor.
        """
        if self.origin == "file":
            base: Any = Attributor  # abstract, which `type[T]` does not admit
            loaded_file: type[Attributor] = load_plugin_file(Path(self.location), base, "attributor")
            return loaded_file
        loaded = resolve_reference(self.location)
        if not (isinstance(loaded, type) and issubclass(loaded, Attributor)):
            raise InputError(f"attributor {self.name!r}: {self.location} is no subclass of attriboard's Attributor")
        return loaded


class Job(_Message):
    """Everything the process is told.

    Attributes:
        task, attributor: what to run.
        configurations: hyperparameter values, one score matrix each; the process completes them with the
            defaults and reads texts as on the command line, since only it imports the attributor.
        checkpoints: path of the task's checkpoint bundle.
        device, seed, threads: of the run.
    """

    task: TaskSpec
    attributor: AttributorSpec
    configurations: tuple[dict[str, HyperparameterValue], ...]
    checkpoints: Path
    device: str
    seed: int
    threads: int


class Described(_Message):
    """The attributor is imported; comes first.

    Attributes:
        name, paper, family: of the class.
        code_sha256: of the file that defines it.
        configurations: complete hyperparameter values.
    """

    event: Literal["described"] = "described"
    name: str
    paper: str
    family: str
    code_sha256: str
    configurations: tuple[dict[str, HyperparameterValue], ...]


class Began(_Message):
    """Work on some configurations has started; if the process dies now, they are the ones that failed."""

    event: Literal["began"] = "began"
    configurations: tuple[int, ...]


class Finished(_Message):
    """A configuration is done.

    Attributes:
        configuration: its position in the job.
        reason: `None`, or why it failed: `category: text`.
        fit_seconds, score_seconds: wall-clock time of the two stages.
        peak_bytes: largest resident memory since the fit began.
    """

    event: Literal["finished"] = "finished"
    configuration: int
    reason: str | None = None
    fit_seconds: float | None = None
    score_seconds: float | None = None
    peak_bytes: int | None = None


class Refused(_Message):
    """The job cannot be run at all: the attributor does not import, the data is missing."""

    event: Literal["refused"] = "refused"
    message: str


Event = Annotated[Described | Began | Finished | Refused, Field(discriminator="event")]


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
