"""The hyperparameters that several methods share, so that one name means one thing on every board."""

from attriboard.contracts.hyperparameter import Hyperparameter

REGULARIZATION_GRID = tuple(float(f"{10 ** (step / 2):.6g}") for step in range(-18, 7))
"""1e-9 … 1e3 by half decades."""


def regularization(default: float, source: str) -> Hyperparameter:
    """λ of (K/n + λI)⁻¹ or (F + λI)⁻¹: absolute, added to the 1/n-normalized matrix."""
    return Hyperparameter(
        "regularization",
        default,
        source,
        stage="score",
        grid=REGULARIZATION_GRID,
        minimum=0.0,
        description="λ, absolute, added to the curvature normalized by 1/n; 0 is the pseudo-inverse",
    )


def projection_dim(default: int | None, source: str) -> Hyperparameter:
    """Dimension of the random projection of the gradients."""
    return Hyperparameter(
        "projection_dim",
        default,
        source,
        type=int,
        optional=True,
        minimum=1,
        grid=(64, 128, 256, 512, 1024, 2048, 4096, 8192),
        description="dimension of the projected gradients; none for no projection",
    )


def checkpoints(default: int, source: str) -> Hyperparameter:
    """How many independently trained models are averaged."""
    return Hyperparameter(
        "checkpoints",
        default,
        source,
        minimum=1,
        grid=(1, 2, 3, 5),
        description="how many independently trained models are averaged",
    )


def epoch() -> Hyperparameter:
    """The training epoch of the checkpoints; which ones exist is the task's to say, so there is no grid."""
    return Hyperparameter(
        "epoch",
        None,
        "the last epoch of the task's recipe",
        type=int,
        minimum=1,
        description="after which training epoch the models are taken; none for the last",
    )


def models(count: int, source: str) -> tuple[Hyperparameter, ...]:
    """Which models a method takes; see `attriboard.toolkit.averaging`."""
    return checkpoints(count, source), epoch()


ONE_MODEL = models(1, "dattri's benchmark: one model trained on all data")
"""What most methods have at the end of their table."""
