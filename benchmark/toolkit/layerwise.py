"""What methods with one curvature block per linear layer share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attriboard.contracts import Hyperparameter, Stage
from attriboard.toolkit.knobs import REGULARIZATION_GRID

if TYPE_CHECKING:
    from torch import Tensor

    from attriboard.toolkit.gradients import LayerFactors

__all__ = ["layer_damping", "layer_regularization", "with_bias"]

HEURISTIC = 0.1
"""λ = none is this much of a layer's mean eigenvalue: Grosse et al. (arXiv 2308.03296), kronfluence, logix."""


def layer_regularization(name: str, default: float | None, source: str, *, stage: Stage = "score") -> Hyperparameter:
    """λ of every layer's (F_l + λI)⁻¹: absolute, or relative to the layer's mean eigenvalue."""
    return Hyperparameter(
        name,
        default,
        source,
        type=float,
        stage=stage,
        grid=REGULARIZATION_GRID,
        optional=True,
        minimum=0.0,
        description="λ, absolute, added to the curvature normalised by 1/n; none for 0.1 × each layer's mean",
    )


def layer_damping(value: float | None, mean_eigenvalue: float) -> float:
    """The absolute λ of one layer."""
    return HEURISTIC * mean_eigenvalue if value is None else value


def with_bias(factors: LayerFactors) -> Tensor:
    """Inputs (n, d_in), with the 1 that a bias is multiplied with as their last column."""
    from torch.nn.functional import pad

    return pad(factors.inputs, (0, 1), value=1.0) if factors.bias else factors.inputs
