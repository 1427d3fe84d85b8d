"""Bytes that common steps hold at once: what methods add up when they declare the memory they need.

Upper bounds from sizes alone. A step that works in blocks counts with the block's budget, or with all examples where
those are smaller.
"""

from __future__ import annotations

from torch import nn

from attriboard.contracts.context import Context
from attriboard.toolkit.curvature import SWEEP_BYTES
from attriboard.toolkit.factored import GRADIENT_BYTES
from attriboard.toolkit.gradients import count_parameters
from attriboard.toolkit.held import DENSE_BYTES, JOINED_ROWS, gradient_bytes, held_points
from attriboard.toolkit.kernel import BLOCK_ROWS
from attriboard.toolkit.plan import plan_kernel

FLOAT, DOUBLE = 4, 8
"""Bytes of a number."""


def pairs(context: Context, itemsize: int = FLOAT) -> int:
    """One (n_test, n_train) matrix."""
    return itemsize * len(context.test) * len(context.train)


def gradients(context: Context) -> int:
    """Blocks of per-example gradients, or their factors, with what it takes to make them."""
    n_params = count_parameters(context)
    return min(2 * GRADIENT_BYTES, 64 * n_params * max(len(context.train), len(context.test)))


def held(context: Context) -> int:
    """Gradients written out, as many parameters at a time as are held for all examples where little memory is free.

    What is free must not count: the path to a kernel, and so its scores, follows from this.
    """
    n = len(context.train) + len(context.test)
    return min(DENSE_BYTES, 12 * n * count_parameters(context))


def factors(context: Context, sizes: list[tuple[int, int]]) -> int:
    """Gradient factors of linear layers in float64, of all training and test examples."""
    return 2 * DOUBLE * (len(context.train) + len(context.test)) * sum(d_in + d_out for d_in, d_out in sizes)


def features(context: Context, dimension: int) -> int:
    """All training and test gradients in `dimension` dimensions: in float32, joined, in float64, and rotated."""
    return 32 * dimension * (len(context.train) + len(context.test))


def sweep(context: Context, directions: int) -> int:
    """Intermediates of Hessian products over the training set along some directions."""
    return min(SWEEP_BYTES, 64 * directions * count_parameters(context) * len(context.train))


def kernel_blocks(context: Context) -> int:
    """Temporaries of a few rows of a kernel."""
    return 4 * DOUBLE * BLOCK_ROWS * max(len(context.train), len(context.test))


def kernel_solution(context: Context, side: int) -> dict[str, int]:
    """Decomposing a (side, side) kernel in float64; coefficients and what they leave."""
    return {"the kernel and its eigenvectors": 3 * DOUBLE * side**2, "coefficients": 6 * pairs(context, DOUBLE)}


def making(context: Context) -> int:
    """What it takes to make an unprojected kernel, beside the kernel."""
    return gradients(context) + kernel_blocks(context) + held(context)


def gradient_similarity(context: Context, projection_dim: int | None = None) -> dict[str, int]:
    """Gradients, projected or a part of the test gradients whole, and inner products."""
    whole = (held_points(context) + JOINED_ROWS) * gradient_bytes(context)
    kept = whole if projection_dim is None else features(context, projection_dim)
    return {"gradients": gradients(context), "kept gradients": kept, "inner products": 7 * pairs(context, DOUBLE)}


def kernels(context: Context, projection_dim: int | None, checkpoints: int) -> dict[str, int]:
    """What `solve_checkpoint` holds at work, and all its solutions."""
    n_train, n_params = len(context.train), count_parameters(context)
    if projection_dim is None or projection_dim >= n_params:
        plan = plan_kernel(n_train, len(context.test), context.memory_bytes, making(context))
        if plan.kind == "exact":
            return {
                "gradients": gradients(context) + kernel_blocks(context),
                "features": held(context),
                "solutions": checkpoints * (FLOAT * n_train**2 + 3 * pairs(context, DOUBLE)),
                **kernel_solution(context, n_train),
            }
        solutions = (checkpoints - 1) * (FLOAT * n_train * plan.size + 3 * pairs(context, DOUBLE))
        return {"gradients": making(context), plan.kind: plan.needed_bytes, "other solutions": solutions}
    side = min(n_train, projection_dim)
    return {
        "gradients": gradients(context) + kernel_blocks(context),
        "features": features(context, projection_dim),
        "solutions": checkpoints * (FLOAT * n_train * side + 3 * pairs(context, DOUBLE)),
        **kernel_solution(context, side),
    }


def linear_sizes(model: nn.Module) -> list[tuple[int, int]] | None:
    """(d_in with the bias's 1, d_out) of every layer; `None` where a parameter is not a linear layer's."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if sum(p.numel() for layer in layers for p in layer.parameters()) != sum(p.numel() for p in model.parameters()):
        return None
    return [(layer.in_features + (layer.bias is not None), layer.out_features) for layer in layers]
