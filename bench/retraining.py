"""Retraining `mnist_mlp` on half-subsets: ours against dattri's loop, and against the machine's GEMM rate.

One repetition trains the same subsets for 50 epochs with both, on the same number of threads, one after the other;
repetitions are interleaved so that a busy machine hurts both. Ours are local processes with one thread each; dattri's
loop gets its own DataLoader and the same number of threads.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.plan import mask_indices, retrain_seed
from attriboard.retraining.engine import retrain
from attriboard.retraining.executors import LocalProcesses, usable_cores
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore
from bench.report import Comparison, Measured

N_OURS = 40  # retrains of ours in one repetition: eight stacks, of which the first of each worker is not counted


def gemm_rate(seconds: float = 1.0) -> float:
    """Floating-point operations per second of a 2,048³ float32 product on all threads."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    a @ b
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        a @ b
        count += 1
    return 2 * 2048**3 * count / (time.perf_counter() - started)


def operations(task: Any) -> float:
    """Multiply-adds × 2 of one half-subset retrain: forward, weight gradients, and input gradients but the first."""
    shapes = [p.shape for p in task.build_model().parameters() if p.dim() == 2]
    products = sum(d_out * d_in for d_out, d_in in shapes)
    inner = sum(d_out * d_in for d_out, d_in in shapes[1:])
    return 2.0 * (2 * products + inner) * task.card.subset_size * task.card.recipe.epochs


def seconds_per_retrain(task: Task, n_workers: int, count: int) -> float:
    """Of `count` retrains, without the start of the processes: from the first finished stacks to the last."""
    requests = [RetrainRequest(mask_indices(task.card, k), retrain_seed(k, 0)) for k in range(count)]
    seen: list[tuple[int, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        store = RetrainStore(Path(folder), task.card.fingerprint)
        executor = LocalProcesses(n_workers)
        retrain(task, requests, store, executor, lambda done, total: seen.append((done, time.perf_counter())))
    # The workers' first stacks include importing PyTorch and loading the data.
    (before, first), (after, last) = seen[n_workers], seen[-1]
    return (last - first) / (after - before)


def dattri(task: Any, data: Any) -> float:
    """Seconds of one retrain by `dattri.benchmark.datasets.mnist.train_mnist_mlp`."""
    from dattri.benchmark.datasets.mnist import train_mnist_mlp
    from torch.utils.data import DataLoader, Subset, TensorDataset

    dataset = TensorDataset(data.train.inputs.view(-1, 1, 28, 28), data.train.targets)
    loader = DataLoader(Subset(dataset, mask_indices(task.card, 0).tolist()), batch_size=64, shuffle=True)
    started = time.perf_counter()
    train_mnist_mlp(loader, epoch_num=task.card.recipe.epochs)
    return time.perf_counter() - started


def measure(repetitions: int = 5) -> Measured:
    """The ratio, and the fraction of the rate of large products."""
    task = load_task("mnist_mlp")
    data = task.load_data()
    n_threads = usable_cores()
    torch.set_num_threads(n_threads)
    flops = operations(task)
    mine, theirs, rates = [], [], []
    for _ in range(repetitions):
        rates.append(gemm_rate())
        mine.append(seconds_per_retrain(task, n_threads, N_OURS))
        theirs.append(dattri(task, data))
    fractions = [flops / m / rate for m, rate in zip(mine, rates, strict=True)]
    what = f"one retrain of mnist_mlp on half the data, {n_threads} core{'s' * (n_threads > 1)}"
    return Measured(
        [Comparison(what, "dattri 0.3.0", mine, theirs)],
        {
            "gemm_fraction": statistics.median(fractions),
            "gemm_fraction_range": [min(fractions), max(fractions)],
            "gemm_gflops": statistics.median(rates) / 1e9,
        },
    )
