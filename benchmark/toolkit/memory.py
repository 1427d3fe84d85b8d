"""What there is of memory, the refusal to start what needs more, and how many examples a pass may have."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from torch import Tensor, nn


class Model(Protocol):
    """A module with its parameters in it, in `attriboard.toolkit.placed`."""

    module: nn.Module

    def __call__(self, inputs: Tensor, /) -> Any:
        """Outputs."""


ROWS = 1024
"""Examples per pass, at most."""


def require_memory(
    need: Mapping[str, int] | None, device: str | torch.device = "cpu", limit: int | None = None
) -> None:
    """Refuse to start what will not fit.

    Args:
        need: what is held at once → bytes; `None` where nobody has counted.
        device: where.
        limit: bytes that this process may have resident altogether; `None` for all there are.

    Raises:
        MemoryError: it is more than there is; the message gives the largest parts and both sums.
    """
    total = sum((need or {}).values())
    if need and total > (free := free_memory(device, limit)):
        parts = sorted(need.items(), key=lambda part: -part[1])
        largest = ", ".join(f"{what} {size / 1e9:,.1f} GB" for what, size in parts[:3] if size > total / 100)
        raise MemoryError(f"needs {total / 1e9:,.1f} GB ({largest}); {free / 1e9:,.1f} GB are free")


def free_memory(device: str | torch.device = "cpu", limit: int | None = None) -> int:
    """Bytes that can still be had: of the machine, its container and the limit, or of the graphics card."""
    device = torch.device(device)
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [int(psutil.virtual_memory().available), *_container_memory()]
    if limit is not None:
        free.append(limit - int(psutil.Process().memory_info().rss))
    return max(0, min(free))


def _container_memory() -> list[int]:
    """What the control group of a container leaves (Linux, version 2); nothing where there is no limit."""
    with suppress(OSError, ValueError, StopIteration, KeyError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        name = next(line for line in lines if line.startswith("0::")).removeprefix("0::").lstrip("/")
        folder = Path("/sys/fs/cgroup", name)
        limit = int((folder / "memory.max").read_text())  # "max" is no number: no limit
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        # Files that are only cached make room when it is needed.
        return [limit - int((folder / "memory.current").read_text()) + int(statistics["inactive_file"])]
    return []


def affordable_rows(model: Model, inputs: Tensor, numbers: int) -> int:
    """How many examples may go through a model together, 1 to `ROWS`.

    Args:
        model: with its parameters.
        inputs: one example (1, *input_shape).
        numbers: what all their activations may count.
    """
    return min(ROWS, max(1, numbers // count_activations(model, inputs)))


@torch.no_grad()
def count_activations(model: Model, inputs: Tensor) -> int:
    """How many numbers the inputs and all modules without children give for one example."""
    counts = [inputs.numel()]

    def count(module: nn.Module, arguments: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor):
            counts.append(output.numel())

    leaves = [module for module in model.module.modules() if not list(module.children())]
    leaves = [module for module in leaves if not isinstance(module, torch.jit.ScriptModule)]  # these take no hooks
    handles = [module.register_forward_hook(count) for module in leaves]
    try:
        model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return sum(counts)
