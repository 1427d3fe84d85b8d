"""The loss of a training example: how much there was to learn from it, for any test example.

    τ(z', i) = L(z_i; θ),  averaged over checkpoints

the same for every test example. A control: a method that only finds hard examples does no better.
"""

from __future__ import annotations

from torch import Tensor

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.running import evaluate


class LossChange(MeanOfScores):
    """The training loss of the example."""

    name = "loss_change"
    family = "baseline"
    hyperparameters = knobs.models(1, "one model, as for the methods that it is a control for")

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int) -> Tensor:
        """Evaluate the losses."""
        return evaluate(context, checkpoint, context.loss, context.train).repeat(len(context.test), 1)

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """A pass through the model, and the scores."""
        return {
            "a pass through the model": needs.gradients(context),
            "scores": 4 * needs.pairs(context, needs.DOUBLE),
        }
