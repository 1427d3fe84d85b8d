"""Influence in Kronecker eigenbases: what EK-FAC, K-FAC and Shampoo share.

Each gives every matrix layer an orthonormal basis U = U_S ⊗ U_A and eigenvalues Λ in it. Then

    τ_λ(z', i) = −Σ_layers Σ_pq  v_i[p,q] v'[p,q] / (Λ[p,q] + λ),   v = U_Aᵀ gᵀ U_S

With one position a gradient is an outer product δ aᵀ, and scores are computed from the rotated factors, never from
gradients: per test point the (d_in, d_out) matrix v'/(Λ + λ) is contracted with all training examples, n_train · d_in
· d_out multiplications a layer and a test point. With several positions, pixels or tokens, v'/(Λ + λ) is rotated back
and multiplied with the training gradients, which are kept where `KEPT_BYTES` allows it, and made again for every λ
where not.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.hyperparameter import Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.gradients import layer_gradients
from attriboard.toolkit.kernel import DenseGradients, Piece, Stored, collect, joined
from attriboard.toolkit.kronecker import KroneckerBasis, mean_squares
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layers import LayerFactors, LayerGradients
from attriboard.toolkit.layerwise import layer_damping, left_out, matrices, matrix_layers, modules_of

Fisher = Literal["true", "empirical"]

BLOCK_BYTES = 128 * 2**20
"""Memory for one product of training factors with some test points."""

KEPT_BYTES = 2**30
"""Memory for training gradients that scores at every λ need."""

SPECTRUM_BYTES = 512 * 2**20
"""Memory for the spectrum's coefficients (n_test, directions); of more directions the smallest are merged."""


@dataclass(frozen=True)
class Eigenvalues:
    """One layer's curvature; P directions of inputs that occur, Q of outputs.

    Attributes:
        corrected: Λ (P, Q), float64.
        moments: mean square of the training gradients in each direction (P, Q), float64; Λ if that is empirical.
        mean: mean eigenvalue over all directions, also those that do not occur.
    """

    corrected: Tensor
    moments: Tensor
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
    """A layer at several positions: `test` v' (n_test, P, Q), float32; training gradients are `Model.chunks`."""

    curvature: Eigenvalues
    basis: KroneckerBasis
    test: Tensor

    def coordinates(self, points: slice) -> Tensor:
        """Coordinates v' of some test points, (k, P, Q)."""
        return self.test[points]

    def solved(self, damping: float | None) -> Tensor:
        """(F̂_l + λI)⁻¹ g', (n_test, d_out · d_in), float32."""
        return self.basis.gradients(self.test * self.curvature.weights(damping).float())


@dataclass(frozen=True)
class Model:
    """One checkpoint.

    Attributes:
        context, checkpoint: where training gradients come from.
        layers: its matrix layers.
        kept: chunks of the training gradients of layers at several positions, or `None`: to be made again.
    """

    context: Context
    checkpoint: Checkpoint
    layers: dict[str, VectorLayer | PositionsLayer]
    kept: list[list[Tensor]] | None

    def scores(self, regularization: float | None) -> Tensor:
        """−Σ_l g_iᵀ (F̂_l + λI)⁻¹ g'_j, (n_test, n_train), float32."""
        total, solved = self._zeros(), []
        for layer in self.layers.values():
            if isinstance(layer, VectorLayer):
                total += layer.products(regularization)
            else:
                solved.append(layer.solved(regularization))
        return self._with_positions(total, solved).neg_()

    def contracted(self, coordinates: Mapping[str, Tensor]) -> Tensor:
        """−Σ_l ⟨v_i, x_j⟩ of test vectors x, layer → (n_test, P, Q), in rotated coordinates: (n_test, n_train)."""
        total, solved = self._zeros(), []
        for name, layer in self.layers.items():
            x = coordinates[name].float()
            if isinstance(layer, VectorLayer):
                total += layer.contracted(x.__getitem__, len(x))
            else:
                solved.append(layer.basis.gradients(x))
        return self._with_positions(total, solved).neg_()

    def _zeros(self) -> Tensor:
        return torch.zeros(len(self.context.test), len(self.context.train), device=self.context.device)

    def _with_positions(self, total: Tensor, solved: list[Tensor]) -> Tensor:
        """Add the products of layers at several positions, of test vectors (n_test, d_out · d_in)."""
        start = 0
        for chunk in (self.chunks() if self.kept is None else self.kept) if solved else ():
            rows = slice(start, start + len(chunk[0]))
            for left, gradients in zip(solved, chunk, strict=True):
                total[:, rows].addmm_(left, gradients.T.float())
            start = rows.stop
        return total

    @property
    def spectrum(self) -> Spectrum:
        """Λ, and c = (Σ_i v_i²)^½ v' in each direction: of K/n, as far as the eigenbasis makes it diagonal.

        All layers, descending; beyond `SPECTRUM_BYTES` the smallest σ count as its remainder.
        """
        layers = list(self.layers.values())
        eigenvalues = torch.cat([layer.curvature.corrected.flatten() for layer in layers])
        n_train, n_test = len(self.context.train), len(self.context.test)
        lengths = torch.cat([(n_train * layer.curvature.moments).sqrt().flatten() for layer in layers])
        order = eigenvalues.argsort(descending=True)
        # Where Λ is zero no training example has a gradient.
        order = order[: int((eigenvalues > 0).sum())]
        kept = min(len(order), max(1, SPECTRUM_BYTES // (8 * n_test)))
        coefficients = lengths.new_empty(n_test, kept)
        remainder = lengths.new_zeros(n_test)
        for point in range(n_test):
            one = slice(point, point + 1)
            row = (lengths * torch.cat([layer.coordinates(one).flatten() for layer in layers]))[order]
            coefficients[point], remainder[point] = row[:kept], row[kept:].norm()
        floor = float(eigenvalues[order[kept]]) if kept < len(order) else 0.0
        return Spectrum(eigenvalues[order[:kept]], coefficients, n_train, remainder if floor else None, floor)

    def chunks(self) -> Iterator[list[Tensor]]:
        """Training gradients (b, d_out · d_in) of every layer at several positions."""
        names = [name for name, layer in self.layers.items() if isinstance(layer, PositionsLayer)]
        passed = layer_gradients(
            self.context, self.checkpoint, self.context.loss, self.context.train, layers=modules_of(names)
        )
        for chunk in joined(_dense(layers, names) for layers in passed):
            yield [gradients.dense() for gradients in chunk]


def _dense(layers: list[LayerGradients], names: Collection[str]) -> list[DenseGradients]:
    """Gradients (b, d_out · d_in) of the named matrix layers of a chunk."""
    found = {layer.name: layer.factors for layer in matrices(layers)}
    return [DenseGradients(one.dense()) for name, one in found.items() if name in names and one is not None]


@dataclass(frozen=True)
class Block:
    """One layer's curvature.

    Attributes:
        basis: its eigenbasis.
        eigenvalues: Λ (P, Q), float64.
        moments: mean square of the training gradients in each direction (P, Q), where it is known already.
    """

    basis: KroneckerBasis
    eigenvalues: Tensor
    moments: Tensor | None = None


def fisher_labels(default: Fisher, source: str) -> Hyperparameter:
    """Whose labels the curvature is an expectation over."""
    return Hyperparameter(
        "fisher",
        default,
        source,
        choices=("true", "empirical"),
        grid=("true", "empirical"),
        description="expectation over the model's own labels, or the training labels",
    )


class MatrixLayers(MeanOfFits):
    """A method of Kronecker eigenbases; it has `fisher` among its hyperparameters."""

    def memory_need(
        self, context: Context, *, fisher: Fisher, checkpoints: int, epoch: int | None, **others: Any
    ) -> dict[str, int] | None:
        """Factors, those of every label, bases, and what scores are made of."""
        sizes = needs.linear_sizes(context.model)
        if sizes is None:
            return None
        n, n_directions = len(context.train), sum(d_in * d_out for d_in, d_out in sizes)
        draws = sizes[-1][1] if fisher == "true" else 1
        outputs = sum(d_out for _, d_out in sizes)
        return {
            "factors": 2 * needs.factors(context, sizes),
            "factors of every label": 4 * needs.DOUBLE * draws * n * outputs,
            "bases": 4 * needs.DOUBLE * max(max(d_in, d_out) ** 2 for d_in, d_out in sizes),
            "eigenvalues": 2 * needs.DOUBLE * checkpoints * n_directions,
            "the spectrum": min(SPECTRUM_BYTES, needs.DOUBLE * len(context.test) * n_directions) * checkpoints,
            "products": 2 * min(BLOCK_BYTES, needs.FLOAT * n * max(d_out for _, d_out in sizes) * len(context.test)),
            "scores": 3 * needs.pairs(context),
        }

    def notes(self, state: Fits) -> tuple[str, ...]:
        """Which parameters are left out."""
        return left_out(state.context, state.models[0].layers)


class KroneckerInfluence(MatrixLayers):
    """A method that divides by eigenvalues: it gives every matrix layer a `Block`."""

    @abstractmethod
    def blocks(
        self,
        context: Context,
        checkpoint: Checkpoint,
        sizes: Mapping[str, tuple[int, int]],
        *args: Any,
        **values: Any,
    ) -> dict[str, Block]:
        """The curvature of every matrix layer.

        Args:
            context: model and loss.
            checkpoint: the parameters.
            sizes: name → (d_in, d_out), a bias counted in d_in.
            args: none.
            values: `fisher`, and the method's other fit-stage values.
        """

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, **values: Any) -> Model:
        """Eigenbases, eigenvalues and rotated gradients of one checkpoint's layers.

        Raises:
            NotApplicableError: no layer is one matrix product, there are no labels, or a curvature is not finite.
        """
        sizes = matrix_layers(context, checkpoint)
        return fit_model(context, checkpoint, sizes, self.blocks(context, checkpoint, sizes, **values))


def fit_model(
    context: Context, checkpoint: Checkpoint, sizes: Mapping[str, tuple[int, int]], blocks: Mapping[str, Block]
) -> Model:
    """Every matrix layer of one checkpoint, rotated.

    Raises:
        NotApplicableError: a curvature is zero or not finite.
    """
    bases = {name: block.basis for name, block in blocks.items()}
    squares = {name: block.moments for name, block in blocks.items() if block.moments is not None}
    if len(squares) < len(blocks):
        squares = mean_squares(context, checkpoint, labelled(context, checkpoint, own=False), bases)

    def rotated(layer: LayerGradients) -> list[LayerGradients]:
        return [bases[one.name].rotated(one) for one in layer.matrices() if one.name in bases]

    modules = modules_of(sizes)

    test: dict[str, Stored] = dict(
        zip(
            sizes,
            collect(context, checkpoint, context.target, context.test, change=rotated, layers=modules),
            strict=True,
        )
    )
    vectors = [Piece(name) for name in sizes if isinstance(test[name], LayerFactors)]
    train = iter(collect(context, checkpoint, context.loss, context.train, vectors, rotated) if vectors else [])
    layers: dict[str, VectorLayer | PositionsLayer] = {}
    for name, (d_in, d_out) in sizes.items():
        curvature = eigenvalues(blocks[name].eigenvalues, squares[name], d_in * d_out)
        points = test.pop(name)
        if isinstance(points, DenseGradients):
            v = points.values.float().view(-1, *curvature.corrected.shape)
            layers[name] = PositionsLayer(curvature, bases[name], v)
        else:
            layers[name] = VectorLayer(curvature, bases[name], single(next(train)), single(points))
    return keep_gradients(Model(context, checkpoint, layers, None), sizes)


def eigenvalues(corrected: Tensor, moments: Tensor, directions: int) -> Eigenvalues:
    """One layer's, checked."""
    if not bool(torch.isfinite(corrected).all()) or float(corrected.max()) == 0:
        raise NotApplicableError("a layer's Fisher matrix is zero or not finite: a model diverged, or has no gradient")
    return Eigenvalues(corrected, moments, float(corrected.sum()) / directions)


def single(stored: Stored) -> LayerFactors:
    """Rotated factors in float32."""
    assert isinstance(stored, LayerFactors)
    return LayerFactors(stored.inputs.float(), stored.deltas.float(), stored.bias)


def keep_gradients(model: Model, sizes: Mapping[str, tuple[int, int]]) -> Model:
    """The same with its training gradients in memory, if they are few enough."""
    numbers = [d_in * d_out for name, (d_in, d_out) in sizes.items() if isinstance(model.layers[name], PositionsLayer)]
    if not numbers or 4 * len(model.context.train) * sum(numbers) > KEPT_BYTES:
        return model
    return Model(model.context, model.checkpoint, model.layers, list(model.chunks()))
