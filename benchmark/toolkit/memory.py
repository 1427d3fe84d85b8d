"""What a method may take: half of the memory that is free when it asks; and how many examples a pass may have."""

from __future__ import annotations

from collections.abc import Mapping

import psutil
import torch
from torch import Tensor, nn
from torch.func import functional_call

from attriboard.errors import NotApplicableError

__all__ = ["ROWS", "affordable_rows", "count_activations", "require_memory"]

ROWS = 1024
"""Examples per pass, at most."""


def require_memory(needed_bytes: int, what: str, device: str | torch.device = "cpu") -> None:
    """Refuse to start what will not fit.

    Args:
        needed_bytes: the most that will be held at once.
        what: what takes it, in the plural: the subject of the message.
        device: where.

    Raises:
        NotApplicableError: it is more than half of the free memory; the message gives both numbers.
    """
    device = torch.device(device)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    if needed_bytes > free // 2:
        raise NotApplicableError(
            f"{what} take {needed_bytes / 1e9:,.1f} GB; the limit is half of the free memory, {free / 2e9:,.1f} GB"
        )


def affordable_rows(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor, numbers: int) -> int:
    """How many examples may go through a model together, 1 to `ROWS`.

    Args:
        model: in evaluation mode.
        state: its parameters and buffers.
        inputs: one example (1, *input_shape).
        numbers: what all their activations may count.
    """
    return min(ROWS, max(1, numbers // count_activations(model, state, inputs)))


@torch.no_grad()
def count_activations(model: nn.Module, state: Mapping[str, Tensor], inputs: Tensor) -> int:
    """How many numbers the inputs and all modules without children give for one example."""
    counts = [inputs.numel()]

    def count(module: nn.Module, arguments: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            counts.append(output.numel())

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [module.register_forward_hook(count) for module in leaves]
    try:
        functional_call(model, dict(state), (inputs,))
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)
