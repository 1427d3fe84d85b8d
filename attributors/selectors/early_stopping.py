"""`early_stopping`: where training stopped early, the training itself regularizes, and λ is at least 1/T; else ξ's λ.

Training for a time T acts as ridge with λ = 1/T (`training_horizon`), in units of the curvature that training had. A
direction decays by ∫ σ dt along the run, so in units of the matrix C that the method adds λ to

    λ_T = tr C / ∫ tr F dt,    dt = η_t/(1 − μ),

where F, the mean outer product of training gradients, stands for the Hessian: labels are about as likely as the model
says they are, as long as the model does not fit them. tr F, the mean squared length of training gradients, is known at
the epochs that were kept. The choice is the larger of λ_T and ξ's λ.

A model that is trained until its gradients vanish is near a stationary point, F is no Hessian there, and λ_T says
nothing. So where tr F at the end is less than a tenth of its mean over the run, the choice is that of `surrogate`.
"""

from collections.abc import Mapping
from itertools import pairwise

from attriboard.contracts.card import Recipe
from attriboard.contracts.schedule import learning_rate, n_steps, steps_per_epoch
from attriboard.contracts.selector import REGULARIZATION, Choice, Evidence, Selector
from attriboard.toolkit.regularization import pick_by_xi

STATIONARY = 0.1
"""Of the mean of tr F over the run: where it fell below, the model is near a stationary point."""


class EarlyStopping(Selector):
    """The larger of ξ's λ and the training horizon, where models are far from stationary; else ξ's."""

    name = "early_stopping"
    source = "AttriBoard; after arXiv:1810.10082 (training time as ridge) and arXiv:2505.24261, Algorithm 1"
    needs_gradient_squares = True

    def select(self, evidence: Evidence) -> Choice:
        """Pick λ; the note says which of the two it is."""
        found = pick_by_xi(evidence.spectra, evidence.options(REGULARIZATION))
        value, note = _horizon(evidence)
        if value is None or value <= float(found.values[REGULARIZATION] or 0.0):
            return Choice(found.values, found.criterion, found.objective, note=f"as surrogate: {note}")
        return Choice({REGULARIZATION: value}, note=note)


def _horizon(evidence: Evidence) -> tuple[float | None, str]:
    """λ_T, or nothing; and what was seen."""
    epoch = evidence.configuration.get("epoch")
    epochs = epoch if isinstance(epoch, int) else evidence.recipe.epochs
    squares = {at: value for at, value in evidence.gradient_squares.items() if at <= epochs}
    if evidence.recipe.optimizer != "sgd":
        return None, "training was not by SGD, and its time is in no units of λ"
    if len(squares) < 2 or max(squares) != epochs:
        return None, "models of one epoch only, which do not tell how gradients fell"
    mean = mean_over_run(squares)
    if not squares[epochs] >= STATIONARY * mean:
        return None, f"squared gradients fell to {squares[epochs] / mean:.2g} of their mean"
    traces = [float(spectrum.all_eigenvalues.sum()) + spectrum.unseen for spectrum in evidence.spectra]
    value = sum(traces) / len(traces) / (mean * training_time(evidence.recipe, evidence.n_train, epochs))
    return value, f"squared gradients are {squares[epochs] / mean:.2g} of their mean; 1/T amounts to {value:.2g}"


def mean_over_run(squares: Mapping[int, float]) -> float:
    """Mean over the epochs up to the last one, linear between those that are known and constant before the first."""
    known = sorted(squares)
    area = known[0] * squares[known[0]]
    for one, other in pairwise(known):
        area += (other - one) * (squares[one] + squares[other]) / 2
    return area / known[-1]


def training_time(recipe: Recipe, n_train: int, epochs: int) -> float:
    """T: the sum of all learning rates, divided by 1 − μ; after `epochs` epochs.

    Args:
        recipe: of SGD.
        n_train: number of training examples.
        epochs: at most the recipe's.
    """
    total = n_steps(recipe, n_train)
    rates = (learning_rate(recipe, step, total) for step in range(steps_per_epoch(recipe, n_train) * epochs))
    return sum(rates) / (1 - recipe.momentum)
