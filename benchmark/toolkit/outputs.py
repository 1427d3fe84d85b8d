"""Score matrices that need not fit in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import psutil
import torch
from torch import Tensor

from attriboard.toolkit.spectrum import KernelSolution

IN_MEMORY = 0.25
"""The part of the budget that a score matrix may take before it goes to disk."""

BLOCK_BYTES = 256 * 2**20
"""Rows of a matrix on disk that are made at a time."""


def score_matrix(n_test: int, n_train: int, budget: int | None = None) -> Tensor:
    """An uninitialized (n_test, n_train) float32 matrix: in memory, or a mapped temporary file where it is large.

    Args:
        n_test: rows.
        n_train: columns.
        budget: bytes that this process may use in all; by default half of the machine's memory.
    """
    limit = psutil.virtual_memory().total // 2 if budget is None else budget
    if 4 * n_test * n_train <= IN_MEMORY * limit:
        return torch.empty(n_test, n_train)
    # The mapping outlives the file's name, and the file goes with the mapping.
    with tempfile.NamedTemporaryFile(prefix="scores-") as file:
        flat = torch.from_file(file.name, shared=True, size=n_test * n_train, dtype=torch.float32)
    return flat.view(n_test, n_train)


def average_scores(solutions: Sequence[KernelSolution], regularization: float, budget: int | None = None) -> Tensor:
    """The mean of τ_λ over solutions, (n_test, n_train) float32; large ones are made in blocks of rows, on disk.

    Args:
        solutions: of as many checkpoints.
        regularization: λ.
        budget: see `score_matrix`.
    """
    n_test, n_train = len(solutions[0].spectrum.coefficients), len(solutions[0].vectors)
    scores = score_matrix(n_test, n_train, budget)
    step = max(1, BLOCK_BYTES // (4 * n_train))
    for start in range(0, n_test, step):
        rows = slice(start, start + step)
        block = solutions[0].scores(regularization, rows)
        for solution in solutions[1:]:
            block += solution.scores(regularization, rows)
        torch.div(block, len(solutions), out=scores[rows])
    return scores


def kernel_notes(solutions: Sequence[KernelSolution]) -> tuple[str, ...]:
    """What stands for exact kernels, once each."""
    return tuple(dict.fromkeys(solution.note for solution in solutions if solution.note))
