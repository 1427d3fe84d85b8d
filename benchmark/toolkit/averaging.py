"""The loop over checkpoints that methods share: every model by itself, then the mean of their scores.

A method of this kind says what it does with one checkpoint, in `fit_one`, and has `knobs.ONE_MODEL` or its own
`checkpoints`, `epoch` and, if it likes, `checkpoint_data` in its table.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from attriboard.contracts.attributor import Attributor
from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.spectrum import Spectrum


class Fit(Protocol):
    """One checkpoint, ready for every value of the score-stage hyperparameters."""

    @property
    def spectrum(self) -> Spectrum | None:
        """Its eigenvalues, where it has any."""

    def scores(self, **hyperparameters: Any) -> Tensor:
        """τ (n_test, n_train): a new matrix, which the caller may change."""


@dataclass(frozen=True)
class Fits:
    """A fit for each checkpoint, and the context that they come from."""

    context: Context
    models: tuple[Any, ...]


class EveryCheckpoint(Attributor):
    """A method that fits one checkpoint at a time."""

    @abstractmethod
    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *args: Any, **hyperparameters: Any) -> Any:
        """Fit one checkpoint.

        Args:
            context: what the method may see.
            checkpoint: the model.
            stream: its number, which tells the random draws of several models apart.
            args: none.
            hyperparameters: the fit-stage values but those that chose the model.
        """

    def each(
        self,
        context: Context,
        checkpoints: int,
        epoch: int | None = None,
        checkpoint_data: Literal["full", "half"] = "full",
        **hyperparameters: Any,
    ) -> Iterator[Any]:
        """`fit_one` of every chosen model, in turn."""
        models = context.select_checkpoints(checkpoints, epoch=epoch, data=checkpoint_data)
        for stream, checkpoint in enumerate(track(models, "models")):
            yield self.fit_one(context, checkpoint, stream, **hyperparameters)


class MeanOfFits(EveryCheckpoint):
    """One whose fits are scored later: `fit_one` returns a `Fit`."""

    def fit(self, context: Context, **hyperparameters: Any) -> Fits:
        """Fit every checkpoint."""
        return Fits(context, tuple(self.each(context, **hyperparameters)))

    def total(self, state: Fits, **hyperparameters: Any) -> Tensor:
        """The sum of the models' scores, (n_test, n_train)."""
        first, *others = state.models
        total: Tensor = first.scores(**hyperparameters)
        for one in others:
            total += one.scores(**hyperparameters)
        return total

    def score(self, state: Fits, *args: Any, **hyperparameters: Any) -> Tensor:
        """The mean over checkpoints."""
        return self.total(state, **hyperparameters).div_(len(state.models)).float().contiguous()

    def spectrum(self, state: Fits) -> list[Spectrum] | None:
        """Of every checkpoint."""
        spectra = [one.spectrum for one in state.models]
        return None if any(one is None for one in spectra) else spectra


class FixedScores(Attributor):
    """A method without score-stage hyperparameters: `fit` returns the scores."""

    def score(self, state: Tensor) -> Tensor:
        """What was found, as a new matrix."""
        return state.clone()


class MeanOfScores(FixedScores, EveryCheckpoint):
    """One whose `fit_one` returns the scores of a checkpoint, (n_test, n_train): a new matrix."""

    def fit(self, context: Context, **hyperparameters: Any) -> Tensor:
        """The mean over checkpoints."""
        count, total = 0, None
        for scores in self.each(context, **hyperparameters):
            count, total = count + 1, scores if total is None else total.add_(scores)
        assert isinstance(total, Tensor)
        return total.div_(count).float().contiguous()
