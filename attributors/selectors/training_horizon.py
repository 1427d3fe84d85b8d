"""`training_horizon`: early stopping read as ridge, λ = 1/(effective learning rate × steps).

Gradient flow for a time T fits the eigendirection σ of the curvature by 1 − exp(−σT), which crosses one half where
ridge's σ/(σ + λ) with λ = 1/T does, up to a factor log 2 (Ali, Kolter & Tibshirani 2019, arXiv 1810.10082). With
momentum μ the effective learning rate is η/(1 − μ).
"""

import math

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.selector import Choice, Evidence, Selector


class TrainingHorizon(Selector):
    """λ from the training recipe alone."""

    name = "training_horizon"
    source = "Ali, Kolter & Tibshirani 2019 (arXiv:1810.10082)"
    needs_spectrum = False

    def select(self, evidence: Evidence) -> Choice:
        """One over the training time."""
        recipe = evidence.recipe
        if recipe.optimizer == "none":
            raise NotApplicableError("the task has no recipe: how long its models were trained is not known")
        epoch = evidence.configuration.get("epoch")
        epochs = epoch if isinstance(epoch, int) else recipe.epochs
        steps = epochs * math.ceil(evidence.n_train / recipe.batch_size)
        horizon = recipe.learning_rate / (1 - recipe.momentum) * steps
        return Choice({"regularization": 1 / horizon})
