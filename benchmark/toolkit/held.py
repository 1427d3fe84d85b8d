"""Per-example gradients of all examples, held as far as memory allows.

A layer's gradients are held in the form in which inner products are cheaper (`store`): as factors, or written out in
pieces of at most `DENSE_BYTES` for all examples. As much is held at a time as `held_bytes` allows, and each such group
costs a pass over the examples: of a small layer its pieces; of a large one what gradients are made of, a and δ, if that
takes less, and its pieces are written out one after the other. Of ResNet-9's last convolution that is a thirtieth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.gradients import count_parameters, layer_gradients
from attriboard.toolkit.layers import LayerFactors, LayerGradients, module_of
from attriboard.toolkit.memory import free_memory
from attriboard.toolkit.terms import Transform

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

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What it is made of."""
        return (self.values,)

    def map(self, change: Transform) -> DenseGradients:
        """The same with every tensor changed."""
        return DenseGradients(change(self.values))


Stored = LayerFactors | DenseGradients
"""A layer's gradients, or a piece of them, for many examples."""


class Rows(Protocol):
    """Tensors with a row for every example."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """Each once."""

    def map(self, change: Transform) -> Self:
        """The same with every tensor changed."""


AnyRows = TypeVar("AnyRows", bound=Rows)

Change = Callable[[LayerGradients], list[LayerGradients]]
"""What is made of a layer's gradients, none, one or several layers."""


@dataclass(frozen=True)
class Piece:
    """Gradients that inner products are taken of together: a layer, or some rows of one of its parameters."""

    layer: str
    part: int | None = None
    rows: slice | None = None

    def of(self, layer: LayerGradients) -> Stored:
        """This piece of a chunk."""
        if self.part is None or self.rows is None:
            return store(layer)
        return DenseGradients(layer.parts[self.part].gradient(self.rows))


@dataclass(frozen=True)
class Share:
    """What is held of one layer for all examples of both sides: a piece, or what several pieces are made of.

    Attributes:
        pieces: in the order in which they are added up.
        held: bytes that stay.
        written: bytes of a piece that is written out when its turn comes; 0 where the piece itself is held.
    """

    pieces: tuple[Piece, ...]
    held: int
    written: int = 0

    @property
    def layer(self) -> str:
        """Its name."""
        return self.pieces[0].layer

    def of(self, layer: LayerGradients) -> Stored | LayerGradients:
        """This share of a chunk."""
        return layer if self.written else self.pieces[0].of(layer)


def store(layer: LayerGradients) -> Stored:
    """A layer's gradients in the form in which inner products are cheaper."""
    if layer.outer is not None:
        (_, T, d_out), d_in = layer.outer.deltas.shape, layer.outer.d_in
        if T == 1 or T * T * (d_in + d_out) <= d_in * d_out:
            factors = layer.factors
            assert factors is not None
            return factors
    return DenseGradients(layer.dense())


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
        Delete a piece before asking for the next: it takes up to `DENSE_BYTES`.

    Raises:
        NotApplicableError: it would take more than `MOST_PASSES` passes.
    """
    functions = (train_function, test_function)
    sides = ((train_function, context.train), (test_function, context.test))
    for group in _groups(context, checkpoint, functions, change, layers):
        train, test = (_held(context, checkpoint, *side, group, change, functions) for side in sides)
        for share in group:
            yield from _pieces_of(share, train.pop(0), test.pop(0))


def _pieces_of(
    share: Share, train: Stored | LayerGradients, test: Stored | LayerGradients
) -> Iterator[tuple[str, Stored, Stored]]:
    """A share's pieces; a call of its own, which lets go of the share before the next group is made."""
    for piece in share.pieces:
        yield piece.layer, _written(piece, train), _written(piece, test)


def _held(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    group: Sequence[Share],
    change: Change | None,
    beside: Collection[BatchFunction],
) -> list[Stored | LayerGradients]:
    """A group's shares of the gradients of all examples."""
    modules = {module_of(share.layer) for share in group}
    chunks = _named(layer_gradients(context, checkpoint, function, examples, layers=modules, beside=beside), change)
    return _filled(([share.of(found[share.layer]) for share in group] for found in chunks), len(examples))


def _written(piece: Piece, held: Stored | LayerGradients) -> Stored:
    """A piece of what is held, some examples at a time: patches of images take many times what images take."""
    if not isinstance(held, LayerGradients):
        return held
    rows = (slice(start, start + JOINED_ROWS) for start in range(0, len(held), JOINED_ROWS))
    return _filled(([piece.of(held.cut(some))] for some in rows), len(held))[0]


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
    chunks = _named(layer_gradients(context, checkpoint, function, examples, layers=layers, beside=beside), change)
    parts = ([piece.of(found[piece.layer]) for piece in pieces or map(Piece, found)] for found in chunks)
    return _filled(parts, len(examples))


def _named(chunks: Iterable[list[LayerGradients]], change: Change | None) -> Iterator[dict[str, LayerGradients]]:
    for chunk in chunks:
        yield {layer.name: layer for layer in _changed(chunk, change)}


def _filled(chunks: Iterable[list[AnyRows]], n: int) -> list[AnyRows]:
    """Chunks of n examples in all, put together: into room for all, since joining them would take twice the memory."""
    filled: list[AnyRows] = []
    start = stop = 0
    for parts in chunks:
        filled = filled or [_room(part, n) for part in parts]
        for room, part in zip(filled, parts, strict=True):
            for target, source in zip(room.tensors, part.tensors, strict=True):
                stop = start + len(source)
                target[start:stop] = source
        start = stop
    return filled


def joined(chunks: Iterable[Sequence[Stored]]) -> Iterator[list[Stored]]:
    """Chunks of at least `JOINED_ROWS` examples, but for the last.

    Of a large model a chunk has a dozen, and a product reads all gradients of the other side again.
    """
    waiting: list[Sequence[Stored]] = []
    for chunk in chunks:
        waiting.append(chunk)
        if sum(map(n_rows, waiting)) >= JOINED_ROWS:
            yield [_join(parts) for parts in zip(*waiting, strict=True)]
            waiting = []
    if waiting:
        yield [_join(parts) for parts in zip(*waiting, strict=True)]


def _join(parts: Sequence[Stored]) -> Stored:
    first = parts[0]
    if len(parts) == 1:
        return first
    tensors = [torch.cat(found) for found in zip(*(part.tensors for part in parts), strict=True)]
    if isinstance(first, DenseGradients):
        return DenseGradients(tensors[0])
    inputs, deltas = tensors
    return LayerFactors(inputs, deltas, first.bias)


def n_rows(chunk: Sequence[Stored]) -> int:
    """How many examples a chunk has."""
    return len(chunk[0].tensors[0])


def held_points(context: Context, one: int | None = None) -> int:
    """How many test points' gradients are held at once; each group of them costs a pass over the training examples.

    Args:
        context: data and model.
        one: bytes of one test point; by default those of a whole gradient.
    """
    n_test, most = len(context.test), max(1, held_bytes(context) // (one or gradient_bytes(context)))
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
) -> list[list[Share]]:
    """Shares in the layers' order, as many together as memory holds."""
    (probe,) = layer_gradients(context, checkpoint, functions[0], context.train[:1], layers=layers, beside=functions)
    n, room = len(context.train) + len(context.test), held_bytes(context)
    groups: list[list[Share]] = []
    for share in (found for layer in _changed(probe, change) for found in _shares(layer, n, room)):
        if groups and _bytes([*groups[-1], share]) <= room:
            groups[-1].append(share)
        else:
            groups.append([share])
    if len(groups) > MOST_PASSES:
        raise NotApplicableError(
            f"projection_dim = none: the gradients of {count_parameters(context):,} parameters take {len(groups)} "
            f"passes of {room / 2**30:.3g} GiB, more than {MOST_PASSES}; set projection_dim"
        )
    return groups


def _changed(chunk: list[LayerGradients], change: Change | None) -> list[LayerGradients]:
    return [found for layer in chunk for found in change(layer)] if change else chunk


def _bytes(group: Sequence[Share]) -> int:
    return sum(share.held for share in group) + max(share.written for share in group)


def _shares(layer: LayerGradients, n: int, room: int) -> Iterator[Share]:
    """A layer's pieces, each held by itself; or what they are made of, where that takes less and fits."""
    pieces = list(_pieces(layer, n))
    made_of, written = n * sum(tensor.nbytes for tensor in layer.tensors), max(needed for _, needed in pieces)
    if made_of < sum(needed for _, needed in pieces) and len(pieces) > 1 and made_of + written <= room:
        yield Share(tuple(piece for piece, _ in pieces), made_of, written)
        return
    for piece, needed in pieces:
        yield Share((piece,), needed)


def _pieces(layer: LayerGradients, n: int) -> Iterator[tuple[Piece, int]]:
    """A layer in pieces of at most `DENSE_BYTES`, where a row of a parameter allows it, and each one's bytes."""
    whole = store(layer)
    needed = n * sum(tensor.nbytes for tensor in whole.tensors)
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


def _room(like: AnyRows, n: int) -> AnyRows:
    """The same for n examples, not filled.

    What gradients are made of keeps its layout: from another one they would be rounded differently.
    """
    rooms: dict[int, Tensor] = {}  # a bias shares δ with its weight
    empty = _same_layout if isinstance(like, LayerGradients) else _contiguous

    def room(tensor: Tensor) -> Tensor:
        if id(tensor) not in rooms:
            rooms[id(tensor)] = empty(tensor, n)
        return rooms[id(tensor)]

    return like.map(room)


def _contiguous(like: Tensor, n: int) -> Tensor:
    return like.new_empty(n, *like.shape[1:])


def _same_layout(like: Tensor, n: int) -> Tensor:
    order = [0, *sorted(range(1, like.dim()), key=like.stride, reverse=True)]
    room = like.new_empty(n, *(like.shape[axis] for axis in order[1:]))
    return room.permute([order.index(axis) for axis in range(like.dim())])
