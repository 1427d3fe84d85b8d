"""From a checkpoint to a solved kernel: the fit of every method that inverts a Gram of gradients."""

from __future__ import annotations

import torch

from attriboard.contracts import BatchFunction, Checkpoint, Context
from attriboard.toolkit.gradients import count_parameters, per_example_gradients
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.spectrum import KernelSolution, solve_features, solve_kernel

__all__ = ["solve_checkpoint"]


def solve_checkpoint(
    context: Context,
    checkpoint: Checkpoint,
    train_function: BatchFunction,
    test_function: BatchFunction,
    *,
    projection_dim: int | None,
    stream: int = 0,
) -> KernelSolution:
    """Solve (K/n + λI)⁻¹ r for every λ at one checkpoint.

    Args:
        context: data, model and seed.
        checkpoint: where the gradients are taken.
        train_function: its gradients on the training examples are the rows of G, K = G Gᵀ.
        test_function: its gradients on the test examples are g', r = G g'.
        projection_dim: d_proj; `None`, or n_params and more, for the exact kernel.
        stream: tells the projections of several checkpoints apart.

    Returns:
        The solution with float32 vectors.

    Raises:
        NotApplicableError: the exact kernel does not fit in memory, or the kernel is zero or not finite.
    """
    n_params = count_parameters(checkpoint)
    if projection_dim is None or projection_dim >= n_params:
        return solve_kernel(*gradient_kernels(context, checkpoint, train_function, test_function)).single()
    project = FourierProjection(n_params, projection_dim, (context.seed, stream), context.device)
    train, test = (
        torch.cat([project(block) for block in per_example_gradients(context, checkpoint, function, examples)])
        for function, examples in ((train_function, context.train), (test_function, context.test))
    )
    return solve_features(train, test).single()
