"""Where the time of stacked retraining goes on one core: operations, bytes, floors and what is achieved.

For a stack of mnist_mlp, CPU seconds per retrain: of the products at the rate of large ones, of the same
products at their own shapes, of the passes over parameters and momenta at the rate of the cache they live in, of
gathering the batches, and of the trainer as it is.
"""

import time
from collections.abc import Callable
from typing import Any

import torch

from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.plan import mask_indices, retrain_seed
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from bench.report import Measured
from bench.retraining import operations

EPOCHS = 4  # of the recipe's; time is proportional


def rate(work: Callable[[], Any], units: float, seconds: float = 1.0) -> float:
    """Units per CPU second of a repeated call."""
    work()
    count, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        work()
        count += 1
    return units * count / (time.process_time() - started)


def products(shapes: list[torch.Size], M: int, B: int) -> Callable[[], None]:
    """All products of one step of M models on batches of B, without anything between them."""
    layers = [
        (torch.randn(M, B, d_in), torch.randn(M, d_in, d_out), torch.randn(M, B, d_out)) for d_out, d_in in shapes
    ]

    def step() -> None:
        for number, (a, w, delta) in enumerate(layers):
            torch.bmm(a, w)
            torch.bmm(a.transpose(1, 2), delta)
            if number:
                torch.bmm(delta, w.transpose(1, 2))

    return step


def measure(repetitions: int = 1) -> Measured:
    """All of it once."""
    torch.set_num_threads(1)
    task = load_task("mnist_mlp")
    data, recipe = task.load_data(), task.card.recipe
    shapes = [p.shape for p in task.build_model().parameters() if p.dim() == 2]
    M, B = StackedMLPTrainer.stack_size(task), recipe.batch_size
    n, d_0 = task.card.subset_size, shapes[0][1]
    steps = -(-n // B) * recipe.epochs
    n_params = sum(d_out * d_in for d_out, d_in in shapes)
    flops = operations(task)

    a = torch.randn(2048, 2048)
    gemm = rate(lambda: a @ a, 2 * 2048**3, 2.0)
    step_seconds = 1 / rate(products(shapes, M, B), 1) / M
    weights, momenta = torch.randn(M, n_params), torch.randn(M, n_params)
    # Reads of both and a write of one: what the update beside the products does.
    pass_seconds = 1 / rate(lambda: weights.add_(momenta, alpha=-0.01), 1) / M
    rows = torch.randint(0, len(data.train), (M * B,))
    out = torch.empty(M * B, d_0)
    gather_seconds = 1 / rate(lambda: torch.index_select(data.train.inputs, 0, rows, out=out), 1) / M

    requests = [RetrainRequest(mask_indices(task.card, k), retrain_seed(k, 0)) for k in range(M)]
    trainer = StackedMLPTrainer(task, data)
    trainer.train(requests[:1], [1])
    started = time.process_time()
    trainer.train(requests, [EPOCHS])
    achieved = (time.process_time() - started) * recipe.epochs / EPOCHS / M
    return Measured(
        numbers={
            "stack": M,
            "gflop_per_retrain": flops / 1e9,
            "steps_per_retrain": steps,
            "gemm_gflops": gemm / 1e9,
            "floor_seconds_at_gemm_rate": flops / gemm,
            "seconds_of_products_at_their_shapes": step_seconds * steps,
            "seconds_of_the_update": pass_seconds * steps,
            "update_gigabytes_per_second": 12 * n_params / pass_seconds / 1e9,
            "seconds_of_gathering": gather_seconds * steps,
            "seconds_achieved": achieved,
            "fraction_of_gemm_rate": flops / gemm / achieved,
        }
    )
