"""First and second derivatives of a batch's losses along many directions, for parameters that change with every batch.

For directions X (k of them, one tensor (k, *shape) per parameter) at a batch of B examples with losses ℓ_i and outputs
z_i

    slopes        ⟨x, ∇ℓ_i⟩                         (k, B)
    combination   Σ_i w_i ∇ℓ_i                      w (k, B)
    Hessian       Σ_i ∇²ℓ_i x
    Gauss–Newton  Σ_i J_iᵀ (∂²ℓ_i/∂z²) J_i x,  J_i = ∂z_i/∂θ

Methods that follow a training run need them at thousands of parameter vectors, so nothing is found out anew at each
(`attriboard.toolkit.curvature` is for one). Two ways: `torch.func`, for any model; and for perceptrons of Linear and
ReLU layers the chain rule by hand, in large matrix products over directions and examples (Pearlmutter 1994). Which one
is taken depends on the model alone. Results are added to what the caller holds, which is where memory goes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.memory import count_activations
from attriboard.toolkit.placed import FunctionalModel, own_precision, values
from attriboard.toolkit.reference import reason_of, reference

Directions = Mapping[str, Tensor]
"""Name of a parameter → (k, *shape)."""

PASS_BYTES = 256 * 2**20
"""Memory for the intermediates of one pass; decides how many directions go together."""


class Batch(Protocol):
    """The losses of a batch at one set of parameters."""

    def slopes(self, directions: Directions) -> Tensor:
        """⟨x, ∇ℓ_i⟩, (k, B)."""

    def add_combination(self, weights: Tensor, into: Directions, scale: float = 1.0) -> None:
        """Add `scale` Σ_i w_i ∇ℓ_i to `into`, for weights w (k, B)."""

    def add_hessian(self, directions: Directions, into: Directions, scale: float = 1.0) -> Tensor:
        """Add `scale` Σ_i ∇²ℓ_i x to `into`; return the slopes."""

    def add_gauss_newton(self, directions: Directions, into: Directions, scale: float = 1.0) -> Tensor:
        """Add `scale` Σ_i J_iᵀ (∂²ℓ_i/∂z²) J_i x to `into`; return the slopes."""


class BatchLosses:
    """The training losses of any batch at any parameters.

    Args:
        context: model and loss.
        checkpoint: of the same model, whose buffers and frozen parameters stay.
        names: parameters that are differentiated; the attributed ones where `None`.
        dtype: of all computation; the model's own where `None`.

    Raises:
        NotApplicableError: single examples have no gradients.
    """

    def __init__(
        self,
        context: Context,
        checkpoint: Checkpoint,
        names: tuple[str, ...] | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.names = context.attributed if names is None else names
        self._function = context.loss
        self._model, self._width = _running(context, checkpoint, dtype)
        self.dtype = self._model.dtype or own_precision(context.model)
        self._precision = reference(context, checkpoint, context.loss).precision
        self._linears = perceptron_layers(context.model, self.names)

    def at(self, parameters: Mapping[str, Tensor], examples: Examples) -> Batch:
        """The losses of some examples.

        Args:
            parameters: at least `names`; others that change, such as frozen ones, may be there too.
            examples: B of them.
        """
        given = {name: value.to(self.dtype) for name, value in parameters.items() if name in self._model.parameters}
        whole = {**self._model.parameters, **given}
        if self._linears:
            return PerceptronBatch(self._linears, whole, self._model.cast(examples.inputs), self._losses(examples))
        return FunctionalBatch(self, whole, examples)

    def gradient(self, parameters: Mapping[str, Tensor], examples: Examples) -> dict[str, Tensor]:
        """The gradient of the mean loss of a batch, as one direction (1, *shape)."""
        found = {name: torch.zeros_like(parameters[name], dtype=self.dtype).unsqueeze(0) for name in self.names}
        ones = next(iter(found.values())).new_ones(1, len(examples))
        self.at(parameters, examples).add_combination(ones, found, 1 / len(examples))
        return found

    def rows(self, directions: int) -> int:
        """How many examples may go together with so many directions."""
        return max(1, PASS_BYTES // (4 * self.dtype.itemsize * self._width * directions))

    def _losses(self, examples: Examples) -> OutputLosses:
        return OutputLosses(self._function, examples.targets, self._precision)


def _running(context: Context, checkpoint: Checkpoint, dtype: torch.dtype | None) -> tuple[FunctionalModel, int]:
    """The model in a precision, and its activations for one example; in its own where it fixes one inside.

    Raises:
        NotApplicableError: it does not run on one example.
    """
    wanted = FunctionalModel(context, checkpoint, dtype)
    try:
        return wanted, count_activations(wanted, context.train.inputs[:1])
    except Exception as error:
        if dtype in (None, own_precision(context.model)):
            raise NotApplicableError(f"the model does not run on one example: {reason_of(error)}") from error
        return _running(context, checkpoint, None)


class OutputLosses:
    """Losses of a batch as functions of its outputs."""

    def __init__(self, function: BatchFunction, targets: Tensor, precision: torch.dtype) -> None:
        self.function, self.targets, self.precision = function, targets, precision

    def __call__(self, outputs: Tensor) -> Tensor:
        """ℓ (B,)."""
        return values(self.function, outputs, self.targets, self.precision)

    def total(self, outputs: Tensor) -> Tensor:
        """Σ_i ℓ_i."""
        return self(outputs).sum()

    def gradient(self, outputs: Tensor) -> Tensor:
        """∂ℓ_i/∂z_i, (B, …)."""
        found: Tensor = grad(self.total)(outputs)
        return found

    def curve(self, outputs: Tensor, tangents: Tensor) -> Tensor:
        """(∂²ℓ_i/∂z²) r_i for tangents r (k, B, …); the matrix is symmetric, and examples do not meet."""
        pull = vjp(grad(self.total), outputs)[1]
        found: Tensor = vmap(pull)(tangents)[0]
        return found


class FunctionalBatch:
    """A `Batch` of any model, by `torch.func`."""

    def __init__(self, losses: BatchLosses, parameters: dict[str, Tensor], examples: Examples) -> None:
        self._inputs, self._model = examples.inputs, losses._model
        self._parameters = {name: parameters[name] for name in losses.names}
        self._others = {name: value for name, value in parameters.items() if name not in self._parameters}
        self._losses, self._n, self._dtype = losses._losses(examples), len(examples), losses.dtype
        n_params = sum(value.numel() for value in self._parameters.values())
        numbers = PASS_BYTES // losses.dtype.itemsize
        self._step = max(1, numbers // (8 * self._n * losses._width + 4 * n_params))

    def slopes(self, directions: Directions) -> Tensor:
        """See `Batch`."""
        pull = self._pullback(lambda weights: self._gradient(self._parameters, weights), self._ones())
        return torch.cat([pull(block)[0].to(self._dtype) for block in self._blocks(directions)])

    def add_combination(self, weights: Tensor, into: Directions, scale: float = 1.0) -> None:
        """See `Batch`."""
        pull = self._pullback(self._values, self._parameters)
        for start in range(0, len(weights), self._step):
            rows = slice(start, start + self._step)
            (found,) = pull(weights[rows].to(self._losses.precision))
            self._add(found, into, rows, scale)

    def add_hessian(self, directions: Directions, into: Directions, scale: float = 1.0) -> Tensor:
        """See `Batch`."""
        pull = self._pullback(self._gradient, self._parameters, self._ones())
        slopes = []
        for number, block in enumerate(self._blocks(directions)):
            found, of_weights = pull(block)
            self._add(found, into, slice(number * self._step, (number + 1) * self._step), scale)
            slopes.append(of_weights)
        return torch.cat(slopes).to(self._dtype)

    def add_gauss_newton(self, directions: Directions, into: Directions, scale: float = 1.0) -> Tensor:
        """See `Batch`."""
        with sdpa_kernel(SDPBackend.MATH):
            outputs, back, *_ = vjp(self._outputs, self._parameters)
        # The transpose of the transpose: J x without forward mode, which fewer operations have.
        forth = self._pullback(lambda cotangents: back(cotangents)[0], torch.zeros_like(outputs))
        down = self._losses.gradient(outputs)
        slopes = []
        for number, block in enumerate(self._blocks(directions)):
            (tangents,) = forth(block)
            with sdpa_kernel(SDPBackend.MATH):
                (found,) = vmap(back)(self._losses.curve(outputs, tangents).to(outputs.dtype))
            self._add(found, into, slice(number * self._step, (number + 1) * self._step), scale)
            slopes.append((tangents * down).flatten(2).sum(2))
        return torch.cat(slopes)

    def _outputs(self, parameters: Mapping[str, Tensor]) -> Tensor:
        outputs: Tensor = self._model(self._inputs, {**self._others, **parameters})
        return outputs

    def _values(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self._losses(self._outputs(parameters)).to(self._losses.precision)

    def _gradient(self, parameters: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
        """Σ_i w_i ∇ℓ_i."""
        found: dict[str, Tensor] = grad(lambda one: weights @ self._values(one))(dict(parameters))
        return found

    def _ones(self) -> Tensor:
        return torch.ones(self._n, dtype=self._losses.precision, device=self._inputs.device)

    def _pullback(self, function: Callable[..., Any], *at: Any) -> Callable[[Any], Any]:
        """Its pullback, for many cotangents at once; attention by its plain formula, which has second derivatives."""
        try:
            with sdpa_kernel(SDPBackend.MATH):
                pull = vmap(vjp(function, *at)[1])
        except Exception as error:
            raise NotApplicableError(f"torch.func cannot differentiate the model: {reason_of(error)}") from error

        def pulled(cotangents: Any) -> Any:
            with sdpa_kernel(SDPBackend.MATH):
                return pull(cotangents)

        return pulled

    def _blocks(self, directions: Directions) -> list[dict[str, Tensor]]:
        k = len(next(iter(directions.values())))
        kinds = {name: value.dtype for name, value in self._parameters.items()}
        return [
            {name: directions[name][start : start + self._step].to(kind) for name, kind in kinds.items()}
            for start in range(0, k, self._step)
        ]

    def _add(self, found: Mapping[str, Tensor], into: Directions, rows: slice, scale: float) -> None:
        for name, value in found.items():
            into[name][rows].add_(value, alpha=scale)


Linears = tuple[tuple[str, str | None], ...]
"""Names of the weights and biases of a perceptron's layers."""


def perceptron_layers(model: nn.Module, names: tuple[str, ...]) -> Linears:
    """The layers of a model that is Linear (ReLU Linear)* with all its parameters differentiated; else nothing."""
    if type(model) is not nn.Sequential or len(model) % 2 == 0 or set(names) != dict(model.named_parameters()).keys():
        return ()
    kinds = [nn.Linear, nn.ReLU]
    if any(type(layer) is not kinds[position % 2] for position, layer in enumerate(model)):
        return ()
    found = [(f"{position}.weight", f"{position}.bias") for position in range(0, len(model), 2)]
    return tuple((weight, bias if bias in names else None) for weight, bias in found)


class PerceptronBatch:
    """A `Batch` of a perceptron; tangents are (k, d_out, B), so that directions and examples share matrix products."""

    def __init__(self, linears: Linears, parameters: Mapping[str, Tensor], inputs: Tensor, losses: OutputLosses):
        self._linears, self._losses = linears, losses
        self._weights = [parameters[weight] for weight, _ in linears]
        self._inputs, self._masks = [inputs], []  # of every layer (B, d_in); of every ReLU (d, B)
        for number, (weight, bias) in enumerate(linears):
            outputs = self._inputs[-1] @ parameters[weight].T
            outputs = outputs if bias is None else outputs + parameters[bias]
            if number + 1 < len(linears):
                self._masks.append((outputs > 0).T.to(outputs.dtype).contiguous())
                self._inputs.append(outputs.relu())
        self._outputs = outputs
        deltas = [losses.gradient(outputs).T]  # (d_out, B)
        for W, mask in zip(reversed(self._weights[1:]), reversed(self._masks), strict=True):
            deltas.append((W.T @ deltas[-1]) * mask)
        self._deltas = deltas[::-1]

    def slopes(self, directions: Directions) -> Tensor:
        """See `Batch`."""
        return self._slopes(self._tangents(directions)[-1])

    def add_combination(self, weights: Tensor, into: Directions, scale: float = 1.0) -> None:
        """See `Batch`."""
        for layer, deltas in enumerate(self._deltas):
            self._add(layer, deltas * weights.to(deltas.dtype)[:, None, :], into, scale)

    def add_hessian(self, directions: Directions, into: Directions, scale: float = 1.0) -> Tensor:
        """See `Batch`."""
        return self._add_curvature(directions, into, scale, whole=True)

    def add_gauss_newton(self, directions: Directions, into: Directions, scale: float = 1.0) -> Tensor:
        """See `Batch`."""
        return self._add_curvature(directions, into, scale, whole=False)

    def _tangents(self, directions: Directions) -> list[Tensor]:
        """The derivative of every layer's inputs beyond the first, and of the outputs, along each direction."""
        tangents: list[Tensor] = []
        for layer, (weight, bias) in enumerate(self._linears):
            X = directions[weight]
            found = (X.flatten(0, 1) @ self._inputs[layer].T).view(len(X), X.shape[1], -1)
            if tangents:
                found += self._weights[layer] @ tangents[-1]
            if bias is not None:
                found += directions[bias][:, :, None]
            if layer < len(self._masks):
                found *= self._masks[layer]
            tangents.append(found)
        return tangents

    def _slopes(self, tangents: Tensor) -> Tensor:
        return (tangents * self._deltas[-1]).sum(1)

    def _add_curvature(self, directions: Directions, into: Directions, scale: float, whole: bool) -> Tensor:
        tangents = self._tangents(directions)
        slopes = self._slopes(tangents[-1])
        curved = self._losses.curve(self._outputs, tangents.pop().transpose(1, 2))
        change = curved.to(self._outputs.dtype).transpose(1, 2).contiguous()  # of δ, (k, d_out, B)
        for layer in range(len(self._linears) - 1, -1, -1):
            self._add(layer, change, into, scale)
            if not layer:
                break
            weight = self._linears[layer][0]
            below = self._weights[layer].T @ change
            if whole:
                deltas = self._deltas[layer]
                into[weight].add_(deltas @ tangents[layer - 1].transpose(1, 2), alpha=scale)
                below += directions[weight].transpose(1, 2) @ deltas
            change = below.mul_(self._masks[layer - 1])
        return slopes

    def _add(self, layer: int, deltas: Tensor, into: Directions, scale: float) -> None:
        """Add the gradient that δ (k, d_out, B) makes of a layer's weight and bias."""
        weight, bias = self._linears[layer]
        flat = into[weight].flatten(0, 1)
        if flat.data_ptr() == into[weight].data_ptr():
            flat.addmm_(deltas.flatten(0, 1), self._inputs[layer], alpha=scale)
        else:
            into[weight].add_((deltas.flatten(0, 1) @ self._inputs[layer]).view_as(into[weight]), alpha=scale)
        if bias is not None:
            into[bias].add_(deltas.sum(2), alpha=scale)
