"""LESS: cosines of target gradients with what the optimizer makes of training gradients.

Xia et al., "LESS: Selecting Influential Data for Targeted Instruction Tuning", ICML 2024 (arXiv 2402.04333):

    τ(z', i) = −Σ_c η_c cos(P g'_c, P Γ_c(g_{i,c})),   averaged over runs

over the checkpoints c that were kept of a run, up to `epoch`, with η_c the learning rate of the last update before it.
Γ is the direction of the next update if the example were its batch: for AdamW with moments m, v after t updates

    Γ(g) = m̂/(√v̂ + ε),  m̂ = (β₁ m + (1 − β₁) g)/(1 − β₁ᵗ⁺¹),  v̂ = (β₂ v + (1 − β₂) g²)/(1 − β₂ᵗ⁺¹)

and for SGD, with or without momentum, the gradient itself: the velocity is the same for all examples. The moments come
from a replay of the run.

Deviations: the test side is the gradient of the attributed f; η is relative to the recipe's largest, which changes no
order; the projection is a randomized Fourier transform; the run and the parameters are those of the task, where the
paper trains LoRA parameters on a small part of the data first.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from attriboard.attributors.tracin import relative_rate
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.run import Run, TrainingState
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.gradients import count_parameters, per_example_gradients
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.replaying import check_end
from attriboard.toolkit.similarity import cosines, gradient_similarity
from attriboard.toolkit.updates import BETAS, EPSILON


class LESS(MeanOfScores):
    """Cosines with the optimizer's directions, over the checkpoints of a run."""

    name = "less"
    paper = "arXiv:2402.04333"
    family = "gradient similarity"
    order_sensitive = True
    hyperparameters = (
        knobs.projection_dim(8192, "arXiv 2402.04333: 8,192 dimensions"),
        knobs.checkpoints(1, "arXiv 2402.04333: the checkpoints of one run"),
        knobs.epoch(),
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *, projection_dim: int | None) -> Tensor:
        """Sum over a run's kept epochs, up to that of the checkpoint that was chosen."""
        run = context.run_of(checkpoint)
        kept = [one for one in context.checkpoints if one.indices is checkpoint.indices and one.seed == checkpoint.seed]
        kept = [one for one in kept if one.epoch <= checkpoint.epoch]
        total = torch.zeros(len(context.test), len(context.train), dtype=torch.float64, device=context.device)
        states = moments_at(context, run, kept) if run.recipe.optimizer == "adamw" else {}
        for one in kept:
            seed = (context.seed, one.seed, one.epoch)
            if one.epoch in states:
                found = directions_similarity(context, one, states[one.epoch], projection_dim, seed)
            else:
                found = gradient_similarity(context, one, cosine=True, projection_dim=projection_dim, seed=seed)
            total.sub_(found, alpha=relative_rate(context, one))
        return total

    def memory_need(self, context: Context, *, projection_dim: int | None, **others: object) -> dict[str, int]:
        """Gradients, and inner products of two models at a time."""
        dimension = min(projection_dim or count_parameters(context), count_parameters(context))
        need = needs.gradient_similarity(context, None if dimension == count_parameters(context) else dimension)
        return {**need, "directions and moments": 32 * needs.DOUBLE * count_parameters(context)}


def moments_at(context: Context, run: Run, kept: list[Checkpoint]) -> dict[int, TrainingState]:
    """The states of a run at the epochs of its checkpoints.

    Raises:
        NotApplicableError: the replay does not end near the published models.
    """
    epochs = {one.epoch * run.steps_per_epoch: one for one in kept}
    found, first = {}, None
    for state in run.replay(context, stop=max(epochs)):
        first = first or state
        if state.step in epochs:
            check_end(context, epochs[state.step], first, state, whole=False)
            found[epochs[state.step].epoch] = state
    return found


def directions_similarity(
    context: Context, checkpoint: Checkpoint, state: TrainingState, projection_dim: int | None, seed: tuple[int, ...]
) -> Tensor:
    """Cosines of projected target gradients and directions of AdamW, (n_test, n_train), float64."""
    n_params = count_parameters(context)
    project = FourierProjection(n_params, projection_dim or n_params, seed, context.device)
    m, v = (torch.cat([moment[name].flatten() for name in context.attributed]).double() for moment in state.moments)

    def directions() -> Iterator[Tensor]:
        (β1, β2), t = BETAS, state.step + 1
        for block in per_example_gradients(context, checkpoint, context.loss, context.train):
            g = block.double()
            first = (β1 * m + (1 - β1) * g) / (1 - β1**t)
            yield first / (((β2 * v + (1 - β2) * g.square()) / (1 - β2**t)).sqrt() + EPSILON)

    train = torch.cat([project(block) for block in directions()])
    targets = per_example_gradients(context, checkpoint, context.target, context.test)
    test = torch.cat([project(block.double()) for block in targets])
    return cosines(test, train)
