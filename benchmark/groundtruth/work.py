"""What a retrain computes, counted without computing it, and how long accelerators would take.

One batch of PyTorch's fake tensors, which have shapes and no numbers, goes through the model and back.
`torch.utils.flop_counter` counts the operations of matrix products and convolutions, forward and backward, two for each
multiply-add; everything else is small beside them. What autograd keeps for the backward pass is added up.

Seconds are these operations at a quarter of a card's peak, and never less than a few milliseconds a step, which it
takes to start the kernels of a small network. That is a guess, and the first retrains correct it; see
`attriboard groundtruth build`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from attriboard.base.terminal import duration
from attriboard.contracts.card import Recipe
from attriboard.contracts.question import Question
from attriboard.contracts.task import Examples, Task
from attriboard.groundtruth.plan import checkpoint_requests, truth_requests
from attriboard.retraining.request import RetrainRequest

SHARE_OF_PEAK = 0.25
STEP_SECONDS = 3e-3
_OPTIMIZER_COPIES = {"sgd": 1, "adamw": 2}  # beside the parameters and their gradient
_CONVOLUTIONS = ("convolution", "convolution_backward")


@dataclass(frozen=True)
class Card:
    """A class of accelerators.

    Attributes:
        name: of a typical one.
        memory: bytes.
        float32, convolution, bfloat16: peak rates in FLOP/s of matrix products in single precision, of convolutions,
            which PyTorch runs in TF32 by default where a card has it, and of both in bfloat16, without sparsity.
            From the makers' data sheets.
    """

    name: str
    memory: float
    float32: float
    convolution: float
    bfloat16: float


CARDS = (
    Card("T4, 16 GB", 16e9, 8.1e12, 8.1e12, 8.1e12),  # it has no bfloat16
    Card("RTX 4090, 24 GB", 24e9, 82.6e12, 82.6e12, 165.2e12),
    Card("A100, 40 GB", 40e9, 19.5e12, 156e12, 312e12),
    Card("H100, 80 GB", 80e9, 67e12, 494.7e12, 989.4e12),
)


@dataclass(frozen=True)
class Work:
    """What training on a number of examples computes.

    Attributes:
        products, convolutions: FLOP of one training step on a full batch.
        batch_size: examples of that batch.
        state_bytes: parameters, gradient and what the optimizer keeps.
        saved_bytes: what autograd keeps of a batch, in single precision.
        recipe: the task's.
    """

    products: float
    convolutions: float
    batch_size: int
    state_bytes: int
    saved_bytes: int
    recipe: Recipe

    @property
    def memory(self) -> int:
        """Bytes that training needs, without PyTorch's own."""
        return self.state_bytes + self.saved_bytes

    def flop(self, n_examples: int) -> float:
        """Operations of one retrain on `n_examples` training examples."""
        return (self.products + self.convolutions) * self._batches(n_examples)

    def seconds(self, n_examples: int, card: Card) -> float:
        """Seconds of one retrain at `SHARE_OF_PEAK` of a card, at least `STEP_SECONDS` for each step."""
        reduced = self.recipe.precision == "bfloat16"
        products = self.products / (card.bfloat16 if reduced else card.float32)
        convolutions = self.convolutions / (card.bfloat16 if reduced else card.convolution)
        return max((products + convolutions) / SHARE_OF_PEAK, STEP_SECONDS) * self._batches(n_examples)

    def _batches(self, n_examples: int) -> float:
        return self.recipe.epochs * n_examples / self.batch_size


def work_of(task: Task, train: Examples) -> Work | None:
    """What one training step of a task computes; `None` where its model needs numbers, not shapes alone.

    Args:
        task: the task.
        train: its training examples, or others of their shapes, at least a batch.
    """
    recipe = task.card.recipe
    batch = [part[: recipe.batch_size] for part in (train.inputs, train.targets)]
    try:
        with FakeTensorMode() as mode:
            model = task.build_model().train()
            inputs, targets = map(mode.from_tensor, batch)
            kept: dict[int, int] = {}

            def note(tensor: torch.Tensor) -> torch.Tensor:
                storage = tensor.untyped_storage()
                kept[storage._cdata] = storage.nbytes()
                return tensor

            with FlopCounterMode(display=False) as counter:
                with saved_tensors_hooks(note, lambda tensor: tensor):
                    loss = task.loss(model(inputs), targets).mean()
                loss.backward()  # type: ignore[no-untyped-call]
    except Exception:  # of a model that is not ours, and looks at its numbers
        return None
    counts: dict[Any, int] = counter.get_flop_counts().get("Global", {})
    convolutions = sum(count for op, count in counts.items() if str(op).rpartition(".")[2] in _CONVOLUTIONS)
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return Work(
        products=float(sum(counts.values()) - convolutions),
        convolutions=float(convolutions),
        batch_size=len(inputs),
        state_bytes=size * (2 + _OPTIMIZER_COPIES.get(recipe.optimizer, 0)),
        saved_bytes=sum(kept.values()),
        recipe=recipe,
    )


@dataclass(frozen=True)
class Expected:
    """All retrains of a build, and what they take.

    Attributes:
        requests: checkpoints and ground truths.
        work: of the task; `None` where it cannot be counted.
    """

    requests: tuple[RetrainRequest, ...]
    work: Work | None

    @property
    def flop(self) -> float | None:
        """Operations of all together."""
        return None if self.work is None else sum(self.work.flop(len(r.indices)) for r in self.requests)

    def seconds(self, card: Card) -> float | None:
        """Seconds of all, one after the other."""
        return None if self.work is None else sum(self.work.seconds(len(r.indices), card) for r in self.requests)

    def __str__(self) -> str:
        n = len(self.requests)
        if self.work is None or self.flop is None:
            return f"{n} retrains; what one computes could not be counted"
        times = ", ".join(f"{duration(self.seconds(card) or 0)} ({card.name})" for card in CARDS)
        return (
            f"{n} retrains of {_tera(self.flop / n)} TFLOP, {self.work.memory / 1e9:.2g} GB for one at a time; "
            f"at a quarter of an accelerator's peak about {times}"
        )

    def after(
        self, first: Sequence[RetrainRequest], taken: float, rest: Sequence[RetrainRequest], n_workers: int
    ) -> str:
        """What is known once a few retrains are done.

        Args:
            first: these.
            taken: their process-seconds together.
            rest: what is left.
            n_workers: how many train at the same time.
        """
        examples = sum(len(request.indices) for request in first)
        left = taken * sum(len(request.indices) for request in rest) / examples / n_workers
        rate = "" if self.work is None else f", {self.work.flop(examples) / taken / 1e9:,.0f} GFLOP/s"
        return (
            f"the first {len(first)} took {taken / len(first):.3g} s each{rate}: about {duration(left)} for the other "
            f"{len(rest)}"
        )

    def cells(self) -> tuple[str, ...]:
        """A row of a table."""
        if self.work is None or self.flop is None:
            return str(len(self.requests)), *["not counted"] * (2 + len(CARDS))
        times = [duration(self.seconds(card) or 0) for card in CARDS]
        return str(len(self.requests)), _tera(self.flop), f"{self.work.memory / 1e9:.2g} GB", *times

    def document(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "retrains": len(self.requests),
            "flop": self.flop,
            "memory_bytes": None if self.work is None else self.work.memory,
            "seconds": {card.name: self.seconds(card) for card in CARDS},
        }


def expected_work(
    task: Task, asked: Sequence[Question | None], n_masks: int | None = None, n_repeats: int | None = None
) -> Expected:
    """What building ground truths takes, with the checkpoints where the usual one is among them.

    Args:
        task: the task.
        asked: questions; `None` is the usual one.
        n_masks: number of subsets; the card's by default.
        n_repeats: retrains of each; the card's by default.

    Raises:
        InputError: sizes out of range.
        DataError: the data is missing.
    """
    card = task.card
    requests = checkpoint_requests(card) if None in asked else []
    for question in asked:
        size = card.size_of(question)
        requests += truth_requests(card, n_masks or size.n_masks, n_repeats or size.n_repeats, question)
    return Expected(tuple(requests), work_of(task, task.load_data().train))


def _tera(flop: float) -> str:
    value = flop / 1e12
    return f"{value:,.0f}" if value >= 99.5 else f"{value:.3g}"
