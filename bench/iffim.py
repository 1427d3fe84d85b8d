"""Exact, unprojected IFFIM on MNIST + MLP (784-128-64-10, 5,000 train, 500 test): seconds and memory.

The data are read from `mnist_5000_500.npz` in the directory that ATTRIBOARD_DATA names.
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attriboard.attributors.iffim import IFFIM
from attriboard.contracts import Checkpoint, Context, Examples
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.spectrum import solve_kernel

EPOCHS = 20
LAMBDAS = [10.0 ** (step / 2) for step in range(-18, 3)]  # 21 values, 1e-9 … 1e1


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    right = outputs.gather(1, targets[:, None]).squeeze(1)
    others = outputs.scatter(1, targets[:, None], -torch.inf)
    return right - others.logsumexp(1)


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, reduction="none")


def mnist_context() -> Context:
    """The task with one model trained for a few epochs."""
    torch.manual_seed(0)
    with np.load(Path(os.environ["ATTRIBOARD_DATA"]) / "mnist_5000_500.npz", allow_pickle=False) as arrays:
        train, test = (
            Examples(
                torch.from_numpy((arrays[f"{part}_images"].reshape(-1, 784) / 255.0 - 0.1307) / 0.3081).float(),
                torch.from_numpy(arrays[f"{part}_labels"]),
            )
            for part in ("train", "test")
        )
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            loss(model(train.inputs[rows]), train.targets[rows]).mean().backward()
            optimizer.step()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    checkpoint = Checkpoint(parameters, epoch=EPOCHS, seed=0)
    return Context(train, test, model.eval(), (checkpoint,), loss, margin, margin)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def measure_projection(n_params: int, d_proj: int, rows: int = 128) -> dict[str, float]:
    """Seconds per 5,000 gradients: Fourier, and dense Rademacher (an eighth of the matrix, times eight)."""
    gradients = torch.randn(rows, n_params)
    project = FourierProjection(n_params, d_proj, seed=0)
    project(gradients)
    _, fourier = timed(lambda: project(gradients))
    slab = gradients[:, : n_params // 8].contiguous()
    signs, drawing = timed(lambda: torch.randint(0, 2, (n_params // 8, d_proj)).float().mul_(2).sub_(1))
    _, product = timed(lambda: slab @ signs)
    return {
        "fourier_seconds": fourier * 5000 / rows,
        "rademacher_seconds": 8 * (product * 5000 / rows + drawing),
    }


def measure_stages(context: Context) -> tuple[float, float]:
    """Seconds of the kernels and of the decomposition; both are freed on return."""
    checkpoint = context.checkpoints[0]
    kernels, kernel_seconds = timed(lambda: gradient_kernels(context, checkpoint, context.loss, context.target))
    return kernel_seconds, timed(lambda: solve_kernel(*kernels))[1]


def measure() -> dict[str, float]:
    """Every number once, in one process."""
    context = mnist_context()
    kernel_seconds, eigen_seconds = measure_stages(context)
    method = IFFIM()
    state, fit_seconds = timed(lambda: method.fit(context, projection_dim=None, checkpoints=1, epoch=None))
    _, one_seconds = timed(lambda: method.score(state, regularization=1e-3))
    _, many_seconds = timed(lambda: [method.score(state, regularization=value).sum() for value in LAMBDAS])
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result = {
        "n_train": len(context.train),
        "rank": len(state.solutions[0].spectrum.eigenvalues),
        "threads": torch.get_num_threads(),
        "kernel_seconds": kernel_seconds,
        "eigendecomposition_seconds": eigen_seconds,
        "fit_seconds": fit_seconds,
        "score_seconds": one_seconds,
        "scores_21_seconds": many_seconds,
        "total_21_seconds": fit_seconds + many_seconds,
        "ratio_21_to_1": (fit_seconds + many_seconds) / (fit_seconds + one_seconds),
        "peak_bytes": peak_bytes,
    }
    n_params = count_parameters(context.checkpoints[0])
    for d_proj in (2048, 8192):
        for name, seconds in measure_projection(n_params, d_proj).items():
            result[f"projection_{d_proj}_{name}"] = seconds
    return result


def main() -> None:
    json.dump(measure(), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
