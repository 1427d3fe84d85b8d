"""The forms that per-example gradients take; `attriboard.toolkit.layers` says which kind of module has which.

With a the inputs of a module at positions t (pixels, tokens, or just one) and δ the gradients with respect to its
outputs, the gradient of one example i is a sum over positions, of one of these forms:

    Outer   ∇W_i = Σ_t δ_it a_itᵀ        Linear; convolutions, with a the patches; Conv1D of transformers, transposed
    Grouped the same in blocks           grouped convolutions
    Lookup  ∇W_i[v] = Σ_{t: x_it = v} δ_it   Embedding: a is one-hot, and never written out
    Scale   ∇γ_i = Σ_t δ_it ⊙ x̂_it       LayerNorm, RMSNorm, GroupNorm, and BatchNorm with its running statistics
    Total   ∇b_i = Σ_t δ_it              their biases
    Dense   the gradient itself          every other module, by `torch.func.vmap`

A parameter that several modules use, such as a tied embedding, has one term for each use, and its gradient is their
sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Self

from torch import Tensor

Transform = Callable[[Tensor], Tensor]


class Term(ABC):
    """One use of a parameter by n examples; every tensor has n rows."""

    @property
    def tensors(self) -> list[Tensor]:
        """What it is made of."""
        return [value for value in vars(self).values() if isinstance(value, Tensor)]

    def __len__(self) -> int:
        return len(self.tensors[0])

    @abstractmethod
    def gradient(self, rows: slice) -> Tensor:
        """∇W along `rows` of the parameter's first axis, (n, numbers)."""

    @abstractmethod
    def along(self, direction: Tensor) -> Tensor:
        """⟨the part of ∇W that each position makes, direction⟩, (n, T); `direction` has the parameter's shape."""

    def map(self, change: Transform) -> Self:
        """The same with every tensor changed."""
        changed = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **changed)  # type: ignore[type-var]  # every form is a dataclass


@dataclass(frozen=True)
class Outer(Term):
    """Σ_t δ_t a_tᵀ.

    Attributes:
        source: what a is made of, (n, …).
        deltas: δ (n, T, d_out).
        d_in: numbers of a at one position.
        expand: from `source` to a (n, T, d_in): identity, or the patches of a convolution, which take more memory.
        transposed: whether the parameter is (d_in, d_out) instead of (d_out, d_in).
    """

    source: Tensor
    deltas: Tensor
    d_in: int
    expand: Transform
    transposed: bool = False

    @property
    def inputs(self) -> Tensor:
        """Inputs a (n, T, d_in)."""
        return self.expand(self.source)

    def gradient(self, rows: slice) -> Tensor:
        """See `Term`."""
        left, right = (self.inputs, self.deltas) if self.transposed else (self.deltas, self.inputs)
        left = left[:, :, rows].transpose(1, 2)
        return (left * right if left.shape[2] == 1 else left @ right).flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """See `Term`."""
        matrix = direction.flatten(1).to(self.deltas.dtype)
        return ((self.inputs @ (matrix if self.transposed else matrix.T)) * self.deltas).sum(-1)


@dataclass(frozen=True)
class Grouped(Term):
    """`Outer` in `groups` blocks: outputs of group g see inputs of group g alone, as in a grouped convolution.

    Attributes:
        source, deltas, expand: see `Outer`; all groups' inputs and deltas, one group after the other.
        groups: how many.
    """

    source: Tensor
    deltas: Tensor
    expand: Transform
    groups: int

    def gradient(self, rows: slice) -> Tensor:
        """See `Term`."""
        deltas, inputs = self._split(self.deltas), self._split(self.expand(self.source))
        whole = deltas.permute(0, 2, 3, 1) @ inputs.permute(0, 2, 1, 3)
        return whole.flatten(1, 2)[:, rows].flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """See `Term`."""
        parts = [self.group(g).along(rows) for g, rows in enumerate(direction.chunk(self.groups))]
        return sum(parts[1:], parts[0])

    def group(self, number: int) -> Outer:
        """One group's part."""
        deltas, inputs = self._split(self.deltas)[:, :, number], self._split(self.expand(self.source))[:, :, number]
        return Outer(inputs, deltas, inputs.shape[2], _same)

    def _split(self, side: Tensor) -> Tensor:
        """(n, T, numbers) → (n, T, groups, numbers of each)."""
        return side.reshape(*side.shape[:2], self.groups, -1)


@dataclass(frozen=True)
class Lookup(Term):
    """Σ_t e_{x_t} δ_tᵀ: `indices` x (n, T), `deltas` δ (n, T, d)."""

    indices: Tensor
    deltas: Tensor
    size: int

    def gradient(self, rows: slice) -> Tensor:
        """See `Term`."""
        start, stop, _ = rows.indices(self.size)
        # Tokens of other rows are gathered in one more row, which is dropped.
        own = (self.indices - start).where((self.indices >= start) & (self.indices < stop), stop - start)
        table = self.deltas.new_zeros(len(own), stop - start + 1, self.deltas.shape[2])
        table.scatter_add_(1, own[:, :, None].expand_as(self.deltas), self.deltas)
        return table[:, :-1].flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """See `Term`."""
        return (direction.to(self.deltas.dtype)[self.indices] * self.deltas).sum(-1)


@dataclass(frozen=True)
class Scale(Term):
    """Σ_t δ_t ⊙ x̂_t: `normalised` x̂ and `deltas` δ, both (n, T, *shape)."""

    normalised: Tensor
    deltas: Tensor

    def gradient(self, rows: slice) -> Tensor:
        """See `Term`."""
        return (self.normalised * self.deltas).sum(1)[:, rows].flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """See `Term`."""
        return (self.normalised * self.deltas * direction.to(self.deltas.dtype)).flatten(2).sum(-1)


@dataclass(frozen=True)
class Total(Term):
    """Σ_t δ_t: `deltas` δ (n, T, *shape)."""

    deltas: Tensor

    def gradient(self, rows: slice) -> Tensor:
        """See `Term`."""
        return self.deltas.sum(1)[:, rows].flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """See `Term`."""
        return (self.deltas * direction.to(self.deltas.dtype)).flatten(2).sum(-1)


@dataclass(frozen=True)
class Dense(Term):
    """The gradient itself, `values` (n, *shape)."""

    values: Tensor

    def gradient(self, rows: slice) -> Tensor:
        """See `Term`."""
        return self.values[:, rows].flatten(1)

    def along(self, direction: Tensor) -> Tensor:
        """See `Term`; there are no positions, so it is one number for each example."""
        return (self.values * direction.to(self.values.dtype)).flatten(1).sum(1, keepdim=True)


def _same(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Part:
    """One parameter's gradients: a sum of terms.

    Attributes:
        shape: of the parameter; () counts as (1,).
        terms: one for each module that uses it.
    """

    shape: tuple[int, ...]
    terms: tuple[Term, ...]

    @property
    def width(self) -> int:
        """Numbers for each index of the first axis."""
        return prod(self.shape[1:])

    def gradient(self, rows: slice = slice(None)) -> Tensor:
        """(n, numbers), along `rows` of the first axis."""
        total = self.terms[0].gradient(rows)
        for term in self.terms[1:]:
            total = total + term.gradient(rows)
        return total
