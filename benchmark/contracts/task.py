"""What a task is to the engine: its examples, its model, its functions, and how to bring it to life elsewhere."""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from weakref import WeakValueDictionary

from pydantic import BaseModel, ConfigDict

from attriboard.base.errors import InputError
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
        portable: whether another process can bring the task to life; else everything runs in this one.
    """

    measurements: ClassVar[tuple[str, ...]]
    measured_rows: ClassVar[int] = 1024
    portable: ClassVar[bool] = True

    def __init__(self, card: TaskCard) -> None:
        self.card = card

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

    @abstractmethod
    def build_model(self) -> torch.nn.Module:
        """A module of the card's architecture with arbitrary parameters (the engine initialises them)."""

    @property
    def trained(self) -> Sequence[Mapping[str, torch.Tensor]]:
        """States of models that were trained elsewhere, which attributors are given; empty where the recipe trains."""
        return ()

    def pretrained(self) -> Mapping[str, torch.Tensor] | None:
        """Parameters by name that every retrain starts from; `None` where the retrain's seed draws them.

        Raises:
            DataError: they are not to be had, or not the pinned ones.
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


LIVE = "live:"
"""Begins the reference of a task that no other process can import."""

_LIVE: WeakValueDictionary[str, Task] = WeakValueDictionary()


class TaskSpec(BaseModel):
    """How to bring the task to life elsewhere: its class and its card."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reference: str
    card: TaskCard

    @classmethod
    def of(cls, task: Task) -> TaskSpec:
        """The specification of a live task."""
        if task.portable:
            return cls(reference=f"{type(task).__module__}:{type(task).__qualname__}", card=task.card)
        key = f"{LIVE}{id(task):x}"
        _LIVE[key] = task
        return cls(reference=key, card=task.card)

    def load(self) -> Task:
        """The live task.

        Raises:
            InputError: it lives in another process.
        """
        if self.reference.startswith(LIVE):
            live = _LIVE.get(self.reference)
            if live is None:
                raise InputError(
                    f"task {self.card.name}: is defined in another process, and this one cannot import it; "
                    "define it in a "
                    "file, as in my_task.py"
                )
            return live
        task: Task = pkgutil.resolve_name(self.reference)(self.card)
        return task
