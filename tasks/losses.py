"""Losses by name for tasks that are defined in Python: values per example, margins, demands on data.

    cross_entropy          logits (n, …, n_classes), classes (n, …):  mean over positions of −log softmax(z)_y
    binary_cross_entropy   logits and 0/1 answers of one shape:       mean over labels of log(1 + exp(−(2y − 1) z))
    squared_error          predictions and answers of one shape:      mean over outputs of (ŷ − y)²

The margin is the log-odds of the right answer: z_y − logsumexp of the others for classes (Park et al. 2023, arXiv
2303.14186, section 3.3), (2y − 1) z for one binary answer. A squared error and several binary answers have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attriboard.base.errors import InputError

if TYPE_CHECKING:
    import torch

    PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class NamedLoss:
    """A loss by name.

    Attributes:
        loss: (outputs, targets) → (n,).
        margin: (outputs, targets) → (n,); `None` where there is none.
        correct: (outputs, targets) → (n,) of 0 and 1; `None` where predictions are neither right nor wrong.
        check: raises `InputError` where outputs of the model and targets do not go together.
        prepare: targets as the loss takes them.
    """

    loss: PerExample
    margin: PerExample | None
    correct: PerExample | None
    check: Callable[[torch.Tensor, torch.Tensor], None]
    prepare: Callable[[torch.Tensor], torch.Tensor]


def cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """−log softmax(z)_y, mean over positions where there are several, (n,)."""
    return _per_example(outputs.logsumexp(-1) - _right(outputs, targets))


def class_margin(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Log-odds of the right class, (n,)."""
    others = outputs.scatter(-1, targets.unsqueeze(-1), float("-inf"))
    return _right(outputs, targets) - others.logsumexp(-1)


def right_class(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the largest logit is the right one, (n,)."""
    return (outputs.argmax(-1) == targets).float()


def binary_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log(1 + exp(−(2y − 1) z)), mean over labels, (n,)."""
    from torch.nn.functional import softplus

    return _per_example(softplus(-(2 * targets - 1) * outputs.reshape(targets.shape)))


def binary_margin(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(2y − 1) z of one label per example, (n,)."""
    return ((2 * targets - 1) * outputs.reshape(targets.shape)).reshape(len(targets))


def right_answer(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """1 where the logit has the answer's sign, (n,)."""
    return (binary_margin(outputs, targets) > 0).float()


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(ŷ − y)², mean over outputs, (n,)."""
    return _per_example((outputs.reshape(targets.shape) - targets) ** 2)


def _right(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return outputs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _per_example(values: torch.Tensor) -> torch.Tensor:
    return values if values.dim() == 1 else values.flatten(1).mean(1)


def _classes(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    if outputs.dim() < 2 or outputs.shape[:-1] != targets.shape:
        raise InputError(
            f"loss = cross_entropy: outputs {_shape(outputs)} and targets {_shape(targets)} do not go together; "
            "it takes logits (n, n_classes) and class numbers (n,): squeeze a column, take argmax(1) of one-hot rows"
        )
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= outputs.shape[-1]:
        raise InputError(
            f"targets {low} … {high}: the model has {outputs.shape[-1]} classes, numbered from 0; renumber the "
            "targets or widen the last layer"
        )


def _same_shape(name: str) -> Callable[[torch.Tensor, torch.Tensor], None]:
    def check(outputs: torch.Tensor, targets: torch.Tensor) -> None:
        if outputs.numel() != targets.numel() or len(outputs) != len(targets):
            raise InputError(
                f"loss = {name}: outputs {_shape(outputs)} and targets {_shape(targets)} do not go together; it "
                "takes one output for each target: widen or narrow the last layer"
            )
        if name == "binary_cross_entropy" and not bool(((targets == 0) | (targets == 1)).all()):
            raise InputError("loss = binary_cross_entropy: targets must be 0 or 1; for classes use cross_entropy")

    return check


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


LOSSES: dict[str, NamedLoss] = {
    "cross_entropy": NamedLoss(cross_entropy, class_margin, right_class, _classes, lambda targets: targets.long()),
    "binary_cross_entropy": NamedLoss(
        binary_cross_entropy, binary_margin, right_answer, _same_shape("binary_cross_entropy"), lambda t: t.float()
    ),
    "squared_error": NamedLoss(
        squared_error, None, None, _same_shape("squared_error"), lambda targets: targets.float()
    ),
}
