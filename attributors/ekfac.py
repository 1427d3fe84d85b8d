"""EK-FAC influence: the Fisher matrix as a Kronecker product per layer, with corrected eigenvalues.

Grosse et al., "Studying Large Language Model Generalization with Influence Functions" (arXiv 2308.03296), with the
curvature of George et al., "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis", NeurIPS
2018 (arXiv 1806.03884):

    τ_λ(z', i) = −Σ_layers Σ_pq  v_i[q,p] v'[q,p] / (Λ[q,p] + λ),   averaged over checkpoints

A gradient of a linear layer is an outer product δ aᵀ, with a the layer's input and a 1 appended to it where there is
a bias. Rotated into the eigenbases of A = E[a aᵀ] = U_A · U_Aᵀ and S = E[δ δᵀ] = U_S · U_Sᵀ it is v = (U_Sᵀ δ)(U_Aᵀ
a)ᵀ, and Λ = E[v²], element by element. (F̂_l + λI)⁻¹ is then a division.

The labels whose gradients S and Λ are made of are those of the training set with `fisher = empirical`, and the model's
own with `fisher = true`, by `attriboard.toolkit.labels`: in exact expectation over classes, by one draw for each
position of a sequence. A layer at several positions, pixels or tokens, has gradients Σ_t δ_t a_tᵀ; A and S are sums
over positions, Λ is made of whole gradients.

With one position, scores are computed from the rotated factors, never from gradients: per test point the (d_in,
d_out) matrix v'/(Λ + λ) is contracted with all training examples, n_train · d_in · d_out multiplications a layer and a
test point. With several, v'/(Λ + λ) is rotated back and multiplied with the training gradients, which are kept where
`KEPT_BYTES` allows it, and made again for every λ where not.

Deviations: the test side is the gradient of the attributed f; λ is absolute, added to a curvature that is a mean over
training examples; λ = none is the paper's and kronfluence's heuristic, a tenth of each layer's mean eigenvalue; λ = 0
is the pseudo-inverse over the numerical rank. Matrix layers only: linear layers, convolutions and Conv1D whose weight
no other layer shares. Embeddings and norms are left out, as in kronfluence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.gradients import layer_gradients
from attriboard.toolkit.kernel import DenseGradients, Piece, Stored, collect
from attriboard.toolkit.kronecker import KroneckerBasis, eigenbasis, mean_squares
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layers import LayerFactors, LayerGradients
from attriboard.toolkit.layerwise import (
    layer_damping,
    layer_regularization,
    left_out,
    matrices,
    matrix_layers,
    modules_of,
    second_moments,
)

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
    train: LayerFactors
    test: LayerFactors

    def test_coordinates(self, point: int) -> Tensor:
        """Coordinates v' of one test point, (P, Q)."""
        return torch.outer(self.test.inputs[point], self.test.deltas[point])

    def products(self, damping: float | None) -> Tensor:
        """Σ_pq v_i v'_j / (Λ + λ), (n_test, n_train), float32."""
        weights = self.curvature.weights(damping).float()
        n_train, n_outputs = self.train.deltas.shape
        result = self.train.inputs.new_empty(len(self.test.inputs), n_train)
        group = max(1, BLOCK_BYTES // (4 * n_train * n_outputs))
        for start in range(0, len(result), group):
            points = slice(start, start + group)
            solved = self.test.inputs[points, :, None] * weights * self.test.deltas[points, None, :]
            left = self.train.inputs @ solved.transpose(0, 1).flatten(1)  # (n_train, P) @ (P, points · Q)
            result[points] = torch.einsum("njq,nq->jn", left.view(n_train, -1, n_outputs), self.train.deltas)
        return result


@dataclass(frozen=True)
class PositionsLayer:
    """A layer at several positions: `test` v' (n_test, P, Q), float32; training gradients are `Model.chunks`."""

    curvature: Eigenvalues
    basis: KroneckerBasis
    test: Tensor

    def test_coordinates(self, point: int) -> Tensor:
        """Coordinates v' of one test point, (P, Q)."""
        return self.test[point]

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
        n_test, n_train = len(self.context.test), len(self.context.train)
        total = torch.zeros(n_test, n_train, device=self.context.device)
        solved = []
        for layer in self.layers.values():
            if isinstance(layer, VectorLayer):
                total += layer.products(regularization)
            else:
                solved.append(layer.solved(regularization))
        start = 0
        for chunk in (self.chunks() if self.kept is None else self.kept) if solved else ():
            rows = slice(start, start + len(chunk[0]))
            for left, gradients in zip(solved, chunk, strict=True):
                total[:, rows].addmm_(left, gradients.T.float())
            start = rows.stop
        return total.neg_()

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
            row = (lengths * torch.cat([layer.test_coordinates(point).flatten() for layer in layers]))[order]
            coefficients[point], remainder[point] = row[:kept], row[kept:].norm()
        floor = float(eigenvalues[order[kept]]) if kept < len(order) else 0.0
        return Spectrum(eigenvalues[order[:kept]], coefficients, n_train, remainder if floor else None, floor)

    def chunks(self) -> Iterator[list[Tensor]]:
        """Training gradients (b, d_out · d_in) of every layer at several positions."""
        names = [name for name, layer in self.layers.items() if isinstance(layer, PositionsLayer)]
        for chunk in layer_gradients(
            self.context, self.checkpoint, self.context.loss, self.context.train, layers=modules_of(names)
        ):
            found = {layer.name: layer.factors for layer in matrices(chunk)}
            yield [factors.dense() for name, factors in found.items() if name in names and factors is not None]


class EKFAC(MeanOfFits):
    """Influence functions with an eigenvalue-corrected Kronecker-factored Fisher matrix."""

    name = "ekfac"
    paper = "arXiv:2308.03296"
    family = "influence function"
    hyperparameters = (
        layer_regularization(1e-8, "kronfluence 1.0.1 ScoreArguments: damping_factor=1e-8", aliases=("damping",)),
        Hyperparameter(
            "fisher",
            "true",
            "arXiv 2308.03296, and kronfluence 1.0.1 FactorArguments: use_empirical_fisher=False",
            choices=("true", "empirical"),
            grid=("true", "empirical"),
            description="expectation over the model's own labels, or the training labels",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *, fisher: Fisher) -> Model:
        """Eigenbases, corrected eigenvalues and rotated gradients of one checkpoint's layers."""
        return fit_model(context, checkpoint, fisher)

    def memory_need(
        self, context: Context, *, fisher: Fisher, checkpoints: int, epoch: int | None
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


def fit_model(context: Context, checkpoint: Checkpoint, fisher: Fisher) -> Model:
    """Every matrix layer of one checkpoint.

    Raises:
        NotApplicableError: there is none, or labels cannot be had, or a Fisher matrix is zero or not finite.
    """
    sizes = matrix_layers(context, checkpoint)
    draws, training = (labelled(context, checkpoint, own=own) for own in (fisher == "true", False))
    moments = second_moments(context, checkpoint, draws, sizes)
    bases = {name: eigenbasis(*moments.pop(name)) for name in sizes}
    corrected = mean_squares(context, checkpoint, draws, bases)
    squares = corrected if fisher == "empirical" else mean_squares(context, checkpoint, training, bases)

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
        curvature = eigenvalues(corrected[name], squares[name], d_in * d_out)
        points = test.pop(name)
        if isinstance(points, DenseGradients):
            v = points.values.float().view(-1, *curvature.corrected.shape)
            layers[name] = PositionsLayer(curvature, bases[name], v)
        else:
            layers[name] = VectorLayer(curvature, single(next(train)), single(points))
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


def keep_gradients(model: Model, sizes: dict[str, tuple[int, int]]) -> Model:
    """The same with its training gradients in memory, if they are few enough."""
    numbers = [d_in * d_out for name, (d_in, d_out) in sizes.items() if isinstance(model.layers[name], PositionsLayer)]
    if not numbers or 4 * len(model.context.train) * sum(numbers) > KEPT_BYTES:
        return model
    return Model(model.context, model.checkpoint, model.layers, list(model.chunks()))
