"""Inner products and cosines of training-loss gradients and target gradients, exact or projected."""

from __future__ import annotations

import torch
from torch import Tensor

from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.gradients import count_parameters, layer_gradients, per_example_gradients
from attriboard.toolkit.kernel import gradient_products
from attriboard.toolkit.projection import FourierProjection


def gradient_similarity(
    context: Context,
    checkpoint: Checkpoint,
    *,
    cosine: bool,
    projection_dim: int | None = None,
    seed: tuple[int, ...] = (),
) -> Tensor:
    """⟨g', ∇L(z_i)⟩ or its cosine, (n_test, n_train), float64, a new matrix.

    Args:
        context: data and model; g' is the gradient of its target function.
        checkpoint: where the gradients are taken.
        cosine: whether both sides are divided by their lengths; an example without a gradient has cosine 0.
        projection_dim: d_proj of a random projection of both sides; `None`, or n_params and more, for none.
        seed: of the projection.
    """
    sides = ((context.target, context.test), (context.loss, context.train))
    n_params = count_parameters(context)
    if projection_dim is not None and projection_dim < n_params:
        project = FourierProjection(n_params, projection_dim, seed, context.device)
        test, train = (
            torch.cat([project(block).double() for block in per_example_gradients(context, checkpoint, *side)])
            for side in sides
        )
        return cosines(test, train) if cosine else test @ train.T
    products = gradient_products(context, checkpoint, context.loss, context.target).T
    if cosine:
        test, train = (_lengths(context, checkpoint, *side) for side in sides)
        products = products / test[:, None] / train
    return products


def cosines(test: Tensor, train: Tensor) -> Tensor:
    """Of all rows of one side with all of the other, (n_test, n_train); 0 where a row is zero."""
    return _directions(test) @ _directions(train).T


def _directions(rows: Tensor) -> Tensor:
    """Rows divided by their lengths, however small; zero where a row is."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.masked_fill(lengths == 0, torch.inf)


def _lengths(context: Context, checkpoint: Checkpoint, function: BatchFunction, examples: Examples) -> Tensor:
    """‖∇φ(z)‖ (n,), float64; infinite where it is zero, so that a quotient by it is."""
    lengths = squared_lengths(context, checkpoint, function, examples).sqrt()
    return lengths.masked_fill(lengths == 0, torch.inf)


def squared_lengths(context: Context, checkpoint: Checkpoint, function: BatchFunction, examples: Examples) -> Tensor:
    """‖∇φ(z)‖² of every example (n,), float64.

    Args:
        context: the model.
        checkpoint: where the gradients are taken.
        function: φ of (outputs, targets) → (n,).
        examples: n of them.
    """
    chunks = layer_gradients(context, checkpoint, function, examples)
    return torch.cat([torch.stack([layer.squares().double() for layer in chunk]).sum(0) for chunk in chunks])
