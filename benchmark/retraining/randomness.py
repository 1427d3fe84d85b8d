"""Where random numbers in training come from: the request's seed, whichever code draws them.

A model's dropout, stochastic depth or noise, and a task's initialization, may use PyTorch's, NumPy's and Python's
global generators. All of them are seeded for the length of a retrain and given back afterwards as they were.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seed the global generators of PyTorch (every device), NumPy and Python, and restore them at the end.

    Args:
        seed: 0 … 2⁵³ − 1.
    """
    own = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is what the task's code may use
    cards = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices=cards):
        torch.manual_seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(own[0])
            np.random.set_state(own[1])  # noqa: NPY002


def generator_states() -> tuple[Any, ...]:
    """The global generators' states on the CPU, comparable: another one means that something was drawn."""
    _, keys, *rest = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), np.asarray(keys).tobytes(), tuple(rest), random.getstate()
