"""Gram matrices of per-example gradients.

A layer that is one matrix product has per-example gradients Σ_t δ_t a_tᵀ, so inner products need no stored gradients:

    K_ij = Σ_layers Σ_{t,t'} (a_it·a_jt' + 1 if bias) (δ_it·δ_jt')

That is used where it is cheaper than a product of gradients: with T positions, T² (d_in + d_out) against d_in · d_out
multiplications for a pair of examples; always for T = 1. Other layers' gradients are written out in pieces, see
`attriboard.toolkit.held`. Sums are made piece by piece, so that they are the same whatever memory there is.

All products are float64. A float32 product is faster by one second in fifteen on 5,000 examples of a 109,386
parameter network, but its rounding (5e-7 of ‖K‖) buries every eigenvalue that a λ below 1e-7 looks at.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.toolkit.gradients import layer_gradients
from attriboard.toolkit.held import DenseGradients, Stored, collect, held_points, joined, kernel_pieces, n_rows, store
from attriboard.toolkit.layers import LayerFactors

BLOCK_ROWS = 512
"""Rows of K per product: two temporaries of 512 × n instead of two of n × n."""

BLOCK_COLUMNS = 4096
"""Parameters per float64 product where gradients are stored."""


def add_gram(kernel: Tensor, layer: Stored) -> None:
    """Add a set's inner products with itself to `kernel` (n, n), float64."""
    n = len(kernel)
    step = block_rows(layer)
    for start in range(0, n, step):
        block, end = slice(start, start + step), min(start + step, n)
        kernel[block, :end] += inner_products(layer, block, layer, end)
        # The lower triangle in blocks, mirrored: half the products.
        kernel[:start, block] = kernel[block, :start].T


def add_products(products: Tensor, left: Stored, right: Stored) -> None:
    """Add the inner products of two sets to `products` (n_left, n_right), float64."""
    step = block_rows(left)
    for start in range(0, len(products), step):
        block = slice(start, start + step)
        products[block] += inner_products(left, block, right, products.shape[1])


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
        NotApplicableError: the model has too many parameters.
    """
    n, n_test, device = len(context.train), len(context.test), context.device
    kernel = torch.zeros(n, n, dtype=torch.float64, device=device)
    products = torch.zeros(n, n_test, dtype=torch.float64, device=device)
    for _, train, test in kernel_pieces(context, checkpoint, train_function, test_function):
        add_gram(kernel, train)
        add_products(products, train, test)
        del train, test  # before the next piece is made
    return kernel, products


def gradient_products(
    context: Context, checkpoint: Checkpoint, train_function: BatchFunction, test_function: BatchFunction
) -> Tensor:
    """Inner products r = G g' (n_train, n_test), float64, for any model; G is never stored whole.

    Test gradients are held for `held_points` test points at a time; the training gradients are computed once for each
    such group.
    """
    n_test, functions = len(context.test), (train_function, test_function)
    products = torch.zeros(len(context.train), n_test, dtype=torch.float64, device=context.device)
    group = held_points(context)
    for first in range(0, n_test, group):
        points = slice(first, first + group)
        test = collect(context, checkpoint, test_function, context.test[points], beside=functions)
        start = 0
        gradients = layer_gradients(context, checkpoint, train_function, context.train, beside=functions)
        for chunk in joined([store(layer) for layer in layers] for layers in gradients):
            rows = slice(start, start + n_rows(chunk))
            for layer, other in zip(chunk, test, strict=True):
                add_products(products[rows, points], layer, other)
            start = rows.stop
        del test, chunk  # before the next group takes as much
    return products


def block_rows(layer: Stored) -> int:
    """Rows of K per product, so that temporaries stay small."""
    positions = layer.deltas.shape[1] if isinstance(layer, LayerFactors) and layer.deltas.dim() == 3 else 1
    return max(1, BLOCK_ROWS // positions**2)


def inner_products(one: Stored, rows: slice, other: Stored, end: int) -> Tensor:
    """Inner products of `rows` of one side and the first `end` of the other, (rows, end), float64."""
    if isinstance(one, DenseGradients) and isinstance(other, DenseGradients):
        left, right = one.values[rows], other.values[:end]
        products = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
        for start in range(0, left.shape[1], BLOCK_COLUMNS):
            columns = slice(start, start + BLOCK_COLUMNS)
            products.addmm_(left[:, columns].double(), right[:, columns].double().T)
        return products
    assert isinstance(one, LayerFactors)
    assert isinstance(other, LayerFactors)
    pairs = _inner(one.inputs[rows], other.inputs[:end])
    if one.bias:
        pairs += 1
    pairs.mul_(_inner(one.deltas[rows], other.deltas[:end]))
    if one.deltas.dim() == 2:
        return pairs
    T, other_T = one.deltas.shape[1], other.deltas.shape[1]
    return pairs.view(-1, T, end, other_T).sum((1, 3))


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner products of all positions' vectors: (n_left · T, n_right · T), float64."""
    return left.flatten(0, -2).double() @ right.flatten(0, -2).double().T
