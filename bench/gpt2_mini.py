"""Retraining `wikitext2_gpt2_mini` on half-subsets: ours, stacked, against dattri's loop on the same subsets.

dattri's loop loads the pretrained GPT-2; here it gets a Hugging Face GPT-2 of the mini's size, its blocks, epochs
and batch size. Both use the same number of threads, one after the other, in repetitions that are interleaved so that a
busy machine hurts both: ours as local processes with one thread each, dattri's loop with all threads in one process.
"""

import time
from typing import Any

import torch

from attriboard.contracts.task import Dataset, Task
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.plan import mask_indices
from attriboard.retraining.choosing import trainer_class
from attriboard.retraining.executors import usable_cores
from bench.report import Comparison, Measured
from bench.retraining import seconds_per_retrain

TASK = "wikitext2_gpt2_mini"
N_STACKS = 3  # of ours per process in one repetition; the first of each is not counted


def dattri(task: Task, data: Dataset) -> float:
    """Seconds of one retrain by `dattri.benchmark.datasets.wikitext2.train_wikitext2_gpt2`."""
    from dattri.benchmark.datasets.wikitext2 import wikitext2_gpt2
    from torch.utils.data import DataLoader
    from transformers import GPT2LMHeadModel

    built: Any = task.build_model()
    wikitext2_gpt2.create_gpt2_model = lambda: GPT2LMHeadModel(built.gpt2.config)
    blocks = data.train.inputs[torch.from_numpy(mask_indices(task.card, 0))]
    examples = [{"input_ids": block, "labels": block} for block in blocks]
    loader: Any = DataLoader(examples, batch_size=task.card.recipe.batch_size, shuffle=True)  # type: ignore[arg-type]
    started = time.perf_counter()
    wikitext2_gpt2.train_wikitext2_gpt2(loader, epoch_num=task.card.recipe.epochs)
    return time.perf_counter() - started


def measure(repetitions: int = 3) -> Measured:
    """Ratios with their spread."""
    task = load_task(TASK)
    data = task.load_data()
    n_threads = usable_cores()
    torch.set_num_threads(n_threads)
    count = N_STACKS * n_threads * trainer_class(task).stack_size(task)
    mine, theirs = [], []
    for _ in range(repetitions):
        mine.append(seconds_per_retrain(task, n_threads, count))
        theirs.append(dattri(task, data))
    what = f"one retrain of wikitext2_gpt2_mini on half the data, {n_threads} core{'s' * (n_threads > 1)}"
    return Measured([Comparison(what, "dattri 0.3.0", mine, theirs, "a GPT-2 of the mini's size in dattri's loop")])
