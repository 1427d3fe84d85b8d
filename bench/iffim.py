"""Exact, unprojected IFFIM on the published checkpoints of `mnist_mlp` (5,000 train, 500 test): seconds and memory."""

import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from attriboard.attribution.context import build_context
from attriboard.attributors.iffim import IFFIM
from attriboard.contracts.attributor import Context
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.spectrum import solve_kernel
from bench.report import Comparison, Measured

LAMBDAS = [10.0 ** (step / 2) for step in range(-18, 3)]  # 21 values, 1e-9 … 1e1


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = run()
    return result, time.perf_counter() - start


def compare_projections(n_params: int, d_proj: int, repetitions: int, rows: int = 128) -> Comparison:
    """Fourier, and dense Rademacher (an eighth of the matrix, times eight), per 5,000 gradients."""
    gradients = torch.randn(rows, n_params)
    project = FourierProjection(n_params, d_proj, seed=0)
    slab = gradients[:, : n_params // 8].contiguous()
    project(gradients)
    fourier, dense = [], []
    for _ in range(repetitions):
        fourier.append(timed(lambda: project(gradients))[1] * 5000 / rows)
        signs, drawing = timed(lambda: torch.randint(0, 2, (n_params // 8, d_proj)).float().mul_(2).sub_(1))
        product = timed(partial(torch.matmul, slab, signs))[1]
        dense.append(8 * (product * 5000 / rows + drawing))
    what = f"project 5,000 gradients of {n_params:,} to {d_proj:,}"
    return Comparison(what, "a dense sign matrix", fourier, dense, "an eighth of the dense product, times eight")


def measure_stages(context: Context) -> tuple[float, float]:
    """Seconds of the kernels and of the decomposition; both are freed on return."""
    (checkpoint,) = context.select_checkpoints()
    kernels, kernel_seconds = timed(lambda: gradient_kernels(context, checkpoint, context.loss, context.target))
    return kernel_seconds, timed(lambda: solve_kernel(*kernels))[1]


def measure(repetitions: int = 5) -> Measured:
    """Stages once; λ = 1 and 21 values, and the projections, in turn."""
    task = load_task("mnist_mlp")
    context = build_context(task, BundleRegistry().locate(task.card, "checkpoints"))
    kernel_seconds, eigen_seconds = measure_stages(context)
    method = IFFIM()
    state, fit_seconds = timed(lambda: method.fit(context, projection_dim=None, checkpoints=1, epoch=None))
    one = [timed(lambda: method.score(state, regularization=1e-3))[1] for _ in range(repetitions)]
    many = [
        timed(lambda: [method.score(state, regularization=value).sum() for value in LAMBDAS])[1]
        for _ in range(repetitions)
    ]
    one_seconds, many_seconds = statistics.median(one), statistics.median(many)
    n_params = count_parameters(context)
    return Measured(
        [compare_projections(n_params, d_proj, repetitions) for d_proj in (2048, 8192)],
        {
            "n_train": len(context.train),
            "rank": len(state.models[0].spectrum.eigenvalues),
            "threads": torch.get_num_threads(),
            "kernel_seconds": kernel_seconds,
            "eigendecomposition_seconds": eigen_seconds,
            "fit_seconds": fit_seconds,
            "score_seconds": one_seconds,
            "scores_21_seconds": many_seconds,
            "ratio_21_to_1": (fit_seconds + many_seconds) / (fit_seconds + one_seconds),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        },
    )
