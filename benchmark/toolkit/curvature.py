"""First and second derivatives of the training loss along given directions.

For directions X (k, n_params) at one checkpoint, one sweep over the training examples gives both

    X H  (k, n_params),  H the Hessian of the mean training loss, and
    X Gᵀ (k, n_train),   ⟨x, ∇L(z_i)⟩ for every training example,

by reverse-mode differentiation of the weighted gradient g(θ, w) = Σ_i w_i ∇L(z_i; θ) at w = 1: the pullback of x is
∂⟨x, g⟩/∂θ = n x H and ∂⟨x, g⟩/∂w = x Gᵀ. (Pearlmutter 1994, "Fast Exact Multiplication by the Hessian", for the first.)
Nothing of size n_train × n_params or n_params² is stored, and results do not depend on how examples and directions are
cut into blocks (beyond the rounding of sums). Every operation of the model needs a second derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vjp, vmap

from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.memory import ROWS, count_activations

WeightedGradient = Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor]]
Pullback = Callable[[dict[str, Tensor]], tuple[Any, ...]]

SWEEP_BYTES = 512 * 2**20
"""Memory for the intermediates of one pass; decides how many directions go together."""

INTERMEDIATES = 6
"""Values that a pass holds at once for each activation of the model, about."""


class TrainingLoss:
    """The mean training loss at one checkpoint, as a function of the parameters in the order of the model.

    Args:
        context: model, training examples and loss.
        checkpoint: where derivatives are taken.
        dtype: of all computation; the parameters' own where `None`.
        rows: examples per pass, at most; no influence on the result.
        memory_bytes: bounds the intermediates of a pass; no influence on the result.
    """

    def __init__(
        self,
        context: Context,
        checkpoint: Checkpoint,
        dtype: torch.dtype | None = None,
        *,
        rows: int = ROWS,
        memory_bytes: int = SWEEP_BYTES,
    ) -> None:
        names = [name for name, _ in context.model.named_parameters()]
        self.dtype = dtype or checkpoint.parameters[names[0]].dtype
        self.train = context.train
        self._model, self._loss = context.model, context.loss
        self._parameters = {name: self._cast(checkpoint.parameters[name]) for name in names}
        self._buffers = {name: self._cast(value) for name, value in checkpoint.buffers.items()}
        self.n_params = sum(value.numel() for value in self._parameters.values())
        self.device = self._parameters[names[0]].device
        width = count_activations(self._model, self._parameters | self._buffers, self._cast(self.train.inputs[:1]))
        self._numbers = memory_bytes // self.dtype.itemsize
        self._row_numbers = INTERMEDIATES * width
        self._rows = max(1, min(rows, self._numbers // self._row_numbers))

    def products(self, directions: Tensor, examples: Examples | None = None) -> tuple[Tensor, Tensor]:
        """X H and X Gᵀ.

        Args:
            directions: X (k, n_params).
            examples: those that H and G are of; all training examples where `None`.

        Returns:
            X H (k, n_params), H the mean over the examples, and X Gᵀ (k, n), in the directions' precision.
        """
        examples = self.train if examples is None else examples
        curvature = torch.zeros_like(directions)
        slopes = directions.new_empty(len(directions), len(examples))
        for rows, batch in self._batches(examples):
            pull: Pullback = vjp(self._gradient(self._loss, batch), self._parameters, self._ones(batch))[1]
            for block in self._blocks(directions, batch):
                pieces, slopes[block, rows] = vmap(pull)(self._unflatten(directions[block].to(self.dtype)))
                for name, view in self._unflatten(curvature[block]).items():
                    view.add_(pieces[name])
        return curvature.div_(len(examples)), slopes

    def slopes(self, function: BatchFunction, examples: Examples, directions: Tensor) -> Tensor:
        """⟨x, ∇φ(z)⟩ for every direction x and example z, (k, n), of φ = `function` of (outputs, targets)."""
        slopes = directions.new_empty(len(directions), len(examples))
        for rows, batch in self._batches(examples):
            gradient = self._gradient(function, batch)
            pull: Pullback = vjp(partial(gradient, self._parameters), self._ones(batch))[1]
            for block in self._blocks(directions, batch):
                (slopes[block, rows],) = vmap(pull)(self._unflatten(directions[block].to(self.dtype)))
        return slopes

    def _gradient(self, function: BatchFunction, batch: Examples) -> WeightedGradient:
        """(θ, w) → Σ_i w_i ∇φ(z_i; θ)."""
        inputs = self._cast(batch.inputs)

        def total(parameters: Mapping[str, Tensor], weights: Tensor) -> Tensor:
            outputs = functional_call(self._model, {**self._buffers, **parameters}, (inputs,))
            return weights @ function(outputs, batch.targets)

        gradient: WeightedGradient = grad(total)
        return gradient

    def _ones(self, batch: Examples) -> Tensor:
        return torch.ones(len(batch), dtype=self.dtype, device=self.device)

    def _batches(self, examples: Examples) -> Iterator[tuple[slice, Examples]]:
        for start in range(0, len(examples), self._rows):
            rows = slice(start, start + self._rows)
            yield rows, examples[rows]

    def _blocks(self, directions: Tensor, batch: Examples) -> Iterator[slice]:
        step = max(1, self._numbers // (len(batch) * self._row_numbers + 4 * self.n_params))
        for start in range(0, len(directions), step):
            yield slice(start, start + step)

    def _unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """Views (k, *shape) of the rows of (k, n_params), by name."""
        pieces = torch.split(flat, [value.numel() for value in self._parameters.values()], dim=1)
        named = zip(self._parameters.items(), pieces, strict=True)
        return {name: piece.view(len(flat), *value.shape) for (name, value), piece in named}

    def _cast(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor
