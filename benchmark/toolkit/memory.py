"""What a method may take: half of the memory that is free when it asks."""

from __future__ import annotations

import psutil
import torch

from attriboard.errors import NotApplicableError

__all__ = ["require_memory"]


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
