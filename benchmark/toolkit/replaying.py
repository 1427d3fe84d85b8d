"""Training runs, followed backward in bounded memory; and a plain replay of one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt, sqrt

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.run import Run, TrainingState
from attriboard.toolkit.batches import BatchLosses
from attriboard.toolkit.updates import update_of

TOLERANCE = 0.05
"""How far from the published model a replay may end, relative to how far training moved the parameters."""


@dataclass(frozen=True, eq=False)
class PlainReplay:
    """Trains by the update's formula on the gradients of `BatchLosses`; `initial` are the parameters before it."""

    initial: Mapping[str, Tensor]

    def __call__(self, context: Context, run: Run, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """See `attriboard.contracts.run.Replay`."""
        update = update_of(run.recipe)
        zeros = {name: torch.zeros_like(value) for name, value in self.initial.items()}
        state = start or TrainingState(0, self.initial, (zeros,) * update.n_moments)
        losses = BatchLosses(context, Checkpoint(self.initial, 0, run.seed), tuple(self.initial))
        yield state
        for step in range(state.step, stop):
            gradient = losses.gradient(state.parameters, context.train[run.batch(step)])
            state = update.forth(state, {name: value[0] for name, value in gradient.items()}, run.rates[step])
            yield state


def followable(context: Context) -> None:
    """Refuse a model whose examples meet in training, or that behaves otherwise than when it is evaluated.

    Raises:
        NotApplicableError: training has batch statistics or dropout.
    """
    for name, module in context.model.named_modules():
        kind = type(module).__name__
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            raise NotApplicableError(f"layer {name!r}: {kind} lets the examples of a training batch interact")
        if "Dropout" in kind and getattr(module, "p", 0) > 0:
            raise NotApplicableError(f"layer {name!r}: {kind} is random in training")


def backward(context: Context, run: Run, checkpoint: Checkpoint) -> Iterator[TrainingState]:
    """The states of a run from the last to the first, of which about 2√T are held at a time.

    Every state is made twice: once on the way to the end, and once in its segment of √T updates.

    Args:
        context: that the run is of.
        run: which.
        checkpoint: the published model at whose epoch it ends, to which the distance is reported.

    Raises:
        NotApplicableError: the replay does not end near the published model.
    """
    end = checkpoint.epoch * run.steps_per_epoch
    length = max(1, isqrt(end))
    kept: list[TrainingState] = []
    state = None
    for state in track(run.replay(context, stop=end), "training again", end + 1):
        if state.step % length == 0 and state.step < end:
            kept.append(state)
    assert state is not None
    check_end(context, checkpoint, kept[0], state)
    yield state
    progressed = track(range(end), "updates, backward")
    while kept:
        first = kept.pop()
        stop = min(first.step + length, end) - 1
        segment = list(run.replay(context, first, stop))
        while segment:
            next(progressed)
            yield segment.pop()


def check_end(
    context: Context, checkpoint: Checkpoint, first: TrainingState, last: TrainingState, *, whole: bool = True
) -> None:
    """Report how far from the published model a replay ends.

    Args:
        context: gets the remark.
        checkpoint: the published model.
        first: the initial state of the replay.
        last: its final state.
        whole: whether all parameters that training moves must be attributed.

    Raises:
        NotApplicableError: it is further than `TOLERANCE`, or training moved what is not attributed.
    """

    def length(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
        squares = [float((one[name] - other[name]).double().square().sum()) for name in last.parameters]
        return sqrt(sum(squares))

    left_out = last.parameters.keys() - set(context.attributed)
    if whole and any(not torch.equal(last.parameters[name], first.parameters[name]) for name in left_out):
        raise NotApplicableError("a run is followed with all the parameters that it trains, not with some of them")
    moved = length(last.parameters, first.parameters)
    apart = length(last.parameters, checkpoint.parameters) / max(moved, 1e-30)
    text = f"training seed {checkpoint.seed} again ends {apart:.1e} of its way from the published model"
    if not apart <= TOLERANCE:
        raise NotApplicableError(f"{text}; at most {TOLERANCE} is allowed: this machine computes otherwise")
    context.remark(text)
