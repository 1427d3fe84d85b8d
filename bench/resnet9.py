"""Retraining `cifar2_resnet9_mini` on a half-subset: ours against dattri's loop, on one thread.

dattri's loop is run as it is, `train_cifar_resnet9` with its DataLoader, but on our network: its own is four times as
wide. Both train the same subset for the same number of epochs with the same batch size, in turn, so that a busy
machine hurts both; a few epochs are enough for a rate.
"""

import time
from typing import Any
from unittest import mock

import torch

from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.plan import mask_indices, retrain_seed
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.request import RetrainRequest
from bench.report import Comparison, Measured

N_EPOCHS = 1


def ours(task: Any, data: Any) -> float:
    """Seconds of one epoch of our trainer."""
    trainer, request = LoopTrainer(task, data), RetrainRequest(mask_indices(task.card, 0), retrain_seed(0, 0))
    started = time.perf_counter()
    trainer.train([request], (N_EPOCHS,))
    return time.perf_counter() - started


def dattri(task: Any, data: Any) -> float:
    """Seconds of one epoch of `dattri.benchmark.datasets.cifar.train_cifar_resnet9`, on our network."""
    from dattri.benchmark.datasets.cifar import cifar_resnet9
    from torch.utils.data import DataLoader, Subset, TensorDataset

    dataset = TensorDataset(data.train.inputs, data.train.targets)
    subset = Subset(dataset, mask_indices(task.card, 0).tolist())
    loader = DataLoader(subset, batch_size=task.card.recipe.batch_size, shuffle=True)
    with mock.patch.object(cifar_resnet9, "create_resnet9_model", return_value=task.build_model()):
        started = time.perf_counter()
        cifar_resnet9.train_cifar_resnet9(loader, num_epochs=N_EPOCHS)
        return time.perf_counter() - started


def measure(repetitions: int = 5) -> Measured:
    """Ratio with its spread; the first repetition warms up and is not counted."""
    torch.set_num_threads(1)
    task = load_task("cifar2_resnet9_mini")
    data = task.load_data()
    pairs = [(ours(task, data), dattri(task, data)) for _ in range(repetitions + 1)][1:]
    n_epochs = task.card.recipe.epochs / N_EPOCHS
    mine, theirs = ([taken * n_epochs for taken in column] for column in zip(*pairs, strict=True))
    what = "one retrain of cifar2_resnet9_mini on half the data, one thread"
    note = f"from {N_EPOCHS} of {task.card.recipe.epochs} epochs, on our network in dattri's loop"
    return Measured([Comparison(what, "dattri 0.3.0", mine, theirs, note)])
