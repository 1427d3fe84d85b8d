"""The contract of attributors, and all that the file of a method imports for it.

Score matrices are (n_test, n_train), float32; a positive score says that including the training example raises the
target of the test example.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction as BatchFunction
from attriboard.contracts.context import Checkpoint as Checkpoint
from attriboard.contracts.context import Context as Context
from attriboard.contracts.hyperparameter import Hyperparameter as Hyperparameter
from attriboard.contracts.hyperparameter import HyperparameterValue, Stage, completed

if TYPE_CHECKING:
    import torch

    from attriboard.contracts.spectrum import Spectrum

Curvature = Literal["fisher", "hessian"]


class Attributor(ABC):
    """An attribution method.

    A subclass names its hyperparameters in a table and fills two methods. `fit` receives the values of stage
    `fit`, `score` those of stage `score`, as keywords; a sweep fits once for all configurations that share
    their fit-stage values. Raise `NotApplicableError` with a reason where the method cannot work: it becomes a row.

    Attributes:
        name: lower case, as in `my_method`.
        paper: where it comes from.
        family: what it is grouped under.
        hyperparameters: its table.
        curvature: which matrix λ is added to. Where the method has no `spectrum`, selectors get one of that matrix.
        blind: whether its scores are drawn by position, whatever the examples are: a control.
        order_sensitive: whether scores depend on the order in which training took the examples, through `Context.runs`.
    """

    name: ClassVar[str]
    paper: ClassVar[str] = ""
    family: ClassVar[str] = "other"
    hyperparameters: ClassVar[tuple[Hyperparameter, ...]] = ()
    curvature: ClassVar[Curvature] = "fisher"
    blind: ClassVar[bool] = False
    order_sensitive: ClassVar[bool] = False

    @abstractmethod
    def fit(self, context: Context, *args: Any, **hyperparameters: Any) -> Any:
        """Do all work that does not depend on score-stage hyperparameters; return any state."""

    @abstractmethod
    def score(self, state: Any, *args: Any, **hyperparameters: Any) -> torch.Tensor:
        """Score matrix (n_test, n_train), float32, from what `fit` returned; must not change the state."""

    def memory_need(self, context: Context, *args: Any, **hyperparameters: Any) -> dict[str, int] | None:
        """What `fit` and `score` hold at once at most, beside the context: a few words → bytes, which add up.

        Asked before `fit`, with the same hyperparameters. What needs more than there is becomes a row that says so
        instead of a process that dies. An upper bound from sizes alone; `None` where nobody has counted.
        """
        return None

    def work_need(self, context: Context, *args: Any, **hyperparameters: Any) -> dict[str, float] | None:
        """Floating-point operations that `fit` and one `score` take at least: a few words → how many, which add up.

        Asked before `fit`, with the values of both stages. What cannot end within the time limit becomes a row that
        says so at once. A lower bound from sizes alone; `None` where nobody has counted.
        """
        return None

    def spectrum(self, state: Any) -> list[Spectrum] | None:
        """Eigenvalues and coefficients of the fitted kernels, one per checkpoint; `None` where there are none."""
        return None

    def directions(
        self, context: Context, state: Any, tests: Sequence[int], *args: Any, **hyperparameters: Any
    ) -> list[tuple[Checkpoint, torch.Tensor]]:
        """Where scores are τ(z', i) = −Σ ⟨∇L(z_i; θ), v⟩ over checkpoints θ: these, each with its v.

        They split scores over the tokens of training examples; see `attriboard.toolkit.positions`.

        Args:
            context: what the method may see.
            state: what `fit` returned.
            tests: test points, over which v is averaged.
            args: none.
            hyperparameters: all values, of both stages.

        Returns:
            v (n_params,) in the order of `Context.attributed`.

        Raises:
            NotApplicableError: the scores are not of this form.
        """
        raise NotApplicableError(f"{self.name} gives no direction, so its scores have no parts for tokens")

    def notes(self, state: Any) -> tuple[str, ...]:
        """What a reader of the scores must know of the fit, such as parameters that were left out: short sentences."""
        return ()

    @classmethod
    def configure(cls, values: Mapping[str, Any]) -> dict[str, HyperparameterValue]:
        """Complete `values` with the defaults, in the table's order; texts are read as on the command line.

        Raises:
            HyperparameterError: a name that this attributor does not have, or a value out of range.
        """
        return completed(cls.name, cls.hyperparameters, values)

    @classmethod
    def stage(cls, values: Mapping[str, HyperparameterValue], stage: Stage) -> dict[str, HyperparameterValue]:
        """The part of a complete configuration that belongs to one stage."""
        return {hp.name: values[hp.name] for hp in cls.hyperparameters if hp.stage == stage}
