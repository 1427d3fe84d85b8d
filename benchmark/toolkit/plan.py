"""How a kernel is solved within a budget of memory: exactly, by its leading eigenpairs, or projected."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import psutil

from attriboard.base.errors import NotApplicableError
from attriboard.toolkit.lowrank import low_rank_bytes

RANKS = (2048, 1024, 512)
"""Eigenpairs of a low-rank solution, as many as fit."""

DIMENSIONS = (8192, 4096, 2048, 1024, 512, 256)
"""Dimensions of an automatic projection, as many as fit."""

USABLE = 0.9
"""The part of what is left of the budget that one solution may take."""


@dataclass(frozen=True)
class KernelPlan:
    """How to solve.

    Attributes:
        kind: `exact` decomposes K; `low_rank` finds its leading eigenpairs; `projected` decomposes projected features.
        size: rank, or d_proj; 0 where exact.
        needed_bytes: what it holds at once, about.
        note: what readers of the scores must know, as a predicate of the method's name; `None` where exact.
    """

    kind: Literal["exact", "low_rank", "projected"]
    size: int
    needed_bytes: int
    note: str | None = None


def plan_kernel(n_train: int, n_test: int, budget: int | None, work: int = 0) -> KernelPlan:
    """The most exact way that fits.

    Args:
        n_train: examples of the kernel.
        n_test: columns of r.
        budget: bytes that this process may use in all; by default half of the machine's memory, free or not, so
            that results do not depend on what else runs.
        work: bytes that making the kernel takes beside it.

    Raises:
        NotApplicableError: nothing fits.
    """
    memory = psutil.virtual_memory().total // 2 if budget is None else budget - psutil.Process().memory_info().rss
    free = int(USABLE * max(0, memory - work))
    # The kernel and its eigenvectors at work, and the solution; r, its coefficients and what they leave.
    exact = 28 * n_train**2 + 72 * n_train * n_test
    if exact <= free:
        return KernelPlan("exact", 0, exact)
    why = f"the exact kernel takes {_size(exact)}, and {_size(free)} may be used"
    for rank in RANKS:
        needed = low_rank_bytes(n_train, n_test, rank)
        if rank < n_train and needed <= free:
            what = f"takes the leading {rank:,} eigenpairs of the kernel of {n_train:,} examples ({_size(needed)})"
            return KernelPlan("low_rank", rank, needed, f"{what}: {why}")
    for dimension in DIMENSIONS:
        needed = 20 * n_train * dimension + 24 * dimension**2 + 12 * n_test * dimension
        if needed <= free:
            what = f"projects the gradients of {n_train:,} examples to {dimension:,} dimensions ({_size(needed)})"
            return KernelPlan("projected", dimension, needed, f"{what}: {why}")
    raise NotApplicableError(f"{why}; a projection to {DIMENSIONS[-1]} dimensions takes {_size(needed)}: give more")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:,.1f} GiB"
