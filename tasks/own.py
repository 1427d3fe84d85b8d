"""Tasks of your own: model, data and loss from Python, with nothing to install and nothing to subclass.

A defined task's identity is its content. The fingerprint hashes the bytes of the data, the names and shapes of the
model's parameters, the recipe and the names of loss and target. What code computes cannot be hashed; `probes` are
numbers of it, which the store of retrains compares within a tolerance.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import InputError
from attriboard.contracts.card import UNTRAINED, Recipe, TaskCard, load_card
from attriboard.contracts.task import Dataset, Examples, Task
from attriboard.tasks.examples import read_examples
from attriboard.tasks.losses import LOSSES, NamedLoss

if TYPE_CHECKING:
    import torch

    PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

N_PROBED = 4  # examples that are looked at when a task is defined


@dataclass(frozen=True, eq=False)
class Definition:
    """Everything that `define_task` was given, checked.

    Attributes:
        card: what it amounts to.
        build: makes a new model, or copies the trained one.
        data: training and test examples.
        loss: by name or as a function.
        target: the attributed function, where it is the task's own.
        trained: states of models that were trained elsewhere.
        vocabulary: token number → token.
    """

    card: TaskCard
    build: Callable[[], torch.nn.Module]
    data: Dataset
    loss: NamedLoss | PerExample
    target: PerExample | None
    trained: tuple[Mapping[str, torch.Tensor], ...]
    vocabulary: tuple[str, ...] = ()


class DefinedTask(Task):
    """A task from `define_task`; it lives in the process that defined it.

    Args:
        definition: what it is.
    """

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition.card)
        self._definition = definition
        loss = definition.loss
        self._named = loss if isinstance(loss, NamedLoss) else None
        self._loss: PerExample = loss.loss if isinstance(loss, NamedLoss) else loss
        names = ["loss", "margin"]
        if self._named and self._named.correct and definition.data.test.targets.dim() == 1:
            names.append("correct")
        if definition.target is not None:
            names.append("target")
        self.measurements = tuple(names)  # type: ignore[misc]  # of this task, not of the class

    @property
    def portable(self) -> bool:
        """Whether it lives in a file that other processes can run."""
        return self.home is not None

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

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The task's own loss, (n,)."""
        return self._loss(outputs, targets)

    def margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-odds of the right answer, (n,); minus the loss where the loss has no margin."""
        if self._has_margin(outputs, targets):
            assert self._named is not None, "only named losses have margins"
            assert self._named.margin is not None, "see `_has_margin`"
            return self._named.margin(outputs, targets)
        return -self._loss(outputs, targets)

    def error(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """−∂loss/∂margin, (n,): 1 − p, or 1 where the margin is minus the loss."""
        if self._has_margin(outputs, targets):
            return super().error(outputs, targets)
        return self._loss(outputs, targets).new_ones(len(targets))

    def target(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The attributed function, (n,)."""
        if self._definition.target is not None:
            return self._definition.target(outputs, targets)
        return super().target(outputs, targets)

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """See `measurements`."""
        found = {"loss": self.loss(outputs, targets), "margin": self.margin(outputs, targets)}
        if "correct" in self.measurements:
            assert self._named is not None, "only named losses know what is right"
            assert self._named.correct is not None, "see `__init__`"
            found["correct"] = self._named.correct(outputs, targets)
        if "target" in self.measurements:
            found["target"] = self.target(outputs, targets)
        return {name: values.float() for name, values in found.items()}

    def _has_margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> bool:
        return self._named is not None and self._named.margin is not None and targets.dim() == 1


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

    Raises:
        InputError: a name, an example, a loss, a target or a model that does not fit the others; the message says
            what to change.
    """
    import torch

    build, states = _models(model, checkpoints)
    if recipe is not None and isinstance(model, torch.nn.Module):
        raise InputError(
            "model: an instance cannot be trained anew; give a function that builds it, such as model=build"
        )
    if recipe is None and not states:
        raise InputError("recipe: without one there is nothing to train; give recipe=ab.Recipe(…), or checkpoints=[…]")
    named = _loss(loss)
    data = Dataset(_prepared(read_examples("train", train), named), _prepared(read_examples("test", test), named))
    chosen, own = _target(loss, named, target, data.train.targets)
    probe = build()
    _check_fit(probe, data, named, own)
    card = _card(name, data, probe, loss if isinstance(loss, str) else "own", chosen, recipe, len(states))
    return DefinedTask(Definition(card, build, data, named, own, states, tuple(vocabulary)))


def _models(
    model: Any, checkpoints: Sequence[Any]
) -> tuple[Callable[[], torch.nn.Module], tuple[Mapping[str, torch.Tensor], ...]]:
    """How a model is made, and the states of the trained ones."""
    import torch

    states = [given.state_dict() if isinstance(given, torch.nn.Module) else dict(given) for given in checkpoints]
    if isinstance(model, torch.nn.Module):
        frozen = copy.deepcopy(model)
        build: Callable[[], torch.nn.Module] = lambda: copy.deepcopy(frozen)  # noqa: E731 - one line, like a builder
        states = states or [frozen.state_dict()]
    elif callable(model):
        build = model
    else:
        raise InputError(
            f"model of type {type(model).__name__}: give a function that builds the model, or a trained model"
        )
    try:
        built = build()
    except TypeError as error:
        raise InputError(
            f"model: calling it without arguments raised {error}; give a function without arguments"
        ) from error
    if not isinstance(built, torch.nn.Module):
        raise InputError(f"model: the function returned {type(built).__name__}; it must return a torch.nn.Module")
    expected = {key: tuple(value.shape) for key, value in built.state_dict().items()}
    for number, state in enumerate(states):
        found = {key: tuple(value.shape) for key, value in state.items()}
        if found != expected:
            wrong = next(key for key in sorted(expected | found) if expected.get(key) != found.get(key))
            raise InputError(
                f"checkpoints[{number}]: {wrong} is {found.get(wrong, 'missing')}, the model has "
                f"{expected.get(wrong, 'none')}"
            )
    return build, tuple({key: value.detach().clone() for key, value in state.items()} for state in states)


def _loss(loss: Any) -> NamedLoss | PerExample:
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise InputError(f"loss = {loss!r}: must be {', '.join(LOSSES)}, or a function (outputs, targets) → (n,)")
        return LOSSES[loss]
    if not callable(loss):
        raise InputError(f"loss of type {type(loss).__name__}: must be a name or a function (outputs, targets) → (n,)")
    function: PerExample = loss
    return function


def _prepared(examples: Examples, loss: NamedLoss | PerExample) -> Examples:
    return Examples(examples.inputs, loss.prepare(examples.targets)) if isinstance(loss, NamedLoss) else examples


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


def _check_fit(model: torch.nn.Module, data: Dataset, loss: NamedLoss | PerExample, target: PerExample | None) -> None:
    """Run the model on a few examples.

    Raises:
        InputError: it does not run, or its outputs, the targets and the functions do not go together.
    """
    import torch

    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError("model: no parameter requires a gradient; there is nothing to train or attribute")
    functions = {"loss": loss.loss if isinstance(loss, NamedLoss) else loss} | ({"target": target} if target else {})
    model.eval()
    for side, examples in (("train", data.train), ("test", data.test)):
        few = examples[:N_PROBED]
        try:
            with torch.no_grad():
                outputs = model(few.inputs.clone())
        except Exception as error:  # the model is the user's own code
            raise InputError(
                f"model: running it on {side} inputs {tuple(few.inputs.shape)} {few.inputs.dtype} raised "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(outputs, torch.Tensor) or len(outputs) != len(few):
            shown = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise InputError(f"model: returned {shown} for {len(few)} examples; it must return one tensor, a row each")
        if isinstance(loss, NamedLoss):
            _check_targets(loss, outputs, examples.targets)
        for name, function in functions.items():
            _check_function(name, function, outputs, few.targets)


def _check_targets(loss: NamedLoss, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    """Check all targets against the shape of the outputs of a few examples."""
    shape = (len(targets), *outputs.shape[1:])
    loss.check(outputs[:1].expand(shape) if len(outputs) else outputs, targets)


def _check_function(name: str, function: PerExample, outputs: torch.Tensor, targets: torch.Tensor) -> None:
    import torch

    try:
        values = function(outputs, targets)
    except Exception as error:  # the user's own code
        raise InputError(
            f"{name}: calling it with outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)} "
            f"{targets.dtype} "
            f"raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(values, torch.Tensor) or values.shape != (len(targets),):
        shown = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise InputError(
            f"{name}: returned {shown} for {len(targets)} examples; must be one value each, ({len(targets)},)"
        )
    if not bool(values.isfinite().all()):
        raise InputError(f"{name}: is NaN or infinite on the first examples, before any training")


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
