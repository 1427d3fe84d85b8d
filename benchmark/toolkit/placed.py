"""A context's model with a checkpoint's parameters in it, in one precision.

Two ways to call it. `FunctionalModel` swaps parameters in for the time of a call, as `torch.func` needs it.
`CopiedModel` is a copy of its own whose parameters are ordinary leaves: for scripted modules, for checkpointed
segments, which run again after the call, and for modules that hold parameters where no name leads.

Neither lets a forward change what it was given: inputs and buffers are copies, and attributes of modules are put back.
Plain tensors among the attributes, which `Module.to` does not reach, move and change their precision with the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attriboard.contracts.context import BatchFunction, Checkpoint, Context

_OWN = frozenset(vars(nn.Module()))
"""Attributes that every module has."""


class FunctionalModel:
    """Outputs as a function of parameters and inputs.

    Args:
        context: the model.
        checkpoint: its parameters and buffers.
        dtype: of all floating-point numbers; those of the model and the data where `None`.

    Attributes:
        module: which runs; hooks on it see every call.
        parameters: the attributed ones, in the model's order.
    """

    def __init__(self, context: Context, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
        self.module, self.dtype = context.model, dtype
        state = _state(context, checkpoint, dtype)
        self.parameters = {name: state.pop(name) for name in context.attributed}
        self._buffers = {name: state.pop(name) for name in dict(context.model.named_buffers()) if name in state}
        self._frozen = state
        self._names = _names(context.model)
        self._attributes = list(_attributes(self.module, self.cast, context.device))

    def __call__(self, inputs: Tensor, parameters: Mapping[str, Tensor] | None = None) -> Any:
        """Outputs for inputs (n, …)."""
        buffers = {name: value.clone() for name, value in self._buffers.items()}
        state = {**self._frozen, **buffers, **(self.parameters if parameters is None else parameters)}
        # By our own table of shared tensors: PyTorch's leaves a module that stands under two names changed behind.
        placed = {name: state[first] for name, first in self._names.items()}
        with _replaced(self._attributes):
            return functional_call(self.module, placed, (self.cast(inputs).clone(),), tie_weights=False)

    def cast(self, tensor: Tensor) -> Tensor:
        """In this model's precision, where it is floating point."""
        return _cast(tensor, self.dtype)


class CopiedModel:
    """A copy of the model whose attributed parameters are leaves that need gradients; see `FunctionalModel`."""

    def __init__(self, context: Context, checkpoint: Checkpoint, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        module = self.module = deepcopy(context.model, _detached(context.model))
        if dtype is not None:
            module.to(dtype)
        state = _state(context, checkpoint, dtype)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(False)
            parameter.data = state[name].clone()
            parameter.requires_grad_(name in context.attributed)
        self.parameters = {name: dict(module.named_parameters())[name] for name in context.attributed}
        self._buffers = {name: state[name] for name, _ in module.named_buffers()}
        for mine, _, replacements in _attributes(module, self.cast, context.device):
            mine.update(replacements)
        self._attributes = list(_attributes(module, self.cast, context.device))

    def __call__(self, inputs: Tensor) -> Any:
        """Outputs for inputs (n, …)."""
        for name, buffer in self.module.named_buffers():
            if name in self._buffers:
                buffer.data = self._buffers[name].clone()
        with _replaced(self._attributes):
            return self.module(self.cast(inputs).clone())

    def cast(self, tensor: Tensor) -> Tensor:
        """In this model's precision, where it is floating point."""
        return _cast(tensor, self.dtype)


Runnable = FunctionalModel | CopiedModel


def values(function: BatchFunction, outputs: Any, targets: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A function of outputs and targets in a precision of its own; in that of the outputs where `None`.

    1 − p of a well-fitted example is a difference of nearly equal numbers, so this is float64 wherever the function
    takes it.
    """
    if dtype == torch.float64 and targets.is_floating_point():
        targets = targets.double()
    return function(converted(outputs, lambda tensor: _cast(tensor, dtype, detach=False)), targets)


def converted(outputs: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A tensor, or tensors in tuples, lists and mappings, changed one by one."""
    if isinstance(outputs, Tensor):
        return change(outputs)
    if isinstance(outputs, Mapping):
        changed = {name: converted(value, change) for name, value in outputs.items()}
        return changed if type(outputs) is dict else type(outputs)(**changed)
    if isinstance(outputs, (tuple, list)):
        parts = [converted(value, change) for value in outputs]
        return type(outputs)(*parts) if hasattr(outputs, "_fields") else type(outputs)(parts)
    return outputs


def own_precision(model: nn.Module) -> torch.dtype:
    """Of the model's first floating-point parameter."""
    found = (value.dtype for value in model.parameters() if value.is_floating_point())
    return next(found, torch.get_default_dtype())


def _state(context: Context, checkpoint: Checkpoint, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every parameter and buffer; a checkpoint need not have the buffers that no file keeps."""
    given = {**checkpoint.buffers, **checkpoint.parameters}
    named = (*context.model.named_parameters(), *context.model.named_buffers())
    return {name: _cast(given.get(name, value), dtype or value.dtype).to(context.device) for name, value in named}


def _names(model: nn.Module) -> dict[str, str]:
    """Every name of a tensor, under one name of its module → the tensor's first name."""
    named = (*model.named_parameters(), *model.named_buffers())
    first = {id(value): name for name, value in named}
    names: dict[str, str] = {}
    for prefix, module in model.named_modules():
        own = (*module.named_parameters(recurse=False, remove_duplicate=False), *module.named_buffers(recurse=False))
        names |= {f"{prefix}.{name}" if prefix else name: first[id(value)] for name, value in own}
    return names


def _cast(tensor: Tensor, dtype: torch.dtype | None, *, detach: bool = True) -> Tensor:
    tensor = tensor.detach() if detach else tensor
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _detached(model: nn.Module) -> dict[int, Any]:
    """Plain tensors with a history, which `deepcopy` refuses: what stands for them in a copy, as its memo."""
    found = (value for module in model.modules() for value in vars(module).values())
    return {id(value): value.detach().clone() for value in found if isinstance(value, Tensor) and not value.is_leaf}


def _attributes(
    model: nn.Module, cast: Callable[[Tensor], Tensor], device: str
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """For every module: its attributes, those beyond a module's own as they are, and as a call is to find them."""

    def change(value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            return value
        if isinstance(value, Tensor):
            return cast(value).to(device)
        if type(value) in (list, tuple):
            return type(value)(map(change, value))
        return {key: change(one) for key, one in value.items()} if type(value) is dict else value

    for module in model.modules():
        if not isinstance(module, torch.jit.ScriptModule):
            before = {name: value for name, value in vars(module).items() if name not in _OWN}
            after = {name: change(value) for name, value in before.items()}
            yield vars(module), before, {name: value for name, value in after.items() if value is not before[name]}


@contextmanager
def _replaced(attributes: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]) -> Iterator[None]:
    for mine, _, replacements in attributes:
        mine.update(replacements)
    try:
        yield
    finally:
        for mine, before, _ in attributes:
            mine.update(before)
            for name in [name for name in mine if name not in before and name not in _OWN]:
                del mine[name]
