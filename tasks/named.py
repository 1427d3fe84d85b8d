"""Tasks whose loss has a name in `attriboard.tasks.losses`: the kinds `regression`, `binary` and `multilabel` of cards.

    kind         targets                       loss                                   margin
    regression   numbers, (n,) or (n, k)       mean over outputs of (ŷ − y)²          none
    binary       0 or 1, (n,)                  log(1 + exp(−(2y − 1) z))              (2y − 1) z
    multilabel   0 or 1, (n, n_labels)         the mean of these over labels          none

Where there is no margin, minus the loss is attributed, and `measure` gives it under that name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from attriboard.base.errors import CardError
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Dataset, Task
from attriboard.tasks.fitting import prepared
from attriboard.tasks.losses import LOSSES, NamedLoss
from attriboard.tasks.tabled import TabledTask

if TYPE_CHECKING:
    import torch

    PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LossMethods(Task):
    """Loss, margin, error and measurements of a task from one loss."""

    _named: NamedLoss | None
    _loss: PerExample

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The task's own loss, (n,)."""
        return self._loss(outputs, targets)

    def margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-odds of the right answer, (n,); minus the loss where the loss has no margin."""
        if self._has_margin(targets):
            assert self._named is not None, "only named losses have margins"
            assert self._named.margin is not None, "see `_has_margin`"
            return self._named.margin(outputs, targets)
        return -self._loss(outputs, targets)

    def error(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """−∂loss/∂margin, (n,): 1 − p, or 1 where the margin is minus the loss."""
        if self._has_margin(targets):
            return super().error(outputs, targets)
        return self._loss(outputs, targets).new_ones(len(targets))

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `measurements`."""
        found = {"loss": self.loss(outputs, targets), "margin": self.margin(outputs, targets)}
        if "correct" in self.measurements:
            assert self._named is not None, "only named losses know what is right"
            assert self._named.correct is not None, "who names `correct` has it"
            found["correct"] = self._named.correct(outputs, targets)
        if "target" in self.measurements:
            found["target"] = self.target(outputs, targets)
        return {name: values.float() for name, values in found.items()}

    def _has_margin(self, targets: torch.Tensor) -> bool:
        return self._named is not None and self._named.margin is not None and targets.dim() == 1


class NamedLossTask(LossMethods, TabledTask):
    """A card's task with a loss by name.

    Args:
        card: the validated card.
        folder: what paths in the card are relative to.

    Raises:
        CardError: see `TabledTask`; or a target that this kind does not have.
    """

    measurements: ClassVar[tuple[str, ...]] = ("loss", "margin")
    loss_name: ClassVar[str]

    def __init__(self, card: TaskCard, folder: Path | None = None) -> None:
        super().__init__(card, folder)
        self._named = LOSSES[self.loss_name]
        self._loss = self._named.loss
        if card.target == "margin" and "correct" not in self.measurements:
            raise CardError(f"target = margin: kind {card.kind} has no margin; use negative_loss")

    def load_data(self) -> Dataset:
        """The loader's examples, with targets as the loss takes them."""
        data = super().load_data()
        named = LOSSES[self.loss_name]
        return Dataset(prepared("train", data.train, named), prepared("test", data.test, named))


class RegressionTask(NamedLossTask):
    """Numbers; outputs as many as targets."""

    loss_name = "squared_error"


class BinaryTask(NamedLossTask):
    """One answer of two; one logit for each example, (n,) or (n, 1)."""

    measurements = ("loss", "margin", "correct")
    loss_name = "binary_cross_entropy"


class MultilabelTask(NamedLossTask):
    """Several answers of two each; a logit for each, (n, n_labels)."""

    loss_name = "binary_cross_entropy"
