"""What a task is to the engine: its examples, its model, its functions, and how to bring it to life elsewhere."""

from __future__ import annotations

import pkgutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict

from attriboard.base.errors import InputError
from attriboard.base.modules import module_from_file
from attriboard.base.scripts import PREFIX, definitions
from attriboard.contracts.card import TaskCard

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Examples:
    """A batch of examples: `inputs` (n, *input_shape), `targets` (n, *target_shape)."""

    inputs: torch.Tensor
    targets: torch.Tensor

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def __getitem__(self, rows: slice | torch.Tensor) -> Examples:
        return Examples(self.inputs[rows], self.targets[rows])


@dataclass(frozen=True)
class Dataset:
    """A task's examples, preprocessed and ready for its model.

    Attributes:
        train, test: examples.
        mislabelled: (n_train,) bool, where the task gave training examples a wrong label on purpose; attributors do not
            see it.
    """

    train: Examples
    test: Examples
    mislabelled: torch.Tensor | None = None


class Task(ABC):
    """A task brought to life: its card with the data, the model and the functions that the card names.

    Args:
        card: the validated card.

    Attributes:
        measurements: names of what `measure` returns, at least `loss` and `margin`.
        measured_rows: test examples per forward pass after training, where outputs are large.
        home: `FILE.py:name` of a task that lives in a Python file; set by the code that loads it from there.
        parameters: glob patterns of the parameters that are attributed, such as `head.*`; all trained ones where empty.
    """

    measurements: ClassVar[tuple[str, ...]]
    measured_rows: ClassVar[int] = 1024
    home: str | None = None
    parameters: tuple[str, ...] = ()

    def __init__(self, card: TaskCard) -> None:
        self.card = card

    @cached_property
    def stays(self) -> str | None:
        """Why no other process can bring the task to life, so that all runs in this one; `None` where one can."""
        try:
            TaskSpec.of(self)
        except InputError as error:
            return str(error)
        return None

    @property
    def portable(self) -> bool:
        """Whether another process can bring the task to life; else everything runs in this one."""
        return self.home is not None or self.stays is None

    def saved(self) -> Path | None:
        """Folder with what the class and the card do not say, for `from_saved`; `None` where they say all."""
        return None

    def sources(self) -> Sequence[Path]:
        """Files beside that folder whose code the task needs."""
        return ()

    @classmethod
    def from_saved(cls, card: TaskCard, folder: Path) -> Task:
        """The task whose `saved` gave the folder.

        Raises:
            InputError: what the folder refers to is not what it was.
        """
        raise NotImplementedError(f"{cls.__name__} has a method `saved`, and needs `from_saved`")

    @property
    def score_shape(self) -> tuple[int, int]:
        """(n_test, n_train), the shape of a score matrix."""
        return self.card.data.n_test, self.card.data.n_train

    @abstractmethod
    def load_data(self) -> Dataset:
        """The preprocessed examples, from the first source that answers, checked against the card's digests.

        Raises:
            DataError: no source has the data, or the bytes are not the pinned ones.
        """

    @abstractmethod
    def data_available(self) -> bool:
        """Whether `load_data` would succeed without a download."""

    def text(self, inputs: torch.Tensor) -> str | None:
        """The text of one example, (length,) token numbers; `None` where nobody knows what the numbers mean."""
        return None

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """A module of the card's architecture with arbitrary parameters (the engine initializes them)."""

    @property
    def trained(self) -> Sequence[Mapping[str, torch.Tensor]]:
        """States of models that were trained elsewhere, which attributors are given; empty where the recipe trains."""
        return ()

    def pretrained(self) -> Mapping[str, torch.Tensor] | None:
        """Parameters by name that every retrain starts from; `None` where the retrain's seed draws them.

        Raises:
            DataError: they are unavailable, or not the pinned ones.
        """
        return None

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Per-example training loss, (n,), of model outputs."""

    @abstractmethod
    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """Everything a retrain is remembered by: each name in `measurements` → per-example values (n,) float32."""

    @abstractmethod
    def margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Per-example log-odds of the right answer, (n,); differentiable."""

    def error(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """−∂loss/∂margin of each example, (n,); 1 − p where the margin is a log-odds of p and the loss is −log p."""
        return (-self.margin(outputs, targets)).sigmoid()

    def target(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Per-example attributed function f, (n,), oriented so that higher is better."""
        if self.card.target == "margin":
            return self.margin(outputs, targets)
        if self.card.target == "negative_loss":
            return -self.loss(outputs, targets)
        raise NotImplementedError(f"task {self.card.name}: target = own needs a method `target`")


LIVE, FILE = "live:", "file:"
"""Begin the references of a task that no other process can import, and of one in a Python file."""

_LIVE: WeakValueDictionary[str, Task] = WeakValueDictionary()


class TaskSpec(BaseModel):
    """How to bring the task to life elsewhere: its class and its card.

    Attributes:
        reference: of the class, `module:qualified name`.
        card: the card.
        script: path of the script that defines the class, where it is no module that can be imported.
        folder: what the class and the card do not say; see `Task.saved`.
        sources: files with code of the task's; see `Task.sources`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str
    card: TaskCard
    script: str | None = None
    folder: str | None = None
    sources: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: Task) -> TaskSpec:
        """The specification of a live task.

        Raises:
            InputError: another process cannot make the task from it.
        """
        if task.home is not None:
            return cls(reference=f"{FILE}{task.home}", card=task.card)
        kind = type(task)
        module, name = kind.__module__, kind.__qualname__
        what = f"task {task.card.name}: its class {name}"
        if "<locals>" in name:
            raise InputError(f"{what} is defined inside a function; define it at the top level of a .py file")
        if module == "__main__" or module.startswith(PREFIX):
            path = getattr(sys.modules[module], "__file__", None)
            if path is None or not Path(path).is_file():
                raise InputError(
                    f"{what} is defined in a notebook or an interactive session, where no other process finds it; put "
                    "it into a .py file and import it"
                )
            script = str(Path(path).absolute())
            kind = _resolved(definitions(Path(script), name), name)
        else:
            script = None
        if (folder := task.saved()) is not None:
            sources = tuple(map(str, task.sources()))
            return cls(reference=f"{module}:{name}", card=task.card, folder=str(folder), sources=sources)
        try:
            kind(task.card)
        except Exception as error:
            raise InputError(
                f"{what} cannot be made from the card alone ({type(error).__name__}: {error}); give its other "
                "arguments in a subclass"
            ) from error
        return cls(reference=f"{module}:{name}", card=task.card, script=script)

    @classmethod
    def here(cls, task: Task) -> TaskSpec:
        """The specification of a live task for a job that runs in this process, whatever the task."""
        if task.portable:
            return cls.of(task)
        key = f"{LIVE}{id(task):x}"
        _LIVE[key] = task
        return cls(reference=key, card=task.card)

    def load(self) -> Task:
        """The live task.

        Raises:
            InputError: it lives in another process, its script cannot be run, or begins work before it defines it, or
                its file defines another task each time.
        """
        if self.reference.startswith(LIVE):
            live = _LIVE.get(self.reference)
            if live is None:
                raise InputError(
                    f"task {self.card.name}: is defined in another process, and this one cannot import it; define it "
                    "in a file, as in my_task.py"
                )
            return live
        if self.reference.startswith(FILE):
            path, _, name = self.reference.removeprefix(FILE).rpartition(":")
            again = task_in_file(Path(path), name)
            if again.card.fingerprint != self.card.fingerprint:
                raise InputError(
                    f"task file {path}: every process runs it, and this one got another task than the first: its data "
                    "or card differs each time; seed what it draws at random, as in torch.manual_seed(0)"
                )
            return again
        name = self.reference.partition(":")[2]
        kind: Any = (
            pkgutil.resolve_name(self.reference)
            if self.script is None
            else _resolved(definitions(Path(self.script), name), name)
        )
        made: Task = kind(self.card) if self.folder is None else kind.from_saved(self.card, Path(self.folder))
        return made


def _resolved(found: Any, name: str) -> Any:
    for part in name.split("."):
        found = getattr(found, part)
    return found


def task_in_file(path: Path, name: str = "") -> Task:
    """The task of a Python file: a module-level `Task`, or a `Task` subclass that takes no arguments.

    Args:
        path: a `.py` file.
        name: which one, where the file has several; `task` by default.

    Raises:
        InputError: no such file or name, none or several tasks, or importing it raised something.
    """
    try:
        found = _named(path.resolve(), path.stat().st_mtime_ns if path.is_file() else 0)
    except InputError:
        raise
    except Exception as error:  # it is the user's own code
        raise InputError(f"task file {path}: importing it raised {type(error).__name__}: {error}") from error
    if not name:
        name = "task" if "task" in found else next(iter(found), "") if len(found) == 1 else ""
    if name not in found:
        has = ", ".join(found) or "none"
        wanted = f"has no task {name!r}" if name else "must define one task"
        raise InputError(f"task file {path}: {wanted}; it has {has}; name one of several as in {path.name}:NAME")
    task = found[name]() if isinstance(found[name], type) else found[name]
    assert isinstance(task, Task), "only tasks are found"
    task.home = f"{path.resolve()}:{name}"
    return task


@lru_cache(maxsize=8)
def _named(path: Path, changed: int) -> dict[str, Any]:
    """Tasks and classes of tasks that a file defines, by name; the file is run once as long as it is the same."""
    module = module_from_file(path, "task")
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Task)
        or (isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__)
    }
