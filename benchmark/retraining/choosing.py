"""Which trainer a task gets: the fastest that is found to compute the task's own loss, model and recipe."""

from dataclasses import dataclass
from functools import cached_property

import torch

from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.agreement import disagreement, draws_random_numbers
from attriboard.retraining.device import place, training_device
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.opening import check_task
from attriboard.retraining.stacked_gpt2 import StackedGPT2Trainer
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from attriboard.retraining.trainer import Trainer
from attriboard.retraining.vmapped import VmapTrainer, obstacle

TRAINERS: tuple[type[Trainer], ...] = (
    StackedMLPTrainer,
    StackedGPT2Trainer,
    VmapTrainer,
    LoopTrainer,
)  # fastest first; the last fits every task


@dataclass(frozen=True)
class Choice:
    """Which trainer a task gets.

    Attributes:
        trainer: the fastest that computes what the task says.
        reasons: why faster ones were tried and left.
    """

    trainer: type[Trainer]
    reasons: tuple[str, ...] = ()


class Opened:
    """A task with its data, checked, and its trainer: what a process finds out about a task once.

    Args:
        task: the task.
        device: where its models are trained.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self.task, self.device = task, device

    @cached_property
    def data(self) -> Dataset:
        """The task's data, on the training device.

        Raises:
            DataError: no source has it.
            InputError: it does not go together with the model and the loss; see `check_task`.
        """
        data = self.task.load_data()
        check_task(self.task, data)
        return place(data, self.device)

    @cached_property
    def draws(self) -> bool:
        """Whether training draws random numbers, as dropout does."""
        return draws_random_numbers(self.task, self.data)

    @cached_property
    def choice(self) -> Choice:
        """The trainer on a CPU; each candidate is tried beside the plain loop."""
        reasons: list[str] = []
        *stacked, plain = candidates(self.task)
        for trainer in stacked:
            data = self.data if self.device.type == "cpu" else self.task.load_data()
            reason = disagreement(trainer, self.task, data)
            if reason is None:
                return Choice(trainer, tuple(reasons))
            reasons.append(f"{trainer.__name__} is not used: {reason}")
        return Choice(plain, tuple(reasons))

    @cached_property
    def trainer(self) -> Trainer:
        """Ready to train."""
        kind = self.choice.trainer if self.device.type == "cpu" else LoopTrainer
        return kind(self.task, self.data)


_opened: list[Opened] = []  # the last one


def opened(task: Task) -> Opened:
    """What this process knows of a task.

    Raises:
        InputError: the environment names a device that is not there.
    """
    device = training_device()
    if not _opened or _opened[0].task is not task or _opened[0].device != device:
        _opened[:] = [Opened(task, device)]
    return _opened[0]


def current_reasons() -> tuple[str, ...]:
    """Why the task that this process trains has a slower trainer than it might have."""
    return _opened[0].choice.reasons if _opened and _opened[0].device.type == "cpu" else ()


def choose_trainer(task: Task) -> Choice:
    """The trainer of a task on a CPU.

    Without data on this machine nothing can be tried, and the first candidate is named; the process that trains
    has data, and tries it.
    """
    first = candidates(task)[0]
    if first is LoopTrainer or not task.data_available():
        return Choice(first)
    return opened(task).choice


def candidates(task: Task) -> list[type[Trainer]]:
    """Trainers that may fit a task, fastest first, the plain loop last.

    Models of which no two fit a stack gain nothing from one, and trying it, in float64, takes several times the memory
    of training: for GPT-2 with 124 million parameters more than 16 GB.
    """
    return [t for t in TRAINERS if t is LoopTrainer or (t.supports(task) and t.stack_size(task) > 1)]


def trainer_class(task: Task, device: str = "cpu") -> type[Trainer]:
    """The trainer of a task on a device; stacks are laid out for CPUs. See `choose_trainer`."""
    return choose_trainer(task).trainer if device == "cpu" else LoopTrainer


def describe_training(task: Task) -> str:
    """How many models are trained at once on a CPU, or why one after the other, as a predicate."""
    choice = choose_trainer(task)
    size = choice.trainer.stack_size(task)
    reasons = "; ".join(choice.reasons)
    if not task.data_available() and choice.trainer is not LoopTrainer:
        return (
            f"trains up to {size} models at once in each process, if that computes the task's own loss: its data is "
            "not here, so every worker tries it and says where it does not"
        )
    if size > 1:
        return f"trains up to {size} models at once in each process" + (f" ({reasons})" if reasons else "")
    return f"trains one model after the other in each process: {obstacle(task) or reasons or 'one fills the cache'}"
