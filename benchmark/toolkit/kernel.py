"""Gram matrices of per-example gradients.

For linear layers a per-example gradient is an outer product δ aᵀ, so inner products need no stored gradients:

    K_ij = Σ_layers (a_i·a_j + 1 if bias) (δ_i·δ_j)

All products are float64. A float32 product is faster by one second in fifteen on 5,000 examples of a 109,386
parameter network, but its rounding (5e-7 of ‖K‖) buries every eigenvalue that a λ below 1e-7 looks at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attriboard.contracts import BatchFunction, Checkpoint, Context, Examples
from attriboard.errors import NotApplicableError
from attriboard.toolkit.gradients import (
    LayerFactors,
    count_parameters,
    linear_factors_or_none,
    per_example_gradients,
)

__all__ = ["cross_kernel", "gradient_kernels", "gradient_products", "gram_kernel"]

BLOCK_ROWS = 512
"""Rows of K per product: two temporaries of 512 × n instead of two of n × n."""

BLOCK_COLUMNS = 4096
"""Parameters per float64 product where gradients are stored."""

DENSE_BYTES = 2 * 2**30
"""The most that stored gradients may take where there are no factors."""


def cross_kernel(left: list[LayerFactors], right: list[LayerFactors]) -> Tensor:
    """Inner products of two sets of gradients, (n_left, n_right), float64."""
    n_left, n_right = len(left[0].inputs), len(right[0].inputs)
    kernel = left[0].inputs.new_zeros(n_left, n_right)
    for start in range(0, n_left, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        for one, other in zip(left, right, strict=True):
            kernel[block] += _layer_products(one, block, other, n_right)
    return kernel


def gram_kernel(factors: list[LayerFactors]) -> Tensor:
    """Inner products of a set of gradients with itself, (n, n), float64."""
    n = len(factors[0].inputs)
    kernel = factors[0].inputs.new_zeros(n, n)
    for start in range(0, n, BLOCK_ROWS):
        block = slice(start, start + BLOCK_ROWS)
        end = min(start + BLOCK_ROWS, n)
        for layer in factors:
            kernel[block, :end] += _layer_products(layer, block, layer, end)
        # The lower triangle in blocks, mirrored: half the products.
        kernel[:start, block] = kernel[block, :start].T
    return kernel


def gradient_kernels(
    context: Context, checkpoint: Checkpoint, train_function: BatchFunction, test_function: BatchFunction
) -> tuple[Tensor, Tensor]:
    """K = G Gᵀ (n_train, n_train) and r = G g' (n_train, n_test), unprojected, float64.

    Args:
        context: data and model.
        checkpoint: where the gradients are taken.
        train_function: its gradients on the training examples are the rows of G.
        test_function: its gradients on the test examples are the columns of g'.

    Raises:
        NotApplicableError: the model has layers other than linear ones, and too many parameters to store G.
    """
    train = linear_factors_or_none(context, checkpoint, train_function, context.train)
    test = linear_factors_or_none(context, checkpoint, test_function, context.test)
    if train is not None and test is not None:
        return gram_kernel(train), cross_kernel(train, test)

    n_params = count_parameters(checkpoint)
    itemsize = next(iter(checkpoint.parameters.values())).dtype.itemsize
    needed = itemsize * n_params * (len(context.train) + len(context.test))
    if needed > DENSE_BYTES:
        raise NotApplicableError(
            f"projection_dim = none: the gradients of this model take {needed / 2**30:.1f} GiB, "
            f"more than {DENSE_BYTES / 2**30:.0f} GiB; set projection_dim"
        )
    G = _stacked_gradients(context, checkpoint, train_function, context.train)
    g = _stacked_gradients(context, checkpoint, test_function, context.test)
    kernel = torch.zeros(len(G), len(G), dtype=torch.float64, device=G.device)
    products = torch.zeros(len(G), len(g), dtype=torch.float64, device=G.device)
    for start in range(0, n_params, BLOCK_COLUMNS):
        columns = G[:, start : start + BLOCK_COLUMNS].double()
        kernel += columns @ columns.T
        products += columns @ g[:, start : start + BLOCK_COLUMNS].double().T
    return kernel, products


def gradient_products(
    context: Context, checkpoint: Checkpoint, train_function: BatchFunction, test_function: BatchFunction
) -> Tensor:
    """Inner products r = G g' (n_train, n_test), float64, for any model; G is never stored whole.

    Test gradients are held for as many test points as `DENSE_BYTES` allows; the training gradients are
    computed once for each such group.
    """
    train = linear_factors_or_none(context, checkpoint, train_function, context.train)
    test = linear_factors_or_none(context, checkpoint, test_function, context.test)
    if train is not None and test is not None:
        return cross_kernel(train, test)

    columns = []
    group = max(1, DENSE_BYTES // (12 * count_parameters(checkpoint)))  # float32 once, float64 once
    for start in range(0, len(context.test), group):
        points = context.test[start : start + group]
        g = _stacked_gradients(context, checkpoint, test_function, points).double()
        blocks = per_example_gradients(context, checkpoint, train_function, context.train)
        columns.append(torch.cat([block.double() @ g.T for block in blocks]))
    return torch.cat(columns, dim=1)


def _stacked_gradients(context: Context, checkpoint: Checkpoint, function: BatchFunction, examples: Examples) -> Tensor:
    """All gradients (n, n_params), filled block by block: joining a list would take twice the memory."""
    first = next(iter(checkpoint.parameters.values()))
    stacked = torch.empty(len(examples), count_parameters(checkpoint), dtype=first.dtype, device=first.device)
    start = 0
    for block in per_example_gradients(context, checkpoint, function, examples):
        stacked[start : start + len(block)] = block
        start += len(block)
    return stacked


def _layer_products(one: LayerFactors, rows: slice, other: LayerFactors, end: int) -> Tensor:
    """(a_i·a_j + 1 if bias) (δ_i·δ_j) for i in `rows` of one side and j < `end` of the other."""
    products = one.inputs[rows] @ other.inputs[:end].T
    if one.bias:
        products += 1
    return products.mul_(one.deltas[rows] @ other.deltas[:end].T)
