"""Gram matrices of per-example gradients.

A layer that is one matrix product has per-example gradients Σ_t δ_t a_tᵀ, so inner products need no stored gradients:

    K_ij = Σ_layers Σ_{t,t'} (a_it·a_jt' + 1 if bias) (δ_it·δ_jt')

That is used where it is cheaper than a product of gradients: with T positions, T² (d_in + d_out) against d_in · d_out
multiplications for a pair of examples; always for T = 1. Other layers' gradients are written out, in pieces of at most
`DENSE_BYTES` for all examples, and as many pieces at a time as `held_bytes` allows; each such group costs a pass over
the examples. Sums are made piece by piece, so that they are the same whatever memory there is.

All products are float64. A float32 product is faster by one second in fifteen on 5,000 examples of a 109,386
parameter network, but its rounding (5e-7 of ‖K‖) buries every eigenvalue that a λ below 1e-7 looks at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.gradients import count_parameters, layer_gradients
from attriboard.toolkit.layers import LayerFactors, LayerGradients, module_of
from attriboard.toolkit.memory import free_memory

BLOCK_ROWS = 512
"""Rows of K per product: two temporaries of 512 × n instead of two of n × n."""

BLOCK_COLUMNS = 4096
"""Parameters per float64 product where gradients are stored."""

DENSE_BYTES = 2 * 2**30
"""The most that one piece of the gradients of all examples may take."""

HELD_BYTES = 8 * 2**30
"""The most that gradients may take which are held: some pieces for all examples, or all of some test points."""

JOINED_ROWS = 48
"""Training examples per product with held test gradients, at least."""

MOST_PASSES = 128
"""Passes over all examples that a kernel may cost."""


@dataclass(frozen=True)
class DenseGradients:
    """Gradients written out: `values` (n, numbers)."""

    values: Tensor

    @property
    def numbers(self) -> int:
        """Of one example's gradient."""
        return self.values.shape[1]

    def dense(self) -> Tensor:
        """(n, numbers)."""
        return self.values


Stored = LayerFactors | DenseGradients
"""A layer's gradients, or a piece of them, for many examples."""

Change = Callable[[LayerGradients], list[LayerGradients]]
"""What is made of a layer's gradients, none, one or several layers."""


@dataclass(frozen=True)
class Piece:
    """Gradients that are held together: a layer, or some rows of one of its parameters."""

    layer: str
    part: int | None = None
    rows: slice | None = None

    def of(self, layer: LayerGradients) -> Stored:
        """This piece of a chunk."""
        if self.part is None or self.rows is None:
            return store(layer)
        return DenseGradients(layer.parts[self.part].gradient(self.rows))


def store(layer: LayerGradients) -> Stored:
    """A layer's gradients in the form in which inner products are cheaper."""
    if layer.outer is not None:
        (_, T, d_out), d_in = layer.outer.deltas.shape, layer.outer.d_in
        if T == 1 or T * T * (d_in + d_out) <= d_in * d_out:
            factors = layer.factors
            assert factors is not None
            return factors
    return DenseGradients(layer.dense())


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


def kernel_pieces(
    context: Context,
    checkpoint: Checkpoint,
    train_function: BatchFunction,
    test_function: BatchFunction,
    *,
    change: Change | None = None,
    layers: Collection[str] | None = None,
) -> Iterator[tuple[str, Stored, Stored]]:
    """Layer after layer, the gradients of all training and all test examples.

    Args:
        context: data and model.
        checkpoint: where the gradients are taken.
        train_function: differentiated on the training examples.
        test_function: differentiated on the test examples.
        change: applied to every layer's gradients first.
        layers: names of modules; all where `None`.

    Yields:
        The layer's name with a piece of its gradients; inner products add up over pieces. A large layer has several.

    Raises:
        NotApplicableError: it would take more than `MOST_PASSES` passes.
    """
    functions = (train_function, test_function)
    sides = ((train_function, context.train), (test_function, context.test))
    for group in _groups(context, checkpoint, functions, change, layers):
        train, test = (collect(context, checkpoint, *side, group, change, beside=functions) for side in sides)
        for piece in group:
            yield piece.layer, train.pop(0), test.pop(0)


def collect(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    pieces: list[Piece] | None = None,
    change: Change | None = None,
    layers: Collection[str] | None = None,
    beside: Collection[BatchFunction] = (),
) -> list[Stored]:
    """Pieces of the gradients of all examples; every one of the layers whole where `None`. See `layer_gradients`."""
    layers = layers if pieces is None else {module_of(piece.layer) for piece in pieces}
    collected: list[Stored] = []
    start = 0
    for chunk in layer_gradients(context, checkpoint, function, examples, layers=layers, beside=beside):
        found = {layer.name: layer for layer in _changed(chunk, change)}
        parts = [piece.of(found[piece.layer]) for piece in pieces or map(Piece, found)]
        # Room for all, filled chunk by chunk: joining a list would take twice the memory.
        collected = collected or [_room(part, len(examples)) for part in parts]
        for room, part in zip(collected, parts, strict=True):
            for target, source in zip(_tensors(room), _tensors(part), strict=True):
                target[start : start + len(source)] = source
        start += len(chunk[0])
    return collected


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
            rows = slice(start, start + _count(chunk))
            for layer, other in zip(chunk, test, strict=True):
                add_products(products[rows, points], layer, other)
            start = rows.stop
        del test, chunk  # before the next group takes as much
    return products


def joined(chunks: Iterable[Sequence[Stored]]) -> Iterator[list[Stored]]:
    """Chunks of at least `JOINED_ROWS` examples, but for the last.

    Of a large model a chunk has a dozen, and a product reads all gradients of the other side again.
    """
    waiting: list[Sequence[Stored]] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(_count, waiting)) >= JOINED_ROWS:
            yield [_join(parts) for parts in zip(*waiting, strict=True)]
            waiting = []
    if waiting:
        yield [_join(parts) for parts in zip(*waiting, strict=True)]


def _join(parts: Sequence[Stored]) -> Stored:
    first = parts[0]
    if len(parts) == 1:
        return first
    tensors = [torch.cat(found) for found in zip(*map(_tensors, parts), strict=True)]
    if isinstance(first, DenseGradients):
        return DenseGradients(tensors[0])
    inputs, deltas = tensors
    return LayerFactors(inputs, deltas, first.bias)


def _count(chunk: Sequence[Stored]) -> int:
    """How many examples it has."""
    return len(_tensors(chunk[0])[0])


def held_points(context: Context) -> int:
    """How many test points' gradients are held at once; each group of them costs a pass over the training examples."""
    n_test, most = len(context.test), max(1, held_bytes(context) // gradient_bytes(context))
    return math.ceil(n_test / math.ceil(n_test / most))  # groups of nearly one size


def held_bytes(context: Context) -> int:
    """Memory for gradients that are held: half of what is free, from `DENSE_BYTES` to `HELD_BYTES`.

    The less it is, the more passes over the examples there are, which for a large model are nearly all of the work.
    """
    return max(DENSE_BYTES, min(HELD_BYTES, free_memory(context.device, context.memory_bytes) // 2))


def gradient_bytes(context: Context) -> int:
    """Of one example's gradient, written out."""
    number = max(parameter.element_size() for parameter in context.checkpoints[0].parameters.values())
    return number * count_parameters(context)


def _groups(
    context: Context,
    checkpoint: Checkpoint,
    functions: tuple[BatchFunction, BatchFunction],
    change: Change | None,
    layers: Collection[str] | None,
) -> list[list[Piece]]:
    """Pieces in the layers' order, as many together as memory holds."""
    (probe,) = layer_gradients(context, checkpoint, functions[0], context.train[:1], layers=layers, beside=functions)
    n, room = len(context.train) + len(context.test), held_bytes(context)
    groups: list[list[Piece]] = []
    taken = room
    for piece, needed in (found for layer in _changed(probe, change) for found in _pieces(layer, n)):
        if taken + needed > room:
            groups.append([])
            taken = 0
        groups[-1].append(piece)
        taken += needed
    if len(groups) > MOST_PASSES:
        raise NotApplicableError(
            f"projection_dim = none: the gradients of {count_parameters(context):,} parameters take {len(groups)} "
            f"passes of {room / 2**30:.3g} GiB, more than {MOST_PASSES}; set projection_dim"
        )
    return groups


def _changed(chunk: list[LayerGradients], change: Change | None) -> list[LayerGradients]:
    return [found for layer in chunk for found in change(layer)] if change else chunk


def _pieces(layer: LayerGradients, n: int) -> Iterator[tuple[Piece, int]]:
    """A layer in pieces of at most `DENSE_BYTES`, where a row of a parameter allows it, and each one's bytes."""
    whole = store(layer)
    needed = n * sum(tensor.nbytes for tensor in _tensors(whole))
    if needed <= DENSE_BYTES or not isinstance(whole, DenseGradients):
        yield Piece(layer.name), needed
        return
    for number, part in enumerate(layer.parts):
        length = part.shape[0] if part.shape else 1
        row_bytes = n * part.width * whole.values.itemsize
        step = max(1, DENSE_BYTES // row_bytes)
        for start in range(0, length, step):
            rows = slice(start, min(start + step, length))
            yield Piece(layer.name, number, rows), (rows.stop - start) * row_bytes


def _tensors(layer: Stored) -> tuple[Tensor, ...]:
    return (layer.values,) if isinstance(layer, DenseGradients) else (layer.inputs, layer.deltas)


def _room(like: Stored, n: int) -> Stored:
    """The same for n examples, not filled."""

    def empty(tensor: Tensor) -> Tensor:
        return tensor.new_empty(n, *tensor.shape[1:])

    if isinstance(like, DenseGradients):
        return DenseGradients(empty(like.values))
    return LayerFactors(empty(like.inputs), empty(like.deltas), like.bias)


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
