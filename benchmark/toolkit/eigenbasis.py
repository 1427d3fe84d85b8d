"""Influence in Kronecker eigenbases: what EK-FAC, K-FAC and Shampoo share.

Each gives every matrix layer an orthonormal basis U = U_S ⊗ U_A and eigenvalues Λ in it. Then

    τ_λ(z', i) = −Σ_layers Σ_pq  v_i[p,q] v'[p,q] / (Λ[p,q] + λ),   v = U_Aᵀ gᵀ U_S

With one position a gradient is an outer product δ aᵀ, and scores are computed from the rotated factors, never from
gradients: per test point the (d_in, d_out) matrix v'/(Λ + λ) is contracted with all training examples, n_train · d_in
· d_out multiplications a layer and a test point. With several positions, pixels or tokens, v'/(Λ + λ) is rotated back
and multiplied with the training gradients. Either side is kept where `KEPT_BYTES` allows it, and made again for every λ
where not. Then as many test points are rotated together as `held_bytes` has room for. Each group of them costs one pass
over the training set, unless its gradients are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.gradients import layer_gradients
from attriboard.toolkit.held import DenseGradients, collect, held_points, joined
from attriboard.toolkit.kronecker import KroneckerBasis, mean_squares
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layers import LayerFactors, LayerGradients
from attriboard.toolkit.layerwise import layer_damping, matrices, modules_of
from attriboard.toolkit.terms import Dense, Part

BLOCK_BYTES = 128 * 2**20
"""Memory for one product of training factors with some test points."""

KEPT_BYTES = 2**30
"""Memory for training gradients, and for test gradients, that scores at every λ need."""

SPECTRUM_BYTES = 512 * 2**20
"""Memory for the spectrum's coefficients (n_test, directions); of more directions the smallest are merged."""


@dataclass(frozen=True)
class Eigenvalues:
    """One layer's curvature; P directions of inputs that occur, Q of outputs.

    Attributes:
        corrected: Λ (P, Q), float64.
        mean: mean eigenvalue over all directions, also those that do not occur.
    """

    corrected: Tensor
    mean: float

    def weights(self, damping: float | None) -> Tensor:
        """1/(Λ + λ) (P, Q); a λ below the rounding of Λ leaves out the directions that are.

        At λ = 0 this is the pseudo-inverse.
        """
        damping = layer_damping(damping, self.mean)
        floor = max(self.corrected.shape) * torch.finfo(torch.float64).eps * float(self.corrected.max())
        inverse = 1 / (self.corrected + damping)
        return inverse if damping > floor else inverse.masked_fill(self.corrected <= floor, 0)


@dataclass(frozen=True)
class VectorLayer:
    """A layer at one position, as rotated factors (n, P) and (n, Q) of the training and the test examples, float32."""

    curvature: Eigenvalues
    basis: KroneckerBasis
    train: LayerFactors
    test: LayerFactors

    def coordinates(self, points: slice) -> Tensor:
        """Coordinates v' of some test points, (k, P, Q)."""
        return self.test.inputs[points, :, None] * self.test.deltas[points, None, :]

    def products(self, damping: float | None) -> Tensor:
        """Σ_pq v_i v'_j / (Λ + λ), (n_test, n_train), float32."""
        weights = self.curvature.weights(damping).float()

        def solved(points: slice) -> Tensor:
            return self.test.inputs[points, :, None] * weights * self.test.deltas[points, None, :]

        return self.contracted(solved, len(self.test.inputs))

    def contracted(self, coordinates: Callable[[slice], Tensor], count: int) -> Tensor:
        """Σ_pq v_i x_j for x (points, P, Q), made for some points at a time: (count, n_train), float32."""
        n_train, n_outputs = self.train.deltas.shape
        result = self.train.inputs.new_empty(count, n_train)
        group = max(1, BLOCK_BYTES // (4 * n_train * n_outputs))
        for start in range(0, count, group):
            points = slice(start, start + group)
            solved = coordinates(points)
            left = self.train.inputs @ solved.transpose(0, 1).flatten(1)  # (n_train, P) @ (P, points · Q)
            result[points] = torch.einsum("njq,nq->jn", left.view(n_train, -1, n_outputs), self.train.deltas)
        return result


@dataclass(frozen=True)
class PositionsLayer:
    """A layer at several positions: `test` v' (n_test, P, Q), float32, where it is kept."""

    curvature: Eigenvalues
    basis: KroneckerBasis
    test: Tensor | None = None

    def coordinates(self, points: slice) -> Tensor:
        """Coordinates v' of some test points, (k, P, Q)."""
        assert self.test is not None
        return self.test[points]

    def solved(self, coordinates: Tensor, damping: float | None) -> Tensor:
        """(F̂_l + λI)⁻¹ g', (k, d_out · d_in), float32, of coordinates v' (k, P, Q)."""
        return self.basis.gradients(coordinates.float() * self.curvature.weights(damping).float())


@dataclass(frozen=True)
class Model:
    """One checkpoint.

    Attributes:
        context, checkpoint: where gradients come from.
        layers: its matrix layers.
        known: mean squares of the training gradients in each direction, layer → (P, Q), where they are known already.
        kept: chunks of the training gradients of layers at several positions, or `None`: to be made again.
    """

    context: Context
    checkpoint: Checkpoint
    layers: dict[str, VectorLayer | PositionsLayer]
    known: Mapping[str, Tensor]
    kept: list[list[Tensor]] | None = None

    def scores(self, regularization: float | None) -> Tensor:
        """−Σ_l g_iᵀ (F̂_l + λI)⁻¹ g'_j, (n_test, n_train), float32."""
        total = self._zeros()
        for layer in self.layers.values():
            if isinstance(layer, VectorLayer):
                total += layer.products(regularization)
        for points in self._groups() if self._positions else ():
            self._add_products(total[points], self._solved(points, regularization))
        return total.neg_()

    def contracted(self, coordinates: Mapping[str, Tensor]) -> Tensor:
        """−Σ_l ⟨v_i, x_j⟩ of test vectors x, layer → (n_test, P, Q), in rotated coordinates: (n_test, n_train)."""
        total, rotated = self._zeros(), []
        for name, layer in self.layers.items():
            x = coordinates[name].float()
            if isinstance(layer, VectorLayer):
                total += layer.contracted(x.__getitem__, len(x))
            else:
                rotated.append(layer.basis.gradients(x))
        self._add_products(total, rotated)
        return total.neg_()

    def coordinates(self, points: slice) -> dict[str, Tensor]:
        """Coordinates v' of some test points, layer → (k, P, Q)."""
        made = {} if self._test_kept else self._test_coordinates(points)
        return {name: made[name] if name in made else layer.coordinates(points) for name, layer in self.layers.items()}

    @property
    def spectrum(self) -> Spectrum:
        """Λ, and c = (Σ_i v_i²)^½ v' in each direction: of K/n, as far as the eigenbasis makes it diagonal.

        All layers, descending; beyond `SPECTRUM_BYTES` the smallest σ count as its remainder.
        """
        layers = self.layers
        eigenvalues = torch.cat([layer.curvature.corrected.flatten() for layer in layers.values()])
        n_train, n_test = len(self.context.train), len(self.context.test)
        lengths = torch.cat([(n_train * self._moments[name]).sqrt().flatten() for name in layers])
        order = eigenvalues.argsort(descending=True)
        # Where Λ is zero no training example has a gradient.
        order = order[: int((eigenvalues > 0).sum())]
        kept = min(len(order), max(1, SPECTRUM_BYTES // (8 * n_test)))
        coefficients = lengths.new_empty(n_test, kept)
        remainder = lengths.new_zeros(n_test)
        for points in self._groups():
            made = {} if self._test_kept else self._test_coordinates(points)
            for k, point in enumerate(range(n_test)[points]):
                one = slice(point, point + 1)
                v = [made[name][k] if name in made else layer.coordinates(one) for name, layer in layers.items()]
                row = (lengths * torch.cat([part.flatten() for part in v]))[order]
                coefficients[point], remainder[point] = row[:kept], row[kept:].norm()
        floor = float(eigenvalues[order[kept]]) if kept < len(order) else 0.0
        return Spectrum(eigenvalues[order[:kept]], coefficients, n_train, remainder if floor else None, floor)

    def keeping(self) -> Model:
        """The same model, with the gradients of a side kept in memory where `KEPT_BYTES` allows it."""
        model = self
        if 0 < self._gradient_bytes * len(self.context.test) <= KEPT_BYTES:
            made = self._test_coordinates(slice(0, len(self.context.test)))
            kept = {name: replace(layer, test=made[name]) for name, layer in self._positions.items()}
            model = replace(self, layers={**self.layers, **kept})
        if 0 < self._gradient_bytes * len(self.context.train) <= KEPT_BYTES:
            model = replace(model, kept=list(self._chunks()))
        return model

    @property
    def _positions(self) -> dict[str, PositionsLayer]:
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, PositionsLayer)}

    @property
    def _test_kept(self) -> bool:
        return all(layer.test is not None for layer in self._positions.values())

    @property
    def _gradient_bytes(self) -> int:
        """Of one example's gradient in float32, of layers at several positions."""
        return 4 * sum(layer.basis.inputs.shape[0] * layer.basis.deltas.shape[0] for layer in self._positions.values())

    @cached_property
    def _moments(self) -> Mapping[str, Tensor]:
        """Mean squares of the training gradients in each direction, layer → (P, Q), float64."""
        if self.known:
            return self.known
        bases = {name: layer.basis for name, layer in self.layers.items()}
        draws = labelled(self.context, self.checkpoint, own=False)
        return mean_squares(self.context, self.checkpoint, draws, bases)

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self.context.test), len(self.context.train), device=self.context.device)

    def _groups(self) -> list[slice]:
        """All test points, as many together as memory has room for."""
        n_test = len(self.context.test)
        step = n_test if self._test_kept else held_points(self.context, self._gradient_bytes)
        return [slice(start, start + step) for start in range(0, n_test, step)]

    def _solved(self, points: slice, regularization: float | None) -> list[Tensor]:
        """(F̂_l + λI)⁻¹ g', (k, d_out · d_in), of some test points, for every layer at several positions."""
        if self._test_kept:
            return [layer.solved(layer.coordinates(points), regularization) for layer in self._positions.values()]
        return list(self._test_gradients(points, lambda layer, v: layer.solved(v, regularization)).values())

    def _test_coordinates(self, points: slice) -> dict[str, Tensor]:
        """Coordinates v' (k, P, Q) of layers at several positions, made again."""
        made = self._test_gradients(points, lambda layer, v: v)
        return {name: made[name].view(-1, *one.curvature.corrected.shape) for name, one in self._positions.items()}

    def _test_gradients(self, points: slice, change: Callable[[PositionsLayer, Tensor], Tensor]) -> dict[str, Tensor]:
        """What `change` makes of v' (b, P, Q), layer → (k, numbers), float32: a chunk of some test points at a time."""
        positions = self._positions

        def changed(layer: LayerGradients) -> list[LayerGradients]:
            return [_flat(one, positions[one.name], change) for one in layer.matrices() if one.name in positions]

        collected = collect(
            self.context,
            self.checkpoint,
            self.context.target,
            self.context.test[points],
            change=changed,
            layers=modules_of(positions),
        )
        return {name: one.dense() for name, one in zip(positions, collected, strict=True)}

    def _add_products(self, total: Tensor, vectors: list[Tensor]) -> None:
        """Add the products of test vectors (k, d_out · d_in), layer by layer, with the training gradients."""
        start = 0
        for chunk in (self._chunks() if self.kept is None else self.kept) if vectors else ():
            rows = slice(start, start + len(chunk[0]))
            for left, gradients in zip(vectors, chunk, strict=True):
                total[:, rows].addmm_(left, gradients.T.float())
            start = rows.stop

    def _chunks(self) -> Iterator[list[Tensor]]:
        """Training gradients (b, d_out · d_in) of every layer at several positions."""
        names = list(self._positions)
        passed = layer_gradients(
            self.context, self.checkpoint, self.context.loss, self.context.train, layers=modules_of(names)
        )
        for chunk in joined(_dense(layers, names) for layers in passed):
            yield [gradients.dense() for gradients in chunk]


def _flat(
    gradients: LayerGradients, layer: PositionsLayer, change: Callable[[PositionsLayer, Tensor], Tensor]
) -> LayerGradients:
    factors = gradients.factors
    assert factors is not None
    values = change(layer, layer.basis.coordinates(factors)).float().flatten(1)
    return LayerGradients(gradients.name, (Part((values.shape[1],), (Dense(values),)),))


def _dense(layers: list[LayerGradients], names: Collection[str]) -> list[DenseGradients]:
    """Gradients (b, d_out · d_in) of the named matrix layers of a chunk."""
    found = {layer.name: layer.factors for layer in matrices(layers)}
    return [DenseGradients(one.dense()) for name, one in found.items() if name in names and one is not None]
