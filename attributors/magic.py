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

from typing import Any

from torch import Tensor

from attriboard.toolkit import knobs
from attriboard.toolkit.batches import Batch
from attriboard.toolkit.unrolling import Unrolled
from attriboard.toolkit.updates import Stack


class MAGIC(Unrolled):
    """Differentiation through the whole training run."""

    name = "magic"
    paper = "arXiv:2504.16430"
    family = "unrolled"
    hyperparameters = (
        knobs.checkpoints(1, "arXiv 2504.16430: one model; the mean over several is ours"),
        knobs.epoch(),
    )

    def curve(self, batch: Batch, c: Stack, into: Stack, scale: float, *args: Any, **values: Any) -> Tensor:
        """The Hessian's."""
        return batch.add_hessian(c, into, scale)
