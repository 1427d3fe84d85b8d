"""From a checkpoint to a solved kernel: the fit of every method that inverts a Gram of gradients."""

from __future__ import annotations

from dataclasses import replace

import torch

from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.toolkit import needs
from attriboard.toolkit.gradients import count_parameters, per_example_gradients
from attriboard.toolkit.held import kernel_pieces
from attriboard.toolkit.kernel import add_products, gradient_kernels
from attriboard.toolkit.lowrank import TriangularKernel, solve_low_rank
from attriboard.toolkit.plan import plan_kernel
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.spectrum import KernelSolution, solve_features, solve_kernel


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
        projection_dim: d_proj; `None`, or n_params and more, for the exact kernel, or what stands for it where that
            does not fit in `context.memory_bytes`: see `plan_kernel`.
        stream: tells the projections of several checkpoints apart.

    Returns:
        The solution with float32 vectors, and a note where something stands for the exact kernel.

    Raises:
        NotApplicableError: nothing fits in memory, or the kernel is zero or not finite.
    """
    functions = (train_function, test_function)
    if projection_dim is not None and projection_dim < count_parameters(context):
        return _solve_projected(context, checkpoint, functions, projection_dim, stream)
    plan = plan_kernel(len(context.train), len(context.test), context.memory_bytes, needs.making(context))
    if plan.kind == "exact":
        return solve_kernel(*gradient_kernels(context, checkpoint, *functions)).single()
    if plan.kind == "low_rank":
        found = _solve_leading(context, checkpoint, functions, plan.size)
    else:
        found = _solve_projected(context, checkpoint, functions, plan.size, stream)
    return replace(found, note=plan.note)


def _solve_leading(
    context: Context, checkpoint: Checkpoint, functions: tuple[BatchFunction, BatchFunction], rank: int
) -> KernelSolution:
    """By the leading eigenpairs of a float32 kernel."""
    kernel = TriangularKernel(len(context.train), context.device)
    products = torch.zeros(len(context.train), len(context.test), dtype=torch.float64, device=context.device)
    for _, train, test in kernel_pieces(context, checkpoint, *functions):
        kernel.add(train)
        add_products(products, train, test)
        del train, test  # before the next piece is made
    return solve_low_rank(kernel, products, rank, context.seed).single()


def _solve_projected(
    context: Context, checkpoint: Checkpoint, functions: tuple[BatchFunction, BatchFunction], d_proj: int, stream: int
) -> KernelSolution:
    """Through features: gradients are projected block by block and never stored whole."""
    project = FourierProjection(count_parameters(context), d_proj, (context.seed, stream), context.device)
    train, test = (
        torch.cat([project(block) for block in per_example_gradients(context, checkpoint, function, examples)])
        for function, examples in zip(functions, (context.train, context.test), strict=True)
    )
    return solve_features(train, test).single()
