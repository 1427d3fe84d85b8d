"""What methods of Kronecker eigenbases share: hyperparameters, what they hold, and the fit of one checkpoint.

How scores are made of what is fitted: `attriboard.toolkit.eigenbasis`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.hyperparameter import Hyperparameter
from attriboard.contracts.task import Examples
from attriboard.toolkit import needs
from attriboard.toolkit.averaging import Fits, MeanOfFits
from attriboard.toolkit.eigenbasis import (
    BLOCK_BYTES,
    SPECTRUM_BYTES,
    Eigenvalues,
    Model,
    PositionsLayer,
    VectorLayer,
)
from attriboard.toolkit.held import Piece, Stored, collect
from attriboard.toolkit.kronecker import KroneckerBasis
from attriboard.toolkit.layers import LayerFactors, LayerGradients
from attriboard.toolkit.layerwise import left_out, matrix_layers, matrix_positions

Fisher = Literal["true", "empirical"]


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
    positions = matrix_positions(context, checkpoint, sizes)
    pieces = [Piece(name) for name in sizes if positions[name] == 1]

    def rotated(layer: LayerGradients) -> list[LayerGradients]:
        found = [(one.name, one.factors) for one in layer.matrices() if positions[one.name] == 1]
        return [blocks[name].basis.rotate(one).gradients(name) for name, one in found if one is not None]

    def factors(function: BatchFunction, examples: Examples) -> Iterator[LayerFactors]:
        return map(single, collect(context, checkpoint, function, examples, pieces, rotated) if pieces else [])

    train, test = factors(context.loss, context.train), factors(context.target, context.test)
    layers: dict[str, VectorLayer | PositionsLayer] = {}
    for name, (d_in, d_out) in sizes.items():
        basis, curvature = blocks[name].basis, eigenvalues(blocks[name].eigenvalues, d_in * d_out)
        several = positions[name] > 1
        layers[name] = (
            PositionsLayer(curvature, basis) if several else VectorLayer(curvature, basis, next(train), next(test))
        )
    known = {name: block.moments for name, block in blocks.items() if block.moments is not None}
    return Model(context, checkpoint, layers, known if len(known) == len(blocks) else {}).keeping()


def eigenvalues(corrected: Tensor, directions: int) -> Eigenvalues:
    """One layer's, checked."""
    if not bool(torch.isfinite(corrected).all()) or float(corrected.max()) == 0:
        raise NotApplicableError("a layer's Fisher matrix is zero or not finite: a model diverged, or has no gradient")
    return Eigenvalues(corrected, float(corrected.sum()) / directions)


def single(stored: Stored) -> LayerFactors:
    """Rotated factors in float32."""
    assert isinstance(stored, LayerFactors)
    return LayerFactors(stored.inputs.float(), stored.deltas.float(), stored.bias)
