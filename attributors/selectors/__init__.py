"""Selectors: one file each, and the table of their names."""

SELECTORS: dict[str, str] = {
    "default": "attriboard.attributors.selectors.default:Default",
    "surrogate": "attriboard.attributors.selectors.surrogate:Surrogate",
    "deflated_surrogate": "attriboard.attributors.selectors.deflated_surrogate:DeflatedSurrogate",
    "mean_eigenvalue": "attriboard.attributors.selectors.mean_eigenvalue:MeanEigenvalue",
    "mean_eigenvalue_10": "attriboard.attributors.selectors.mean_eigenvalue_10:TenMeanEigenvalues",
    "gcv": "attriboard.attributors.selectors.gcv:GeneralizedCrossValidation",
    "training_horizon": "attriboard.attributors.selectors.training_horizon:TrainingHorizon",
    "early_stopping": "attriboard.attributors.selectors.early_stopping:EarlyStopping",
    "random_grid": "attriboard.attributors.selectors.random_grid:RandomGrid",
    "effective_dimension": "attriboard.attributors.selectors.effective_dimension:EffectiveDimension",
}
ORACLE = "oracle"
"""The only name that stands for a selector with ground truth; see `attriboard.attributors.selectors.oracle`."""
