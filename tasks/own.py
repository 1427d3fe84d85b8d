"""Tasks of your own: model, data and loss from Python, with nothing to install and nothing to subclass.

A defined task's identity is its content. The fingerprint hashes the bytes of the data, the names and shapes of the
model's parameters, the recipe and the names of loss and target. What code computes cannot be hashed; `probes` are
numbers of it, which the store of retrains compares within a tolerance.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import InputError
from attriboard.base.schema import TASK_NAME
from attriboard.contracts.card import UNTRAINED, Recipe, TaskCard, load_card
from attriboard.contracts.context import matching_parameters
from attriboard.contracts.task import Dataset
from attriboard.tasks.examples import read_examples
from attriboard.tasks.fitting import check_fit, check_recipe, prepared, read_models
from attriboard.tasks.losses import LOSSES, NamedLoss
from attriboard.tasks.named import LossMethods
from attriboard.tasks.saving import Definition, read_definition, write_definition

if TYPE_CHECKING:
    import torch

    PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class DefinedTask(LossMethods):
    """A task from `define_task`; other processes make it again where they find its functions by name.

    Args:
        definition: what it is.
    """

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition.card)
        self._definition = definition
        self._folder: Path | None = None
        self._sources: tuple[Path, ...] = ()
        loss = definition.loss
        self._named = loss if isinstance(loss, NamedLoss) else None
        self._loss = loss.loss if isinstance(loss, NamedLoss) else loss
        names = ["loss", "margin"]
        if self._named and self._named.correct and definition.data.test.targets.dim() == 1:
            names.append("correct")
        if definition.target is not None:
            names.append("target")
        self.measurements = tuple(names)  # type: ignore[misc]  # of this task, not of the class

    def saved(self) -> Path:
        """A folder with data and models as tensors and functions by name, which goes when the task does.

        Raises:
            InputError: another process would not find its functions, or not the same ones.
        """
        if self._folder is None:
            folder = Path(mkdtemp(prefix="attriboard-task-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            self._sources = write_definition(self._definition, folder)
            self._folder = folder
        return self._folder

    def sources(self) -> list[Path]:
        """Scripts and modules that define its functions."""
        return list(self._sources)

    @classmethod
    def from_saved(cls, card: TaskCard, folder: Path) -> DefinedTask:
        """See `Task.from_saved`."""
        return cls(read_definition(card, folder))

    @property
    def trained(self) -> tuple[Mapping[str, torch.Tensor], ...]:
        """States of models that were trained elsewhere."""
        return self._definition.trained

    def load_data(self) -> Dataset:
        """The examples that the task was defined with."""
        return self._definition.data

    def data_available(self) -> bool:
        """Always."""
        return True

    def text(self, inputs: torch.Tensor) -> str | None:
        """The tokens of one example, joined by spaces; `None` without a vocabulary that has them all."""
        words = self._definition.vocabulary
        numbers = inputs.flatten().tolist()
        return " ".join(words[n] for n in numbers) if all(0 <= n < len(words) for n in numbers) else None

    def build_model(self) -> torch.nn.Module:
        """A new model, or a copy of the trained one."""
        return self._definition.build()

    def target(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The attributed function, (n,)."""
        if self._definition.target is not None:
            return self._definition.target(outputs, targets)
        return super().target(outputs, targets)


def define_task(
    name: str,
    *,
    model: Callable[[], torch.nn.Module] | torch.nn.Module,
    train: Any,
    test: Any,
    loss: str | PerExample = "cross_entropy",
    target: str | PerExample | None = None,
    recipe: Recipe | None = None,
    checkpoints: Sequence[torch.nn.Module | Mapping[str, torch.Tensor]] = (),
    vocabulary: Sequence[str] = (),
    parameters: str | Sequence[str] = (),
) -> DefinedTask:
    """A task from a model, data and a loss; takes what it is given or says at once what does not fit.

    Args:
        name: lower-case letters, digits and underscores.
        model: a function without arguments that builds a new model; or a trained model, which can be attributed but not
            retrained.
        train: inputs and targets; see `attriboard.tasks.examples.read_examples` for the forms.
        test: the examples whose targets are attributed.
        loss: `cross_entropy`, `binary_cross_entropy`, `squared_error`, or a function (outputs, targets) → (n,).
        target: `margin`, `negative_loss`, or a function (outputs, targets) → (n,), higher is better. By default the
            margin of `cross_entropy`, else minus the loss.
        recipe: how a model is trained; without one, nothing can be retrained.
        checkpoints: trained models, or their state dicts, that attributors are given. By default the models that the
            recipe trains, or the trained model itself.
        vocabulary: token number → token, where inputs are text; for people who look at examples.
        parameters: glob patterns of the parameters that are attributed, such as `"head.*"`; by default all that are
            trained. No influence on training.

    Raises:
        InputError: a name, an example, a loss, a target or a model that does not fit the others; the message says
            what to change.
    """
    if not re.fullmatch(TASK_NAME, name):
        raise InputError(f"name = {name!r}: must be lower-case letters, digits and underscores, as in my_task")
    build, states = read_models(model, checkpoints)
    check_recipe(recipe, model, len(states))
    named = _loss(loss)
    sides = [prepared(side, read_examples(side, given), named) for side, given in (("train", train), ("test", test))]
    data = Dataset(sides[0], sides[1])
    chosen, own = _target(loss, named, target, data.train.targets)
    probe = build()
    check_fit(probe, data, named, own)
    card = _card(name, data, probe, loss if isinstance(loss, str) else "own", chosen, recipe, len(states))
    task = DefinedTask(Definition(card, build, data, named, own, states, tuple(vocabulary)))
    task.parameters = (parameters,) if isinstance(parameters, str) else tuple(parameters)
    matching_parameters(probe, task.parameters)
    return task


def _loss(loss: Any) -> NamedLoss | PerExample:
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise InputError(f"loss = {loss!r}: must be {', '.join(LOSSES)}, or a function (outputs, targets) → (n,)")
        return LOSSES[loss]
    if not callable(loss):
        raise InputError(f"loss of type {type(loss).__name__}: must be a name or a function (outputs, targets) → (n,)")
    function: PerExample = loss
    return function


def _target(
    loss: Any, named: NamedLoss | PerExample, target: Any, targets: torch.Tensor
) -> tuple[str, PerExample | None]:
    """The card's word for the target, and the function where it is the task's own."""
    has_margin = isinstance(named, NamedLoss) and named.margin is not None and targets.dim() == 1
    if target is None:
        return ("margin" if loss == "cross_entropy" and has_margin else "negative_loss"), None
    if callable(target):
        return "own", target
    if target not in ("margin", "negative_loss"):
        raise InputError(f"target = {target!r}: must be margin, negative_loss, or a function (outputs, targets) → (n,)")
    if target == "margin" and not has_margin:
        shown = loss if isinstance(loss, str) else "a function"
        raise InputError(
            f"target = margin: loss = {shown} has no margin here; use target='negative_loss' or a function"
        )
    return target, None


def _card(
    name: str, data: Dataset, model: torch.nn.Module, loss: str, target: str, recipe: Recipe | None, n_trained: int
) -> TaskCard:
    sizes = {"n_train": len(data.train), "n_test": len(data.test)}
    digests = {
        f"{side}_{part}": _digest(getattr(getattr(data, side), part))
        for side in ("train", "test")
        for part in ("inputs", "targets")
    }
    architecture = hashlib.sha256(
        repr([(n, tuple(p.shape), str(p.dtype), p.requires_grad) for n, p in model.named_parameters()]).encode()
    ).hexdigest()
    used = recipe or UNTRAINED
    return load_card(
        {
            "name": name,
            "title": name,
            "description": "Defined in Python.",
            "licence": "your own",
            "kind": "own",
            "target": target,
            "data": {"dataset": "own", "sha256": digests, **sizes},
            "model": {"architecture": "own", "options": {"parameters": architecture, "loss": loss}},
            "recipe": used.model_dump(),
            "ground_truth": {"n_masks": 50, "n_repeats": 2},
            "checkpoints": {"full": n_trained or 5, "half": 0 if n_trained else 5, "epochs": [used.epochs]},
        }
    )


def _digest(tensor: torch.Tensor) -> str:
    import torch

    plain = tensor.contiguous().view(torch.uint8) if tensor.dtype == torch.bfloat16 else tensor.contiguous()
    return hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + plain.numpy().tobytes()).hexdigest()
