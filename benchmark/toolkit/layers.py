"""Which gradients every kind of module makes, and what a layer's are good for.

The forms are in `attriboard.toolkit.terms`. A new kind of module is one row in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attriboard.base.errors import NotApplicableError
from attriboard.toolkit.terms import Grouped, Lookup, Outer, Part, Scale, Term, Total, Transform

NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


GROUP = " group "
"""Between a module's name and the number of one of its groups."""


def module_of(layer: str) -> str:
    """The module that a layer is, or is a group of."""
    return layer.partition(GROUP)[0]


@dataclass(frozen=True)
class LayerFactors:
    """Gradients of one weight and its bias, kept as factors: ∇W_i = Σ_t δ_it a_itᵀ and ∇b_i = Σ_t δ_it.

    Attributes:
        inputs: a (n, T, d_in); (n, d_in) where there is one position.
        deltas: δ (n, T, d_out) or (n, d_out).
        bias: whether the layer has one.
    """

    inputs: Tensor
    deltas: Tensor
    bias: bool

    @property
    def extended(self) -> Tensor:
        """a, with the 1 that a bias is multiplied with as its last number."""
        return functional.pad(self.inputs, (0, 1), value=1.0) if self.bias else self.inputs

    @property
    def numbers(self) -> int:
        """Of one example's gradient."""
        return (self.inputs.shape[-1] + self.bias) * self.deltas.shape[-1]

    def dense(self) -> Tensor:
        """Gradients, ∇b_i beside each row of ∇W_i: (n, numbers)."""
        return self.matrices().flatten(1)

    def matrices(self) -> Tensor:
        """∇W_i, with ∇b_i as its last column: (n, d_out, d_in), or d_in + 1 with a bias."""
        if self.deltas.dim() == 2:
            return self.deltas[:, :, None] * self.extended[:, None, :]
        return self.deltas.transpose(1, 2) @ self.extended

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What they are made of."""
        return self.inputs, self.deltas

    def map(self, change: Transform) -> LayerFactors:
        """The same with every tensor changed."""
        return LayerFactors(change(self.inputs), change(self.deltas), self.bias)

    def gradients(self, name: str) -> LayerGradients:
        """The same as a layer without a bias, whose weight has one more column instead."""
        inputs, deltas = _at_positions(self.extended), _at_positions(self.deltas)
        shape = (deltas.shape[2], inputs.shape[2])
        return LayerGradients(name, (Part(shape, (Outer(inputs, deltas, shape[1], _identity),)),))


@dataclass(frozen=True)
class LayerGradients:
    """Gradients of one layer, a module with its own parameters, for n examples.

    Attributes:
        name: of the module.
        parts: its parameters, in their order.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def n_params(self) -> int:
        """How many numbers one example's gradient has."""
        return sum(prod(part.shape) for part in self.parts)

    @property
    def outer(self) -> Outer | None:
        """The weight's only use, where it is one matrix product; `None` for other layers."""
        first, *others = self.parts
        if len(first.terms) != 1 or not isinstance(first.terms[0], Outer):
            return None
        biases = [term for part in others for term in part.terms]
        return first.terms[0] if len(biases) < 2 and all(isinstance(term, Total) for term in biases) else None

    @property
    def factors(self) -> LayerFactors | None:
        """The factors of a layer that is one matrix product."""
        if self.outer is None:
            return None
        inputs, deltas = self.outer.inputs, self.outer.deltas
        if deltas.shape[1] == 1:
            inputs, deltas = inputs.squeeze(1), deltas.squeeze(1)
        return LayerFactors(inputs, deltas, bias=len(self.parts) == 2)

    def matrices(self) -> list[LayerGradients]:
        """The same as layers that are one matrix product: itself, each group of a grouped convolution, or nothing."""
        if self.outer is not None:
            return [self]
        first, *others = self.parts
        if len(first.terms) != 1 or not isinstance(first.terms[0], Grouped):
            return []
        grouped = first.terms[0]

        def one(number: int) -> LayerGradients:
            outer = grouped.group(number)
            d_out = outer.deltas.shape[2]
            biases = (Part((d_out,), (Total(outer.deltas),)),) * len(others)
            return LayerGradients(f"{self.name}{GROUP}{number}", (Part((d_out, outer.d_in), (outer,)), *biases))

        return [one(number) for number in range(grouped.groups)]

    def dense(self) -> Tensor:
        """Flat gradients (n, n_params)."""
        pieces = [part.gradient() for part in self.parts]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def squares(self) -> Tensor:
        """‖∇_i‖² (n,), without writing out a gradient that is one outer product."""
        if self.outer is None or self.outer.deltas.shape[1] > 1:
            return self.dense().double().square().sum(1)
        factors = self.factors
        assert factors is not None
        # Squares of small float32 numbers are zero.
        inputs, deltas = factors.inputs.double(), factors.deltas.double()
        return (inputs.square().sum(1) + factors.bias) * deltas.square().sum(1)

    def cut(self, rows: slice, dtype: torch.dtype | None = None) -> LayerGradients:
        """Those of some examples; with numbers of another type, where one is given."""

        def change(tensor: Tensor) -> Tensor:
            return tensor[rows].to(dtype) if dtype and tensor.is_floating_point() else tensor[rows]

        return self.map(change)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What they are made of, each once: a bias shares δ with its weight."""
        every = (tensor for part in self.parts for term in part.terms for tensor in term.tensors)
        return tuple({id(tensor): tensor for tensor in every}.values())

    def map(self, change: Transform) -> LayerGradients:
        """The same with every tensor changed."""
        parts = [Part(part.shape, tuple(term.map(change) for term in part.terms)) for part in self.parts]
        return LayerGradients(self.name, tuple(parts))

    def __len__(self) -> int:
        return len(self.parts[0].terms[0])


@dataclass(frozen=True)
class Kind:
    """What one kind of module leaves behind for its gradients.

    Attributes:
        keep: (module, inputs) → what is needed of the inputs; called within the forward pass, with the checkpoint's
            parameters and buffers in the module.
        terms: (module, what was kept, δ) → own parameter's name → its term.
        last_axis: whether it works on the last axis alone, whatever stands before.
    """

    keep: Callable[[Any, Tensor], Tensor]
    terms: Callable[[Any, Tensor, Tensor], dict[str, Term]]
    last_axis: bool = False


def kind_of(name: str, module: nn.Module, parameters: Collection[str]) -> Kind:
    """The kind of a module.

    Args:
        name: of the module, for messages.
        module: any.
        parameters: names of the parameters of its own.

    Raises:
        NotApplicableError: no row of `KINDS` has it.
    """
    for recognise, kind in KINDS:
        if recognise(module) and set(parameters) <= {"weight", "bias"}:
            return kind
    raise NotApplicableError(f"layer {name!r}: no gradient factors for {type(module).__name__} as it is set")


def _identity(tensor: Tensor) -> Tensor:
    return tensor


def _same(module: nn.Module, inputs: Tensor) -> Tensor:
    return inputs


def _at_positions(tensor: Tensor) -> Tensor:
    """(n, d) or (n, …, d) → (n, T, d)."""
    return tensor.unsqueeze(1) if tensor.dim() == 2 else tensor.flatten(1, -2)


def _linear(module: nn.Linear, inputs: Tensor, deltas: Tensor) -> dict[str, Term]:
    deltas = _at_positions(deltas)
    return {"weight": Outer(_at_positions(inputs), deltas, inputs.shape[-1], _identity), "bias": Total(deltas)}


def _transposed_linear(module: nn.Module, inputs: Tensor, deltas: Tensor) -> dict[str, Term]:
    deltas = _at_positions(deltas)
    inputs = _at_positions(inputs)
    return {"weight": Outer(inputs, deltas, inputs.shape[2], _identity, transposed=True), "bias": Total(deltas)}


def _convolution(module: Any, inputs: Tensor, deltas: Tensor) -> dict[str, Term]:
    padding = module.padding
    if isinstance(padding, str) or module.padding_mode != "zeros":
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        inputs, padding = functional.pad(inputs, module._reversed_padding_repeated_twice, mode), (0,) * inputs.dim()
    expand: Callable[[Tensor], Tensor]
    if inputs.dim() == 5:
        inputs = functional.pad(inputs, [side for pad in padding[2::-1] for side in (pad, pad)])
        expand = partial(_blocks, module=(module.kernel_size, module.dilation, module.stride))
    else:
        settings = [module.kernel_size, module.dilation, padding[: inputs.dim() - 2], module.stride]
        if inputs.dim() == 3:  # a row of pixels is an image of height one
            inputs, fill = inputs.unsqueeze(2), [1, 1, 0, 1]
            settings = [(first, *setting) for first, setting in zip(fill, settings, strict=True)]
        expand = partial(_patches, settings=settings)
    deltas = deltas.flatten(2).transpose(1, 2)
    weight: Term
    if module.groups > 1:
        weight = Grouped(inputs, deltas, expand, module.groups)
    else:
        weight = Outer(inputs, deltas, module.weight[0].numel(), expand)
    return {"weight": weight, "bias": Total(deltas)}


def _patches(images: Tensor, settings: list[Any]) -> Tensor:
    return functional.unfold(images, *settings).transpose(1, 2)


def _blocks(volumes: Tensor, module: tuple[tuple[int, ...], ...]) -> Tensor:
    """`_patches` in three dimensions: (n, C, D, H, W) → (n, T, C · kernel)."""
    for axis, (kernel, dilation, stride) in enumerate(zip(*module, strict=True), 2):
        # Each axis becomes positions, with the offsets of the kernel as a new last axis.
        windows = volumes.unfold(axis, dilation * (kernel - 1) + 1, stride)
        volumes = windows[..., ::dilation]
    n, channels = volumes.shape[:2]
    return volumes.flatten(5).flatten(2, 4).transpose(1, 2).reshape(n, -1, channels * prod(module[0]))


def _embedding(module: nn.Embedding, inputs: Tensor, deltas: Tensor) -> dict[str, Term]:
    indices, deltas = inputs.flatten(1), deltas.flatten(1, -2)
    if module.padding_idx is not None:  # which autograd leaves alone
        deltas = deltas.masked_fill((indices == module.padding_idx)[:, :, None], 0)
    return {"weight": Lookup(indices, deltas, module.num_embeddings)}


def _normalised(module: Any, inputs: Tensor) -> Tensor:
    """x̂: the inputs of the norm's scale and shift."""
    if isinstance(module, nn.LayerNorm):
        return functional.layer_norm(inputs, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.RMSNorm):
        return functional.rms_norm(inputs, module.normalized_shape, eps=module.eps)
    if isinstance(module, nn.GroupNorm):
        return functional.group_norm(inputs, module.num_groups, eps=module.eps)
    return functional.batch_norm(inputs, module.running_mean, module.running_var, eps=module.eps)


def _norm(module: Any, normalised: Tensor, deltas: Tensor) -> dict[str, Term]:
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        shape = (len(deltas), -1, *module.normalized_shape)
        normalised, deltas = normalised.reshape(shape), deltas.reshape(shape)
    else:  # channels come second
        normalised, deltas = (side.flatten(2) if side.dim() > 2 else side.unsqueeze(2) for side in (normalised, deltas))
        normalised, deltas = normalised.transpose(1, 2), deltas.transpose(1, 2)
    return {"weight": Scale(normalised, deltas), "bias": Total(deltas)}


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear)


def _is_transposed_linear(module: nn.Module) -> bool:
    """`transformers.pytorch_utils.Conv1D`, known by its name and layout: y = x W + b with W (d_in, nf)."""
    weight = getattr(module, "weight", None)
    named = any(base.__name__ == "Conv1D" for base in type(module).__mro__)
    return named and isinstance(weight, Tensor) and weight.dim() == 2 and weight.shape[1] == getattr(module, "nf", None)


def _is_convolution(module: nn.Module) -> bool:
    return isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))


def _is_embedding(module: nn.Module) -> bool:
    plain = isinstance(module, nn.Embedding) and module.max_norm is None
    return plain and not module.scale_grad_by_freq and not module.sparse


def _is_layer_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and len(module.normalized_shape) == 1


def _is_frozen_norm(module: nn.Module) -> bool:
    """Whether it treats every example by itself: batch statistics would make examples interact."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return module.running_mean is not None and not module.training
    return isinstance(module, NORMS)


KINDS: tuple[tuple[Callable[[nn.Module], bool], Kind], ...] = (
    (_is_linear, Kind(_same, _linear, last_axis=True)),
    (_is_transposed_linear, Kind(_same, _transposed_linear, last_axis=True)),
    (_is_convolution, Kind(_same, _convolution)),
    (_is_embedding, Kind(_same, _embedding)),
    (_is_layer_norm, Kind(_normalised, _norm, last_axis=True)),
    (_is_frozen_norm, Kind(_normalised, _norm)),
)
"""Who recognizes a module → its kind."""
