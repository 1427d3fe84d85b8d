"""What methods with one curvature block per matrix layer share: linear layers, convolutions, Conv1D."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.hyperparameter import Hyperparameter, Stage
from attriboard.toolkit.factored import FactoredGradients, factors_of, layer_parameters
from attriboard.toolkit.knobs import REGULARIZATION_GRID
from attriboard.toolkit.labels import Draw
from attriboard.toolkit.layers import LayerFactors, LayerGradients, module_of

HEURISTIC = 0.1
"""λ = none is this much of a layer's mean eigenvalue: Grosse et al. (arXiv 2308.03296), kronfluence, logix."""


MOST_NAMED = 12
"""Layers that a note names."""


def layer_regularization(
    default: float | None, source: str, *, stage: Stage = "score", aliases: tuple[str, ...] = (), every: int = 1
) -> Hyperparameter:
    """λ of every layer's (F_l + λI)⁻¹: absolute, or relative to the layer's mean eigenvalue.

    Args:
        default: λ; `None` for the heuristic.
        source: of the default.
        stage: whether it needs a new fit.
        aliases: other names.
        every: which values of the common grid are worth their price.
    """
    return Hyperparameter(
        "regularization",
        default,
        source,
        type=float,
        stage=stage,
        grid=REGULARIZATION_GRID[::every],
        optional=True,
        minimum=0.0,
        description="λ, absolute, added to the curvature normalized by 1/n; none for 0.1 × each layer's mean",
        aliases=aliases,
    )


def layer_damping(value: float | None, mean_eigenvalue: float) -> float:
    """The absolute λ of one layer."""
    return HEURISTIC * mean_eigenvalue if value is None else value


def matrix_layers(context: Context, checkpoint: Checkpoint) -> dict[str, tuple[int, int]]:
    """Layers that are one matrix product: name → (d_in, d_out), a bias counted in d_in.

    Linear layers, Conv1D, convolutions, each group of a grouped one by itself; of those whose factors are the gradients
    of single examples, for the loss and for the target.

    Raises:
        NotApplicableError: there are none; or single examples have no gradients at all.
    """
    sides = [factors_of(context, checkpoint, function) for function in (context.loss, context.target)]
    usable = [name for name in layer_parameters(context) if all(side.reasons[name] is None for side in sides)]
    sizes: dict[str, tuple[int, int]] = {}
    if usable:
        factored = FactoredGradients(context, checkpoint, context.loss)
        for layer in matrices(factored.chunk(context.train[:1], usable)):
            one = layer.factors
            assert one is not None
            sizes[layer.name] = (one.extended.shape[-1], one.deltas.shape[-1])
    if not sizes:
        why = "; ".join(reason for reason in list(sides[0].reasons.values())[:MOST_NAMED] if reason is not None)
        modules = dict(context.model.named_modules())
        kinds = {type(modules[name]).__name__ for name in list(sides[0].reasons)[:MOST_NAMED]}
        raise NotApplicableError(
            f"no layer is one matrix product, linear or convolution: {why or 'there is ' + ', '.join(sorted(kinds))}"
        )
    return sizes


def matrix_positions(context: Context, checkpoint: Checkpoint, layers: Collection[str]) -> dict[str, int]:
    """At how many positions each matrix layer stands: pixels, tokens, or one."""
    chunk = FactoredGradients(context, checkpoint, context.loss).chunk(context.train[:1], modules_of(layers))
    found = {layer.name: layer.factors for layer in matrices(chunk)}
    return {name: one.deltas.shape[1] if one.deltas.dim() == 3 else 1 for name, one in found.items() if one is not None}


@dataclass(frozen=True)
class MatrixLayout:
    """How matrix layers make up the parameters of their modules.

    Attributes:
        modules: name → its matrix layers, in the order of groups.
        shapes: weight or bias → its shape.
        transposed: modules whose weight is (d_in, d_out).
    """

    modules: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    transposed: frozenset[str]

    def parameters(self, layers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Layer → (k, d_out, d_in), a bias as the last column, to parameter → (k, *shape)."""
        found: dict[str, Tensor] = {}
        for module, parts in self.modules.items():
            whole = torch.cat([layers[part] for part in parts], 1) if len(parts) > 1 else layers[parts[0]]
            weight, *biases = self._names(module)
            columns = whole[:, :, :-1] if biases else whole
            columns = columns.transpose(1, 2) if module in self.transposed else columns
            found[weight] = columns.reshape(len(whole), *self.shapes[weight])
            found |= {bias: whole[:, :, -1].reshape(len(whole), *self.shapes[bias]) for bias in biases}
        return found

    def layers(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inverse of `parameters`."""
        found: dict[str, Tensor] = {}
        for module, parts in self.modules.items():
            weight, *biases = self._names(module)
            columns = parameters[weight]
            columns = columns.transpose(1, 2) if module in self.transposed else columns.flatten(2)
            whole = torch.cat([columns, *(parameters[bias][:, :, None] for bias in biases)], 2)
            found |= dict(zip(parts, whole.chunk(len(parts), 1), strict=True))
        return found

    def _names(self, module: str) -> list[str]:
        """Weight, and bias where there is one."""
        own = (f"{module}.{kind}" if module else kind for kind in ("weight", "bias"))
        return [name for name in own if name in self.shapes]


def matrix_layout(context: Context, checkpoint: Checkpoint, layers: Collection[str]) -> MatrixLayout:
    """Of some matrix layers, all groups of a module among them."""
    modules: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        modules[module_of(layer)] = (*modules.get(module_of(layer), ()), layer)
    own = layer_parameters(context)
    chunk = FactoredGradients(context, checkpoint, context.loss).chunk(context.train[:1], set(modules))
    transposed = frozenset(layer.name for layer in chunk if layer.outer is not None and layer.outer.transposed)
    shapes = {name: shape for module in modules for name, shape in own[module].items()}
    return MatrixLayout(modules, shapes, transposed)


def matrices(chunk: Iterable[LayerGradients]) -> list[LayerGradients]:
    """The matrix products among layers, each group of a grouped convolution by itself."""
    return [one for layer in chunk for one in layer.matrices()]


def modules_of(layers: Collection[str]) -> set[str]:
    """The modules that matrix layers belong to."""
    return {module_of(layer) for layer in layers}


def left_out(context: Context, layers: Collection[str]) -> tuple[str, ...]:
    """A sentence on the parameters of all other layers, if there are any."""
    sizes = {name: sum(map(prod, own.values())) for name, own in layer_parameters(context).items()}
    covered = modules_of(layers)
    others = {name or "the model itself": size for name, size in sizes.items() if name not in covered}
    if not others:
        return ()
    names = ", ".join(list(others)[:MOST_NAMED]) + f" and {len(others) - MOST_NAMED} more" * (len(others) > MOST_NAMED)
    share = f"{sum(others.values()):,} of {sum(sizes.values()):,} parameters"
    return (f"leaves out {share}, those of layers that are not one matrix product: {names}",)


def second_moments(
    context: Context, checkpoint: Checkpoint, draws: Sequence[Draw], layers: Collection[str]
) -> dict[str, tuple[Tensor, Tensor]]:
    """A = E[Σ_t a aᵀ] and S = E[Σ_t δ δᵀ] of matrix layers, means over training examples, float64.

    Args:
        context: model and loss.
        checkpoint: the parameters.
        draws: the labels that S is an expectation over.
        layers: names of the layers.
    """
    n = len(context.train)
    moments: dict[str, tuple[Tensor, Tensor]] = {}
    for number, weights, chunk in weighted_factors(context, checkpoint, draws, layers):
        for name, factors in chunk.items():
            a, δ = factors.extended.flatten(0, -2), factors.deltas
            weighted = (δ * weights.sqrt().to(δ).view(-1, *[1] * (δ.dim() - 1))).flatten(0, -2)
            A, S = moments.setdefault(name, (_square(a), _square(weighted)))
            S += (weighted.T @ weighted).div_(n)
            if number == 0:  # inputs are the same in every draw
                A += (a.T @ a).div_(n)
    return moments


def weighted_factors(
    context: Context, checkpoint: Checkpoint, draws: Sequence[Draw], layers: Collection[str]
) -> Iterator[tuple[int, Tensor, dict[str, LayerFactors]]]:
    """Chunks of training examples, and each with the labels of every draw in turn.

    Yields:
        The draw's number, its weights (b,), and every layer's factors of the training loss. The layers' inputs are
        those of the chunk, whatever the draw.
    """
    start = 0
    wanted = modules_of(layers)
    gradients = FactoredGradients(context, checkpoint, context.loss)
    for first in gradients.blocks(draws[0].examples, layers=wanted):
        rows = slice(start, start + len(first[0]))
        for number, draw in enumerate(draws):
            chunk = gradients.chunk(draw.examples[rows], wanted) if number else first
            found = {layer.name: layer.factors for layer in matrices(chunk)}
            factors = {name: one for name, one in found.items() if one is not None and name in layers}
            yield number, draw.weights[rows], factors
        start = rows.stop


def _square(side: Tensor) -> Tensor:
    return torch.zeros(side.shape[1], side.shape[1], dtype=torch.float64, device=side.device)
