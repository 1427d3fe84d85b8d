"""What methods that follow a run backward share: test gradients at its end, groups of test points, models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.progress import track
from attriboard.contracts.run import Run, TrainingState
from attriboard.toolkit import needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.batches import Batch, BatchLosses
from attriboard.toolkit.effort import PRODUCT, forward_operations
from attriboard.toolkit.gradients import attributed_shapes, by_parameter, count_parameters, per_example_gradients
from attriboard.toolkit.replaying import backward, followable
from attriboard.toolkit.updates import Adjoint, Stack, update_of

ADJOINT_BYTES = 2 * 2**30
"""Memory for the stacks of all test points that go through a run together."""

AMPLIFIED = 1e3
"""Growth of the test gradients, on the way back to the first update, beyond which their scores are called diverged."""


class Unrolled(MeanOfScores):
    """A method that takes all test points' gradients back through the training of each model."""

    order_sensitive = True

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *args: Any, **values: Any) -> Tensor:
        """Follow the run of one checkpoint backward."""
        followable(context)
        run = context.run_of(checkpoint)
        losses = BatchLosses(context, checkpoint)
        scores = torch.zeros(len(context.test), len(context.train), dtype=losses.dtype, device=context.device)
        stacks = 2 + update_of(run.recipe).n_moments
        size = stacks * losses.dtype.itemsize * count_parameters(context)
        together = max(1, ADJOINT_BYTES // size)
        for start in track(range(0, len(context.test), together), "test points"):
            points = slice(start, start + together)
            states = backward(context, run, checkpoint)
            last = next(states)
            gradients = self._gradients(context, checkpoint, last, points)
            self._follow(context, run, losses, states, gradients, scores[points], **values)
        return scores

    @abstractmethod
    def curve(self, batch: Batch, c: Stack, into: Stack, scale: float, *args: Any, **values: Any) -> Tensor:
        """Add `scale` Σ_i H_i c to `into`, with the method's H_i, and return the slopes ⟨c, ∇ℓ_i⟩ (k, B).

        Args:
            batch: of the update.
            c: ∂f/∂g of the batch's gradient g (k, *shape).
            into: ∂f/∂θ before the update, but for what goes through g.
            scale: 1/B.
            args: none.
            values: the method's own fit-stage values.
        """

    def _follow(
        self,
        context: Context,
        run: Run,
        losses: BatchLosses,
        states: Iterator[TrainingState],
        gradients: Stack,
        scores: Tensor,
        **values: Any,
    ) -> None:
        """Take the adjoints of some test points back through every update, and add their scores (k, n_train)."""
        update = update_of(run.recipe)
        zeros = [{name: torch.zeros_like(value) for name, value in gradients.items()} for _ in range(update.n_moments)]
        adjoint = Adjoint(gradients, tuple(zeros))
        size = _size(gradients)
        for state in states:
            batch, rows = batch_at(context, run, losses, state)
            gradient: Stack = {}
            if update.needs_gradient:
                gradient = {name: torch.zeros_like(value[:1]) for name, value in gradients.items()}
                batch.add_combination(scores.new_ones(1, len(rows)), gradient, 1 / len(rows))
            c = update.back(adjoint, state, {name: value[0] for name, value in gradient.items()}, run.rates[state.step])
            slopes = self.curve(batch, c, adjoint.parameters, 1 / len(rows), **values)
            scores.index_add_(1, rows, slopes.to(scores.dtype), alpha=1 / len(rows))
            update.finish(adjoint)
        grown = _size(adjoint.parameters) / max(size, 1e-300)
        if not grown <= AMPLIFIED:
            context.remark(f"diverged: test gradients grew {grown:.0e}-fold on the way back through the run")

    def _gradients(self, context: Context, checkpoint: Checkpoint, last: TrainingState, points: slice) -> Stack:
        """Test gradients at the end of the replay, not at the published model: the bits of one run."""
        end = Checkpoint(last.parameters, checkpoint.epoch, checkpoint.seed, checkpoint.indices, last.buffers)
        flat = torch.cat(list(per_example_gradients(context, end, context.target, context.test[points])))
        return {name: one.contiguous() for name, one in by_parameter(flat, attributed_shapes(context)).items()}

    def memory_need(self, context: Context, **others: Any) -> dict[str, int]:
        """Stacks of test points, the states of a run, and what a batch needs."""
        n_params, n_test = count_parameters(context), len(context.test)
        steps = max((run.n_steps for run in context.runs), default=1)
        numbers = needs.DOUBLE * n_params
        return {
            "stacks of test gradients": min(2 * ADJOINT_BYTES, 6 * n_test * numbers) + needs.gradients(context),
            "states of a run": int(3 * numbers * (2 * steps**0.5 + 4)),
            "products of a batch": needs.sweep(context, n_test),
            "scores": 4 * needs.pairs(context, needs.DOUBLE),
        }

    def work_need(self, context: Context, *, checkpoints: int, epoch: int | None, **others: Any) -> dict[str, float]:
        """One product for each test point and update."""
        if not context.runs:
            return {}
        model = context.select_checkpoints(checkpoints, epoch=epoch)[0]
        run = context.run_of(model)
        seen = checkpoints * model.epoch * run.n * forward_operations(context)
        return {"products with curvatures": PRODUCT * seen * len(context.test), "training twice": 2 * 3 * seen}


def batch_at(context: Context, run: Run, losses: BatchLosses, state: TrainingState) -> tuple[Batch, Tensor]:
    """The batch of the update that follows a state, and its rows."""
    rows = run.batch(state.step).to(context.train.inputs.device)
    return losses.at(state.parameters, context.train[rows]), rows


def _size(stack: Stack) -> float:
    """‖x‖ over all directions."""
    return float(torch.stack([value.double().norm() for value in stack.values()]).norm())
