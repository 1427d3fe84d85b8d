"""How long something takes at least: operations, counted from sizes, over a third of the speed of matrix products here.

Real code is slower than that, so what is refused for a time limit would have exceeded it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from attriboard.contracts.context import Context
from attriboard.toolkit.placed import own_precision
from attriboard.toolkit.reference import remembered

SIDE, ROUNDS = 256, 50
"""Of the matrix products whose speed is measured: the best of so many, too short for other work to come between."""

EFFICIENCY = 1 / 3
"""Of that speed, what methods reach at most: the fastest here, `magic` on mnist_mlp, reaches .29."""

PRODUCT = 2
"""Forward passes that one product with a Hessian or a Gauss–Newton matrix takes at least: tangents, and their way back.

A first layer takes no more; further layers take up to six, since what is before them changes too.
"""


class TooLongError(TimeoutError):
    """It would take longer than it may."""


def forward_operations(context: Context) -> int:
    """Floating-point operations of the model on one training example, counted once for each context."""

    def counted() -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            context.model(context.train.inputs[:1])
        return int(counter.get_total_flops())

    return remembered(context, ("forward operations",), counted)


@cache
def operations_per_second(dtype: torch.dtype, device: str, threads: int) -> float:
    """What methods reach at most: a part of the speed of matrix products, measured once."""
    one = torch.ones(SIDE, SIDE, dtype=dtype, device=device)

    def seconds() -> float:
        started = time.perf_counter()
        float((one @ one)[0, 0])
        return time.perf_counter() - started

    return EFFICIENCY * 2 * SIDE**3 / min(seconds() for _ in range(ROUNDS))


def require_time(need: Mapping[str, float] | None, context: Context, limit: float | None) -> None:
    """Refuse to start what cannot be done in time.

    Args:
        need: a few words → floating-point operations; `None` where nobody has counted.
        context: whose model's precision and device count.
        limit: seconds; `None` for no limit.

    Raises:
        TooLongError: it takes longer; the message gives the largest parts.
    """
    total = sum((need or {}).values())
    if not need or limit is None:
        return
    speed = operations_per_second(own_precision(context.model), str(context.device), torch.get_num_threads())
    if total / speed > limit:
        parts = sorted(need.items(), key=lambda part: -part[1])
        largest = ", ".join(f"{what} {count:.1e} operations" for what, count in parts[:3] if count > total / 100)
        raise TooLongError(
            f"needs at least {total / speed:,.0f} s ({largest}, at {speed / 1e9:,.0f}·10⁹ a second); "
            f"the limit is {limit:g} s"
        )
