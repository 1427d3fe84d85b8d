"""My method: one sentence on what it computes.

Authors, "Title", venue year (arXiv 0000.00000):

    τ(z', i) = −⟨∇L(z_i), ∇f(z')⟩ / ‖∇L(z_i)‖^power,  averaged over checkpoints

Deviations: say here where the code leaves the paper.

This file is a template: copy it, change it, and check it with `attriboard check attributor my_method.py`.
"""

import torch

from attriboard import Attributor, Context, Hyperparameter
from attriboard.base.errors import NotApplicableError
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.gradients import per_example_gradients

State = list[tuple[torch.Tensor, torch.Tensor]]


class MyMethod(Attributor):
    """Inner products of gradients, divided by a power of the training gradient's length."""

    name = "my_method"
    paper = "arXiv:0000.00000"
    family = "gradient similarity"
    hyperparameters = (
        # Stage "score": a sweep fits once for all values. What `fit` needs has stage "fit", which is the default.
        Hyperparameter("power", 1.0, "section 3 of the paper", stage="score", grid=(0.0, 0.5, 1.0, 2.0), minimum=0.0),
        # Names that several methods share; pass your default and where it comes from. Selectors can choose a λ,
        # `knobs.regularization`; say `curvature = "hessian"` in the class if it is added to the Hessian.
        knobs.checkpoints(1, "the paper: one model"),
        knobs.epoch(),
    )

    def fit(self, context: Context, *, checkpoints: int, epoch: int | None) -> State:
        """Everything that does not depend on `power`: products (n_test, n_train) and lengths (n_train,)."""
        if not context.train.inputs.is_floating_point():
            raise NotApplicableError("inputs are token ids; the paper is about images")  # a row with this reason
        state = []
        for checkpoint in context.select_checkpoints(checkpoints, epoch=epoch):
            test = torch.cat(list(per_example_gradients(context, checkpoint, context.target, context.test)))
            products, lengths = [], []
            for block in per_example_gradients(context, checkpoint, context.loss, context.train):
                products.append(test @ block.T)
                lengths.append(block.norm(dim=1))
            state.append((torch.cat(products, dim=1), torch.cat(lengths).clamp_min(1e-12)))
        return state

    def score(self, state: State, *, power: float) -> torch.Tensor:
        """(n_test, n_train) float32, positive = including the training example raises the target."""
        return -torch.stack([products / lengths**power for products, lengths in state]).mean(0)

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """Optional: what is held at once, in bytes. What needs more than there is fails before it begins."""
        return {
            "test gradients": needs.gradients(context),
            "training gradients": needs.gradients(context),
            "products": (3 + 2 * checkpoints) * needs.pairs(context),
        }
