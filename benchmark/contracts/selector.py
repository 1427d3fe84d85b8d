"""The contract of selectors: what they may see, and what they return.

A selector runs in the attributor's process, which holds no ground truth; its evidence is about calibration points
alone. The one exception is a `GroundTruthSelector`, a type of its own: the engine runs it on its own side, and only the
built-in `oracle` is one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.hyperparameter import HyperparameterValue

if TYPE_CHECKING:
    from attriboard.contracts.card import Recipe
    from attriboard.contracts.spectrum import Spectrum

REGULARIZATION = "regularization"
"""The λ that a method adds to the curvature. Every method that has one calls it so; older names are aliases."""


@dataclass(frozen=True)
class Evidence:
    """All that a selector may know. It never contains ground truth.

    Attributes:
        configuration: the complete hyperparameters that it starts from (the defaults, and what the user fixed).
        candidates: hyperparameter → values to choose from, ascending, numbers above zero only; see `options`.
        spectra: of the fitted kernels, one per checkpoint, with the coefficients of the calibration points;
            empty where neither the method nor a donor for its curvature offers one.
        recipe: how the models were trained.
        n_train: training examples of the task.
        seed: for a selector's randomness.
        gradient_squares: epoch → mean squared length of the gradients of the training loss, at every epoch that was
            kept; empty unless a selector asks for it.
    """

    configuration: Mapping[str, HyperparameterValue]
    candidates: Mapping[str, tuple[float, ...]]
    spectra: tuple[Spectrum, ...]
    recipe: Recipe
    n_train: int
    seed: int = 0
    gradient_squares: Mapping[int, float] = field(default_factory=dict)

    def options(self, name: str) -> tuple[float, ...]:
        """The candidates of one hyperparameter, at least one.

        Raises:
            NotApplicableError: there are none.
        """
        if not self.candidates.get(name):
            raise NotApplicableError(f"{name}: no positive number to choose from; give candidates with --grid")
        return self.candidates[name]


@dataclass(frozen=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        values: the hyperparameters to change.
        criterion: the quantity looked at, one number per candidate, for figures: ξ̄ for `surrogate`.
        objective: what was minimized over the candidates; its rank correlation with the LDS curve is scored.
        note: one sentence for the record, where something is worth saying.
    """

    values: Mapping[str, HyperparameterValue]
    criterion: tuple[float, ...] | None = None
    objective: tuple[float, ...] | None = None
    note: str = ""


class Selector(ABC):
    """Chooses hyperparameters without retraining.

    Attributes:
        name: as on the command line.
        source: paper or library that it comes from.
        needs_spectrum: whether it cannot work without one.
        needs_gradient_squares: whether it asks for `Evidence.gradient_squares`.
        hyperparameter: what it chooses.
    """

    name: ClassVar[str]
    source: ClassVar[str] = ""
    needs_spectrum: ClassVar[bool] = True
    needs_gradient_squares: ClassVar[bool] = False
    hyperparameter: ClassVar[str] = REGULARIZATION

    @abstractmethod
    def select(self, evidence: Evidence) -> Choice:
        """Choose.

        Raises:
            NotApplicableError: the evidence is too weak; becomes a row.
        """


class GroundTruthSelector(ABC):
    """Chooses with ground truth of the calibration points; never ranked, and never third-party."""

    name: ClassVar[str]
    source: ClassVar[str] = ""

    @abstractmethod
    def select(self, lds: Sequence[float]) -> int:
        """Position of the best candidate, from the mean LDS on calibration points of each."""
