"""A training run as evidence: recipe, order of examples, and a replay of every step. No ground truth comes near it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from attriboard.contracts.card import Recipe

if TYPE_CHECKING:
    import torch

    from attriboard.contracts.context import Context


@dataclass(frozen=True)
class TrainingState:
    """A model after so many updates.

    Attributes:
        step: how many.
        parameters: name → tensor.
        moments: what the optimizer remembers, name → tensor each: the velocity of SGD with momentum, the two moments of
            AdamW, nothing for plain SGD.
        buffers: name → tensor (running statistics), empty for most models.
    """

    step: int
    parameters: Mapping[str, torch.Tensor]
    moments: tuple[Mapping[str, torch.Tensor], ...] = ()
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Order(Protocol):
    """The order of examples."""

    def __call__(self, epoch: int) -> torch.Tensor:
        """Rows of the training examples, as one epoch, from 1 on, takes them: (n,) int64."""


class Replay(Protocol):
    """Trains again."""

    def __call__(self, context: Context, run: Run, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """The states from `start`, by default the initial one, to that after `stop` updates."""


@dataclass(frozen=True)
class Run:
    """How one published model was trained.

    Attributes:
        recipe: optimizer, momentum, weight decay, clipping, batch size, epochs.
        seed: the retrain's seed.
        n: number of training examples that it saw.
        rates: the learning rate of every update.
        order: of the examples in every epoch, as rows of `Context.train`.
        replayer: what trains again.
        indices: training examples it saw, ascending int64; `None` for all.
    """

    recipe: Recipe
    seed: int
    n: int
    rates: tuple[float, ...]
    order: Order
    replayer: Replay
    indices: torch.Tensor | None = None

    @property
    def n_steps(self) -> int:
        """Number of updates T."""
        return len(self.rates)

    @property
    def steps_per_epoch(self) -> int:
        """Updates in each epoch; the last batch of one may be short."""
        return -(-self.n // self.recipe.batch_size)

    def batch(self, step: int) -> torch.Tensor:
        """Rows of `Context.train` in one update, from 0 on."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.recipe.batch_size
        return self.order(epoch + 1)[start : start + self.recipe.batch_size]

    def replay(
        self, context: Context, start: TrainingState | None = None, stop: int | None = None
    ) -> Iterator[TrainingState]:
        """States step by step, that before the first update included.

        Args:
            context: that the run is of.
            start: where to begin; the initial parameters where `None`.
            stop: number of updates at which to end; all of them where `None`.

        Yields:
            The state after 0, 1, …, `stop` updates, or from `start.step` on. What is yielded is not changed afterwards.

        Raises:
            NotApplicableError: the training cannot be followed step by step.
        """
        return self.replayer(context, self, start, self.n_steps if stop is None else stop)
