"""Do a model, its data, a loss and a target go together? Looked at when a task is defined, before any training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import InputError
from attriboard.contracts.card import Recipe
from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.losses import NamedLoss

if TYPE_CHECKING:
    import torch

    PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

N_PROBED = 4  # examples that the model is run on


def check_recipe(recipe: Any, model: Any, n_trained: int) -> None:
    """Check that a model can be trained, or is.

    Args:
        recipe: a `Recipe`, or `None`.
        model: what was given as the model.
        n_trained: number of checkpoints.

    Raises:
        InputError: no recipe.
    """
    import torch

    if recipe is not None and not isinstance(recipe, Recipe):
        raise InputError(f"recipe of type {type(recipe).__name__}: give ab.Recipe(optimizer=…, learning_rate=…, …)")
    if recipe is not None and isinstance(model, torch.nn.Module):
        raise InputError(
            "model: an instance cannot be trained anew; give a function that builds it, such as model=build"
        )
    if recipe is None and not n_trained:
        raise InputError("recipe: without one there is nothing to train; give recipe=ab.Recipe(…), or checkpoints=[…]")


@dataclass(frozen=True)
class CopiesOf:
    """A builder whose models are copies of a trained one."""

    model: torch.nn.Module

    def __call__(self) -> torch.nn.Module:
        """A copy."""
        return copy.deepcopy(self.model)


def read_models(
    model: Any, checkpoints: Any
) -> tuple[Callable[[], torch.nn.Module], tuple[Mapping[str, torch.Tensor], ...]]:
    """How a model is made, and the states of the trained ones.

    Raises:
        InputError: no model, or checkpoints of another one.
    """
    import torch

    states = _states(checkpoints)
    if isinstance(model, torch.nn.Module):
        build: Callable[[], torch.nn.Module] = CopiesOf(copy.deepcopy(model))
        states = states or [model.state_dict()]
    elif callable(model):
        build = model
    else:
        raise InputError(
            f"model of type {type(model).__name__}: give a function that builds the model, or a trained model"
        )
    built = _built(build)
    if build() is built:
        raise InputError("model: the function returns the same module again; build a new one each time it is called")
    expected = {key: tuple(value.shape) for key, value in built.state_dict().items()}
    for number, state in enumerate(states):
        found = {key: tuple(value.shape) for key, value in state.items()}
        if found != expected:
            wrong = next(key for key in sorted(expected | found) if expected.get(key) != found.get(key))
            raise InputError(
                f"checkpoints[{number}]: {wrong} is {found.get(wrong, 'missing')}, the model has "
                f"{expected.get(wrong, 'none')}"
            )
        if bad := [key for key, value in state.items() if not bool(value.isfinite().all())]:
            raise InputError(f"checkpoints[{number}]: {bad[0]} has NaN or infinity; leave this model out")
    return build, tuple({key: value.detach().cpu().clone() for key, value in state.items()} for state in states)


def _states(checkpoints: Any) -> list[Mapping[str, Any]]:
    import torch

    if isinstance(checkpoints, (torch.nn.Module, Mapping)) or not isinstance(checkpoints, Sequence | tuple):
        raise InputError(f"checkpoints of type {type(checkpoints).__name__}: give a list, as in checkpoints=[model]")
    states: list[Mapping[str, Any]] = []
    for number, given in enumerate(checkpoints):
        state = given.state_dict() if isinstance(given, torch.nn.Module) else given
        if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
            raise InputError(
                f"checkpoints[{number}] of type {type(given).__name__}: give a model or its state dict; load a file "
                "first, as in torch.load(path, weights_only=True)"
            )
        states.append(state)
    return states


def _built(build: Callable[[], Any]) -> torch.nn.Module:
    import torch
    from torch.nn.parameter import is_lazy

    try:
        built = build()
    except TypeError as error:
        raise InputError(
            f"model: calling it without arguments raised {error}; give a function without arguments"
        ) from error
    except Exception as error:  # other people's code
        raise InputError(f"model: calling it raised {type(error).__name__}: {error}") from error
    if not isinstance(built, torch.nn.Module):
        raise InputError(f"model: the function returned {type(built).__name__}; it must return a torch.nn.Module")
    for name, value in (*built.named_parameters(), *built.named_buffers()):
        if is_lazy(value):
            raise InputError(f"model: {name} has no shape yet; run the model once on an example in the function")
        if value.device.type != "cpu":
            raise InputError(f"model: {name} is on {value.device}; give it on the CPU: device= and --device move it")
    if not any(parameter.requires_grad for parameter in built.parameters()):
        raise InputError("model: no parameter requires a gradient; there is nothing to train or attribute")
    return built


def check_fit(model: torch.nn.Module, data: Dataset, loss: NamedLoss | PerExample, target: PerExample | None) -> None:
    """Run the model on a few examples.

    Args:
        model: a new one.
        data: all examples.
        loss: by name or as a function.
        target: the task's own, if it has one.

    Raises:
        InputError: it does not run, or its outputs, the targets and the functions do not go together.
    """
    import torch

    shapes = [tuple(side.targets.shape[1:]) for side in (data.train, data.test)]
    if shapes[0] != shapes[1]:
        raise InputError(f"targets: {shapes[0]} numbers for a training example, {shapes[1]} for a test example")
    functions = {"loss": loss.loss if isinstance(loss, NamedLoss) else loss} | ({"target": target} if target else {})
    model.eval()
    for side, examples in (("train", data.train), ("test", data.test)):
        few = examples[:N_PROBED]
        try:
            outputs = model(few.inputs.clone())
        except Exception as error:  # the model is the user's own code
            raise InputError(
                f"model: running it on {side} inputs {tuple(few.inputs.shape)} {few.inputs.dtype} raised "
                f"{type(error).__name__}: {error}{_remedy(model, few.inputs.dtype)}"
            ) from error
        if not isinstance(outputs, torch.Tensor) or outputs.dim() == 0 or len(outputs) != len(few):
            shown = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
            raise InputError(
                f"model: returned {shown} for {len(few)} examples; it must return one tensor, a row each: wrap it in a "
                "module whose forward returns, say, model(inputs).logits"
            )
        if isinstance(loss, NamedLoss):
            _check_targets(loss, outputs.detach(), examples.targets)
        for name, function in functions.items():
            _check_function(name, function, outputs, few.targets)


def _remedy(model: torch.nn.Module, given: torch.dtype) -> str:
    """What to do where inputs and parameters are of two types."""
    own = next(model.parameters()).dtype
    if given == own:
        return ""
    kind = str(own).removeprefix("torch.")
    return f"; parameters are {kind}: give tensors of that type, as in x.to(torch.{kind})"


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
            f"{targets.dtype} raised {type(error).__name__}: {error}"
        ) from error
    if not isinstance(values, torch.Tensor) or values.shape != (len(targets),):
        shown = tuple(values.shape) if isinstance(values, torch.Tensor) else type(values).__name__
        raise InputError(
            f"{name}: returned {shown} for {len(targets)} examples; must be one value each, ({len(targets)},)"
        )
    if not values.requires_grad:
        raise InputError(
            f"{name}: its values have no gradient with respect to the model's outputs; leave out detach, no_grad and "
            "whole numbers"
        )
    if not bool(values.isfinite().all()):
        raise InputError(
            f"{name}: is NaN or infinite on the first examples, before any training; scale inputs and targets to about "
            "1, or look at the function"
        )


def prepared(side: str, examples: Examples, loss: NamedLoss | PerExample) -> Examples:
    """Examples with targets as the loss takes them.

    Raises:
        InputError: class numbers with fractions.
    """
    if not isinstance(loss, NamedLoss):
        return examples
    targets = loss.prepare(examples.targets)
    if not targets.is_floating_point() and bool((targets != examples.targets).any()):
        raise InputError(f"{side}: targets have fractions, which are no class numbers; for numbers use squared_error")
    return Examples(examples.inputs, targets)
