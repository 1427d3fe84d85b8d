"""SOURCE: training in a few segments, each with one curvature and one learning-rate horizon.

Bae et al., "Training Data Attribution via Approximate Unrolled Differentiation", NeurIPS 2024 (arXiv 2405.12186):

    τ(z', i) = −(1/n) Σ_l ḡ_{l,i}ᵀ F_l(H_l) Π_{k>l} exp(−η_k K_k H_k) g',   averaged over models
    F_l(σ) = (1 − exp(−η_l K_l σ))/σ,  F_l(0) = η_l K_l

The run is cut into segments of as many updates each; η_l K_l is the sum of a segment's learning
rates, with momentum μ times 1/(1 − μ); ḡ_{l,i} and H_l are means over checkpoints in the segment, H_l in EK-FAC's
form: Kronecker eigenbases of the mean factors, and in them the mean squares Λ of gradients. With one segment and a
long horizon this is `ekfac` at λ = 0; a short horizon leaves small eigenvalues out as λ would, where 1/(η K) is the
scale.

With Adam, an update multiplies the gradient by P = 1/(√v̂ + ε), a diagonal that a segment takes as constant: the mean
over its checkpoints. The flow is that of P H, which M_l = P_l^½ H_l P_l^½ makes symmetric:

    τ(z', i) = −(1/n) Σ_l ḡ_{l,i}ᵀ P_l^½ F_l(M_l) P_l^½ Π_{k>l} P_k^−½ exp(−η_k K_k M_k) P_k^½ g'

with η K the sum of learning rates alone, since β₁ averages gradients and does not add them up. M_l has EK-FAC's form
for the gradients P^½ ∘ G: Kronecker eigenbases of diag(c) A diag(c) and diag(r) S diag(r), where r cᵀ is P^½ as a
product of row and column means, and in them the mean squares Λ of P^½ ∘ G itself. A constant P is another η.

Checkpoints come from a replay of the run, evenly spread over its updates, the last one at its end.

Deviations: the test side is the gradient of the attributed f. Layers that are not one matrix product are left out, as
in `ekfac`. Weight decay and clipping are left out of the flow. How M_l is approximated in the form for Adam is ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.run import Run, TrainingState
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.gradients import count_parameters, layer_gradients
from attriboard.toolkit.kronecker import eigenbasis, mean_squares
from attriboard.toolkit.kronecker_influence import Block, Fisher, fisher_labels
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layers import LayerFactors
from attriboard.toolkit.layerwise import (
    MatrixLayout,
    matrices,
    matrix_layers,
    matrix_layout,
    modules_of,
    second_moments,
)
from attriboard.toolkit.replaying import check_end, followable
from attriboard.toolkit.updates import BETAS, EPSILON

Sizes = dict[str, tuple[int, int]]

BLOCK_BYTES = 128 * 2**20
"""Memory for training gradients of one layer that are written out."""


class SOURCE(MeanOfScores):
    """Approximate unrolling in segments."""

    name = "source"
    paper = "arXiv:2405.12186"
    family = "unrolled"
    order_sensitive = True
    hyperparameters = (
        Hyperparameter(
            "segments",
            3,
            "arXiv 2405.12186: three segments",
            minimum=1,
            grid=(1, 2, 3, 6),
            description="parts of the run with one curvature each",
        ),
        Hyperparameter(
            "checkpoints_per_segment",
            2,
            "arXiv 2405.12186: six checkpoints in three segments",
            minimum=1,
            grid=(1, 2, 4),
            description="models in each segment over which gradients and curvature are averaged",
        ),
        fisher_labels("true", "arXiv 2405.12186: EK-FAC, as in arXiv 2308.03296"),
        knobs.checkpoints(1, "arXiv 2405.12186: one run; it averages over more for better scores"),
        knobs.epoch(),
    )

    def fit_one(
        self,
        context: Context,
        checkpoint: Checkpoint,
        stream: int,
        *,
        segments: int,
        checkpoints_per_segment: int,
        fisher: Fisher,
    ) -> Tensor:
        """Take the test gradients back through the segments."""
        followable(context)
        run = context.run_of(checkpoint)
        end = checkpoint.epoch * run.steps_per_epoch
        if segments * checkpoints_per_segment > end:
            raise NotApplicableError(f"segments = {segments}: the run has {end} updates, fewer than checkpoints")
        models, preconditioners = along(context, run, checkpoint, segments * checkpoints_per_segment)
        sizes = matrix_layers(context, models[-1])
        layout = matrix_layout(context, models[-1], sizes)
        x = test_matrices(context, models[-1], sizes)
        scores = torch.zeros(len(context.test), len(context.train), dtype=torch.float64, device=context.device)
        for number in reversed(range(segments)):
            first, stop = (end * k // segments for k in (number, number + 1))
            horizon = sum(run.rates[first:stop])
            if run.recipe.optimizer == "sgd":
                horizon /= 1 - run.recipe.momentum
            own = slice(number * checkpoints_per_segment, (number + 1) * checkpoints_per_segment)
            members, scales = models[own], mean_scales(layout, preconditioners[own])
            y = {}
            for name, block in mean_blocks(context, members, sizes, fisher, scales).items():
                y[name], x[name] = through(block, x[name], horizon, scales.get(name))
            for member in members:
                for rows, slopes in slopes_along(context, member, y):
                    scores[:, rows].sub_(slopes, alpha=1 / (run.n * len(members)))
        return scores

    def memory_need(self, context: Context, **others: Any) -> dict[str, int]:
        """Test gradients in three forms, a curvature, and factors."""
        n_params, n_test = count_parameters(context), len(context.test)
        numbers = needs.DOUBLE * n_params
        return {
            "test gradients": 8 * n_test * numbers + 2 * needs.gradients(context),
            "checkpoints and curvature": 64 * numbers,
            "bases": 8 * needs.DOUBLE * sum(max(i, o) ** 2 for i, o in needs.linear_sizes(context.model) or []),
            "products": needs.sweep(context, n_test),
            "scores": 4 * needs.pairs(context, needs.DOUBLE),
        }


def along(
    context: Context, run: Run, checkpoint: Checkpoint, count: int
) -> tuple[list[Checkpoint], list[dict[str, Tensor]]]:
    """Models evenly spread over a run, the last one at its end; and Adam's 1/(√v̂ + ε) at each, empty for SGD.

    Raises:
        NotApplicableError: the replay does not end near the published model.
    """
    end = checkpoint.epoch * run.steps_per_epoch
    wanted = [end * (k + 1) // count for k in range(count)]
    found, preconditioners, first = [], [], None
    for state in run.replay(context, stop=end):
        first = first or state
        if state.step in wanted:
            epoch = -(-state.step // run.steps_per_epoch)
            found.append(Checkpoint(state.parameters, epoch, run.seed, run.indices, state.buffers))
            preconditioners.append(preconditioner(run, state))
        if state.step == end:
            check_end(context, checkpoint, first, state)
    return found, preconditioners


def preconditioner(run: Run, state: TrainingState) -> dict[str, Tensor]:
    """Adam's 1/(√v̂ + ε) after some updates, float64; empty for SGD."""
    if run.recipe.optimizer == "sgd":
        return {}
    corrected = 1 - BETAS[1] ** state.step
    return {name: 1 / ((v.double() / corrected).sqrt() + EPSILON) for name, v in state.moments[1].items()}


def mean_scales(layout: MatrixLayout, preconditioners: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """P^½ (d_out, d_in) of every layer, P the mean over models; empty for SGD."""
    if not preconditioners[0]:
        return {}
    mean = {name: torch.stack([one[name] for one in preconditioners]).mean(0)[None] for name in layout.shapes}
    return {name: P[0].sqrt() for name, P in layout.layers(mean).items()}


def test_matrices(context: Context, checkpoint: Checkpoint, sizes: Sizes) -> dict[str, Tensor]:
    """Test gradients (n_test, d_out, d_in) of every matrix layer."""
    found: dict[str, list[Tensor]] = {name: [] for name in sizes}
    for chunk in layer_gradients(context, checkpoint, context.target, context.test, layers=modules_of(sizes)):
        for one in matrices(chunk):
            if one.name in found and one.factors is not None:
                found[one.name].append(one.factors.matrices())
    return {name: torch.cat(parts) for name, parts in found.items()}


def mean_blocks(
    context: Context, models: list[Checkpoint], sizes: Sizes, fisher: Fisher, scales: dict[str, Tensor]
) -> dict[str, Block]:
    """EK-FAC's curvature, averaged over models: of the factors first, then of the squares in their eigenbasis.

    With `scales`, of the gradients times them.
    """
    draws = [labelled(context, one, own=fisher == "true") for one in models]
    moments = [second_moments(context, one, labels, sizes) for one, labels in zip(models, draws, strict=True)]
    bases = {}
    for name in sizes:
        A, S = (torch.stack([one[name][side] for one in moments]).mean(0) for side in (0, 1))
        if name in scales:
            P = scales[name].square()
            rows, columns = (P.mean(1) / P.mean()).sqrt(), P.mean(0).sqrt()
            A, S = columns[:, None] * A * columns, rows[:, None] * S * rows
        bases[name] = eigenbasis(A, S)
    squares = [mean_squares(context, one, labels, bases, scales) for one, labels in zip(models, draws, strict=True)]
    return {name: Block(bases[name], torch.stack([one[name] for one in squares]).mean(0)) for name in sizes}


def through(block: Block, x: Tensor, horizon: float, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """F(H) x and exp(−ηK H) x of test vectors (n_test, d_out, d_in); with `scale` P^½, P^½ F P^½ x and P^−½ exp P^½ x.

    Directions in which no input occurs have no curvature and no training gradient.
    """
    scaled = x if scale is None else x * scale.to(x)
    U_A, U_S = block.basis.inputs.to(x), block.basis.deltas.to(x)
    v = U_A.T @ scaled.transpose(1, 2) @ U_S
    learned = (integral(block.eigenvalues, horizon).to(x) * v, torch.expm1(-horizon * block.eigenvalues).to(x) * v)
    F, change = ((U_A @ one @ U_S.T).transpose(1, 2) for one in learned)
    if scale is not None:
        F, change = F * scale.to(x), change / scale.to(x)
    return F.contiguous(), x + change


def integral(eigenvalues: Tensor, horizon: float) -> Tensor:
    """F(σ) = (1 − exp(−ηK σ))/σ, which is ηK at 0."""
    σ = eigenvalues.clamp_min(0)
    positive = σ > 0
    return torch.where(positive, -torch.expm1(-horizon * σ) / σ.where(positive, torch.ones_like(σ)), horizon)


def slopes_along(context: Context, checkpoint: Checkpoint, y: dict[str, Tensor]) -> Iterator[tuple[slice, Tensor]]:
    """⟨y, ∇L(z_i)⟩ of directions y, layer → (k, d_out, d_in), for some training examples at a time: (k, b)."""
    start = 0
    for chunk in layer_gradients(context, checkpoint, context.loss, context.train, layers=modules_of(y)):
        length = len(chunk[0])
        slopes = torch.zeros(len(next(iter(y.values()))), length, dtype=torch.float64, device=context.device)
        for one in matrices(chunk):
            if one.name in y and (factors := one.factors) is not None:
                directions = y[one.name].flatten(1)
                step = max(1, BLOCK_BYTES // (directions.itemsize * directions.shape[1]))
                for first in range(0, length, step):
                    rows = slice(first, min(first + step, length))
                    block = LayerFactors(factors.inputs[rows], factors.deltas[rows], factors.bias)
                    slopes[:, rows] += directions @ block.matrices().to(directions).flatten(1).T
        yield slice(start, start + length), slopes
        start += length
