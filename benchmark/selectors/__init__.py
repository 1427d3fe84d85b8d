"""Selectors: one file each, and the table of their names."""

__all__ = ["ORACLE", "SELECTORS"]

SELECTORS: dict[str, str] = {
    "default": "attriboard.selectors.default:Default",
    "surrogate": "attriboard.selectors.surrogate:Surrogate",
    "deflated_surrogate": "attriboard.selectors.deflated_surrogate:DeflatedSurrogate",
    "mean_eigenvalue": "attriboard.selectors.mean_eigenvalue:MeanEigenvalue",
    "gcv": "attriboard.selectors.gcv:GeneralizedCrossValidation",
    "training_horizon": "attriboard.selectors.training_horizon:TrainingHorizon",
    "random_grid": "attriboard.selectors.random_grid:RandomGrid",
    "effective_dimension": "attriboard.selectors.effective_dimension:EffectiveDimension",
}
ORACLE = "oracle"
"""The only name that stands for a selector with ground truth; see `attriboard.selectors.oracle`."""
