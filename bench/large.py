"""What kernels of large training sets cost: seconds and memory against n_train (full MNIST) and n_params.

A card of this file, MNIST with 50,000 training examples, has no ground truth; nothing is published for it. For every
n_train the kernel is solved by its leading 512 eigenpairs, and exactly as far as that is affordable; at 5,000 both are
compared. Seconds are CPU seconds, with one thread: on a machine that others use, wall-clock time is theirs too.
Exponents are slopes of a straight line through log seconds against log size, from the three largest sizes.
"""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from attriboard.base.digests import digest_bytes
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.card import load_card
from attriboard.contracts.task import Task
from attriboard.tasks.catalogue import task_from_card
from attriboard.toolkit.held import Stored, kernel_pieces
from attriboard.toolkit.kernel import add_gram, add_products
from attriboard.toolkit.lowrank import TriangularKernel, solve_low_rank
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.spectrum import solve_kernel
from bench.report import Measured

T = TypeVar("T")

SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
EXACT = (1_000, 2_000, 5_000)
RANK, N_TEST, EPOCHS = 512, 500, 4
HIDDEN = ((32, 16), (128, 64), (512, 256), (2048, 1024))
LAMBDAS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def mnist_task(n_train: int, hidden: Sequence[int] = (128, 64)) -> Task:
    """MNIST with so many training and 500 test examples; digests of what is there, since nothing is published."""
    with np.load(Path(os.environ["ATTRIBOARD_DATA"]) / "mnist.npz", allow_pickle=False) as arrays:
        rows = {name: arrays[name][: n_train if name.startswith("train") else N_TEST] for name in arrays.files}
    options = {"n_inputs": 784, "hidden": list(hidden), "n_classes": 10}
    return task_from_card(
        load_card(
            {
                "name": "mnist_large",
                "title": "Full MNIST",
                "description": "For measurements only.",
                "licence": "as published by LeCun, Cortes and Burges",
                "kind": "classification",
                "target": "margin",
                "data": {
                    "dataset": "mnist",
                    "n_train": n_train,
                    "n_test": N_TEST,
                    "options": {"scale": 255.0, "mean": 0.1307, "std": 0.3081},
                    "sha256": {name: digest_bytes(np.ascontiguousarray(row).tobytes()) for name, row in rows.items()},
                },
                "model": {"architecture": "mlp", "options": options},
                "recipe": {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "epochs": 4, "batch_size": 64},
                "ground_truth": {"n_masks": 3, "n_repeats": 1},
                "checkpoints": {"full": 1, "half": 0, "epochs": [4]},
            }
        )
    )


def context_of(task: Task, epochs: int = EPOCHS) -> Context:
    """The task with a model trained for a few epochs."""
    torch.manual_seed(0)
    data, model = task.load_data(), task.build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train)).split(64):
            batch = data.train[rows]
            optimizer.zero_grad()
            task.loss(model(batch.inputs), batch.targets).mean().backward()
            optimizer.step()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    checkpoint = Checkpoint(parameters, epoch=epochs, seed=0)
    return Context(data.train, data.test, model.eval(), (checkpoint,), task.loss, task.margin, task.target)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """A result and its CPU seconds."""
    started = time.process_time()
    result = work()
    return result, time.process_time() - started


def gradients(context: Context) -> list[tuple[Stored, Stored]]:
    """Of all training and test examples, layer by layer; factors, so they are small."""
    (checkpoint,) = context.checkpoints
    pieces = kernel_pieces(context, checkpoint, context.loss, context.target)
    return [(train, test) for _, train, test in pieces]


def cost(context: Context, n: int, exact: bool) -> dict[str, Any]:
    """Seconds of the stages for the first n training examples; with the error where both are computed."""
    context = Context(**(vars(context) | {"train": context.train[:n]}))
    pieces, factor_seconds = timed(lambda: gradients(context))
    products = torch.zeros(n, len(context.test), dtype=torch.float64)
    _, cross_seconds = timed(lambda: [add_products(products, train, test) for train, test in pieces])
    row: dict[str, Any] = {"n_train": n, "factor_seconds": factor_seconds, "cross_seconds": cross_seconds}
    triangle = TriangularKernel(n)
    _, row["triangle_seconds"] = timed(lambda: [triangle.add(train) for train, _ in pieces])
    found, row["low_rank_seconds"] = timed(partial(solve_low_rank, triangle, products, min(RANK, n // 2), 0))
    row |= {"rank": len(found.spectrum.eigenvalues), "tail": found.spectrum.tail}
    row["total_low_rank_seconds"] = sum(v for k, v in row.items() if k.endswith("_seconds"))
    triangle.blocks.clear()
    row["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if exact:
        kernel = torch.zeros(n, n, dtype=torch.float64)
        _, row["exact_kernel_seconds"] = timed(lambda: [add_gram(kernel, train) for train, _ in pieces])
        true, row["exact_eigen_seconds"] = timed(lambda: solve_kernel(kernel, products))
        row["total_exact_seconds"] = (
            factor_seconds + cross_seconds + row["exact_kernel_seconds"] + row["exact_eigen_seconds"]
        )
        row["errors"] = [_error(true.scores(value), found.scores(value), value) for value in LAMBDAS]
        row["xi"] = [
            (float(true.spectrum.xi(value).mean()), float(found.spectrum.xi(value).mean())) for value in LAMBDAS
        ]
    return row


def _error(true: torch.Tensor, found: torch.Tensor, value: float) -> dict[str, float]:
    relative = (found - true).norm(dim=1) / true.norm(dim=1)
    centred = [scores - scores.mean(1, keepdim=True) for scores in (true, found)]
    correlation = (centred[0] * centred[1]).sum(1) / centred[0].norm(dim=1) / centred[1].norm(dim=1)
    return {
        "regularization": value,
        "relative": float(relative.median()),
        "correlation": float(correlation.median()),
    }


def cost_of_parameters(hidden: Sequence[int], n: int = 2_000) -> dict[str, Any]:
    """Seconds of the factored kernel and of a projection to 2,048 dimensions, at one width."""
    context = context_of(mnist_task(n, hidden), epochs=1)
    (checkpoint,) = context.checkpoints
    n_params = sum(value.numel() for value in checkpoint.parameters.values())
    pieces, kernel = gradients(context), torch.zeros(n, n, dtype=torch.float64)
    _, kernel_seconds = timed(lambda: [add_gram(kernel, train) for train, _ in pieces])
    project, sample = FourierProjection(n_params, 2048, 0), torch.randn(32, n_params)
    project(sample[:1])
    _, seconds = timed(lambda: project(sample))
    return {
        "n_params": n_params,
        "kernel_seconds": kernel_seconds,
        "projection_seconds_per_1000": seconds * 1000 / len(sample),
    }


def exponent(rows: Sequence[dict[str, Any]], size: str, seconds: str) -> float:
    """Slope of log seconds against log size over the three largest sizes."""
    points = [(math.log(row[size]), math.log(row[seconds])) for row in rows if seconds in row][-3:]
    return float(np.polyfit(*zip(*points, strict=True), 1)[0])


def measure(repetitions: int = 1, sizes: Sequence[int] = SIZES) -> Measured:
    """The two tables and their exponents, once; rows are also printed to standard error as they come."""
    torch.set_num_threads(1)
    widths = []
    for hidden in HIDDEN:
        widths.append(cost_of_parameters(hidden))
        print(json.dumps(widths[-1]), file=sys.stderr, flush=True)
    context = context_of(mnist_task(max(sizes)))
    rows = []
    for n in sizes:
        rows.append(cost(context, n, n in EXACT))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return Measured(
        numbers={
            "n_train": rows,
            "n_params": widths,
            "low_rank_exponent_in_n_train": exponent(rows, "n_train", "total_low_rank_seconds"),
            "triangle_exponent_in_n_train": exponent(rows, "n_train", "triangle_seconds"),
            "exact_exponent_in_n_train": exponent(rows, "n_train", "total_exact_seconds"),
            "kernel_exponent_in_n_params": exponent(widths, "n_params", "kernel_seconds"),
            "projection_exponent_in_n_params": exponent(widths, "n_params", "projection_seconds_per_1000"),
        }
    )
