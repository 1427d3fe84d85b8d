"""MAGIC: the exact derivative of a trained model's output with respect to the weights of training examples.

Ilyas & Engstrom, "MAGIC: Near-Optimal Data Attribution for Deep Learning" (arXiv 2504.16430):

    τ(z', i) = ∂f(z'; θ_T(w))/∂w_i at w = 1,   averaged over models

where θ_T(w) is what training ends with if the loss of a batch is Σ_{i in batch} w_i ℓ_i / B: the recipe's optimizer,
learning rates, order of examples and initial parameters. Reverse mode: an adjoint of the state (θ, moments) goes back
through every update (`attriboard.toolkit.updates`), one Hessian product with the update's batch each; all test points'
adjoints are one stack. About 2√T states are held, and each is made twice.

Deviations: AdamW's derivative at v = 0 is taken as 0, since the published runs have no ε inside of the root; several
models are averaged. Computation is in the model's precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attriboard.contracts.attributor import Context
from attriboard.contracts.run import Run, TrainingState
from attriboard.toolkit import knobs
from attriboard.toolkit.batches import BatchLosses
from attriboard.toolkit.unrolling import Unrolled, batch_at
from attriboard.toolkit.updates import Adjoint, Stack, update_of


class MAGIC(Unrolled):
    """Differentiation through the whole training run."""

    name = "magic"
    paper = "arXiv:2504.16430"
    family = "unrolled"
    hyperparameters = (
        knobs.checkpoints(1, "arXiv 2504.16430: one model; the mean over several is ours"),
        knobs.epoch(),
    )

    def moments(self, run: Run) -> int:
        """Those of the optimizer, and c."""
        return update_of(run.recipe).n_moments

    def follow(
        self,
        context: Context,
        run: Run,
        losses: BatchLosses,
        states: Iterator[TrainingState],
        gradients: Stack,
        scores: Tensor,
    ) -> None:
        """Take the adjoints back through every update."""
        update = update_of(run.recipe)
        zeros = [{name: torch.zeros_like(value) for name, value in gradients.items()} for _ in range(update.n_moments)]
        adjoint = Adjoint(gradients, tuple(zeros))
        for state in states:
            batch, rows = batch_at(context, run, losses, state)
            gradient: Stack = {}
            if update.needs_gradient:
                gradient = {name: torch.zeros_like(value[:1]) for name, value in gradients.items()}
                batch.add_combination(scores.new_ones(1, len(rows)), gradient, 1 / len(rows))
            c = update.back(adjoint, state, {name: value[0] for name, value in gradient.items()}, run.rates[state.step])
            slopes = batch.add_hessian(c, adjoint.parameters, 1 / len(rows))
            scores.index_add_(1, rows, slopes.to(scores.dtype), alpha=1 / len(rows))
            update.finish(adjoint)
