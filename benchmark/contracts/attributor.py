"""The contracts between tasks, attributors and the engine.

Everything that a task or an attributor may know of AttriBoard stands here (and in `attriboard.toolkit`, shared
numerics for attributors). Score matrices are (n_test, n_train), float32; a positive score says that including the
training example raises the target of the test example.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attriboard.base.errors import HyperparameterError, InputError, NotApplicableError
from attriboard.contracts.progress import progress
from attriboard.contracts.run import Run
from attriboard.contracts.task import Examples

if TYPE_CHECKING:
    import torch

    from attriboard.contracts.spectrum import Spectrum

MAX_INTEGER = 2**53
"""Every JSON reader holds whole numbers up to here exactly."""

HyperparameterValue = float | int | str | bool | None
Curvature = Literal["fisher", "hessian"]
Stage = Literal["fit", "score"]


@dataclass(frozen=True)
class Hyperparameter:
    """One knob of an attributor.

    Args:
        name: shared by all methods that have it (`regularization`, `projection_dim`, …).
        default: its value when nobody chooses; `None` only where `optional`.
        source: where the default comes from: a paper or a library with its version.
        stage: `fit` values need a new fit; `score` values are nearly free after one.
        grid: values worth sweeping.
        type: `float`, `int`, `str` or `bool`; taken from the default where that is not `None`.
        optional: whether `None` is a value (it is written `none` on the command line).
        minimum, maximum: inclusive bounds of a number.
        choices: the allowed strings.
        description: one line for listings.
        aliases: other names that it is accepted under: what it was called before, or what its library calls it.
    """

    name: str
    default: HyperparameterValue
    source: str
    stage: Stage = "fit"
    grid: tuple[HyperparameterValue, ...] = ()
    type: type | None = None
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    description: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.type is None:
            if self.default is None:
                raise TypeError(f"hyperparameter {self.name!r}: a default of None needs an explicit type")
            object.__setattr__(self, "type", type(self.default))
        if self.default is None:
            object.__setattr__(self, "optional", True)
        for value in (self.default, *self.grid):
            self.validate(value)

    def validate(self, value: Any) -> HyperparameterValue:
        """Return `value` as this hyperparameter's type.

        Raises:
            HyperparameterError: wrong type, out of bounds, or not among the choices.
        """
        if value is None:
            if self.optional:
                return None
            raise HyperparameterError(f"{self.name} = none: must be a value of type {self._type_name}")
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if self.type is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not self.type:
            raise HyperparameterError(f"{self.name} = {value!r}: must be of type {self._type_name}")
        if isinstance(value, float) and not math.isfinite(value):
            raise HyperparameterError(f"{self.name} = {value}: must be finite")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise HyperparameterError(f"{self.name} = {value}: must be within ±2^53, which records hold exactly")
        if isinstance(value, (int, float)):
            if self.minimum is not None and value < self.minimum:
                raise HyperparameterError(f"{self.name} = {value}: must be at least {self.minimum:g}")
            if self.maximum is not None and value > self.maximum:
                raise HyperparameterError(f"{self.name} = {value}: must be at most {self.maximum:g}")
        if self.choices and value not in self.choices:
            raise HyperparameterError(f"{self.name} = {value!r}: must be one of {', '.join(self.choices)}")
        accepted: Any = value
        return accepted  # type: ignore[no-any-return]  # of self.type, which mypy cannot know

    def parse(self, text: str) -> HyperparameterValue:
        """Read a value from the command line: `1e-3`, `512`, `true`, `none`, `word`.

        Raises:
            HyperparameterError: the text is no value of this hyperparameter.
        """
        if self.optional and text.lower() == "none":
            return None
        try:
            if self.type is bool:
                return self.validate({"true": True, "false": False}[text.lower()])
            if self.type is int:
                return self.validate(float(text))
            if self.type is float:
                return self.validate(float(text))
        except (ValueError, KeyError):
            raise HyperparameterError(f"{self.name} = {text!r}: not of type {self._type_name}") from None
        return self.validate(text)

    @property
    def _type_name(self) -> str:
        assert self.type is not None
        return f"{self.type.__name__} or none" if self.optional else self.type.__name__


@dataclass(frozen=True)
class Checkpoint:
    """One trained model at one epoch.

    Attributes:
        parameters: name → tensor, as `torch.func.functional_call` takes them.
        epoch: how many epochs it was trained for.
        seed: the retrain's seed.
        indices: training examples it saw, ascending int64; `None` for all.
        buffers: name → tensor (running statistics), empty for most models.
    """

    parameters: Mapping[str, torch.Tensor]
    epoch: int
    seed: int
    indices: torch.Tensor | None = None
    buffers: Mapping[str, torch.Tensor] = field(default_factory=dict)


NAMED = 8
"""Parameters of a model that a message names."""

BatchFunction = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]


class Findings:
    """What the toolkit finds out about a context's model, so that it asks once.

    No part of what the context is: all findings are equal, and a copy of a context has none.
    """

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}
        self.remarks: list[str] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Findings)

    def __hash__(self) -> int:
        return 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Findings:
        return Findings()


@dataclass(frozen=True)
class Context:
    """All that an attributor may see. It never contains ground truth.

    Attributes:
        train, test: examples on `device`.
        model: a module in evaluation mode whose own parameters mean nothing; use it with `functional_call`.
        checkpoints: every available model; see `select_checkpoints`.
        loss, margin, target: functions of (outputs, targets) → (n,); `target` is the attributed f,
            either the margin or minus the loss, higher is better.
        device: where tensors live.
        seed: for whatever randomness the attributor has.
        memory_bytes: what the process may use in all, for methods that can do with less; `None` where nobody said.
        error: −∂loss/∂margin of (outputs, targets) → (n,), where it is not 1 − p = sigmoid(−margin).
        parameters: names of the attributed parameters, in the model's order; `attributed` where there are none.
        runs: how each published model was trained, one for each seed among the checkpoints; see `run_of`.
        findings: what the toolkit has found out about the model, no part of what the context is.
    """

    train: Examples
    test: Examples
    model: torch.nn.Module
    checkpoints: tuple[Checkpoint, ...]
    loss: BatchFunction
    margin: BatchFunction
    target: BatchFunction
    device: str = "cpu"
    seed: int = 0
    memory_bytes: int | None = None
    error: BatchFunction | None = None
    parameters: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()
    findings: Findings = field(default_factory=Findings, repr=False, compare=False)

    @property
    def attributed(self) -> tuple[str, ...]:
        """Names of the attributed parameters: `parameters`, or else those that the model trains."""
        return self.parameters or trained_parameters(self.model)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the scores must know of how gradients were made."""
        return tuple(self.findings.remarks)

    def remark(self, text: str) -> None:
        """Add to `remarks`, once."""
        if text not in self.findings.remarks:
            self.findings.remarks.append(text)

    def select_checkpoints(
        self, count: int = 1, *, epoch: int | None = None, data: Literal["full", "half"] = "full"
    ) -> tuple[Checkpoint, ...]:
        """The first `count` models trained on full data, or on random subsets, at one epoch.

        Args:
            count: how many models, ≥ 1.
            epoch: after which epoch; `None` for the last.
            data: which training data the models saw.

        Raises:
            NotApplicableError: there are not that many, or none was kept at that epoch.
        """
        pool = [c for c in self.checkpoints if (c.indices is None) == (data == "full")]
        epochs = sorted({c.epoch for c in pool})
        if not pool or (epoch is not None and epoch not in epochs):
            raise NotApplicableError(f"epoch = {epoch}: {data}-data checkpoints exist at epochs {epochs}")
        chosen = [c for c in pool if c.epoch == (epochs[-1] if epoch is None else epoch)]
        if not 1 <= count <= len(chosen):
            raise NotApplicableError(f"checkpoints = {count}: there are 1 to {len(chosen)} {data}-data checkpoints")
        return tuple(chosen[:count])

    def run_of(self, checkpoint: Checkpoint) -> Run:
        """How a checkpoint was trained.

        Raises:
            NotApplicableError: nobody knows, as for models that were trained elsewhere.
        """
        for run in self.runs:
            if run.seed == checkpoint.seed and (run.indices is None) == (checkpoint.indices is None):
                return run
        raise NotApplicableError("how the models were trained is not known: the task has no recipe for them")

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Say how far a long fit or scoring is. Cheap: call it in every step.

        Args:
            done: steps that are finished, of all models and stages that the loop runs over.
            total: all steps.
            text: what the steps are, in a few words: "gradients".
        """
        progress(done, total, text)

    def functional(
        self, function: BatchFunction
    ) -> Callable[[Mapping[str, torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor]:
        """Turn `loss`, `margin` or `target` into (parameters, input, target) → scalar, in `torch.func` style.

        `input` and `target` are single examples, without the batch axis.
        """
        from torch.func import functional_call

        def evaluate(
            parameters: Mapping[str, torch.Tensor], inputs: torch.Tensor, targets: torch.Tensor
        ) -> torch.Tensor:
            outputs = functional_call(self.model, dict(parameters), (inputs.unsqueeze(0),))
            return function(outputs, targets.unsqueeze(0)).squeeze(0)

        return evaluate


def trained_parameters(model: torch.nn.Module) -> tuple[str, ...]:
    """Names of the parameters that `requires_grad` marks; of all that can have a gradient where it marks none."""
    named = list(model.named_parameters())
    marked = tuple(name for name, value in named if value.requires_grad)
    return marked or tuple(name for name, value in named if value.is_floating_point() or value.is_complex())


def matching_parameters(model: torch.nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Names of the trained parameters that a glob pattern fits, in their order; of all where there is no pattern.

    Raises:
        InputError: a pattern fits none.
    """
    names = trained_parameters(model)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            few = ", ".join(names[:NAMED]) + ", …" * (len(names) > NAMED)
            raise InputError(f"parameters = {pattern!r}: fits no trained parameter of the model, which has {few}")
    return tuple(name for name in names if not patterns or any(fnmatchcase(name, one) for one in patterns))


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


def completed(
    method: str, table: Sequence[Hyperparameter], values: Mapping[str, Any]
) -> dict[str, HyperparameterValue]:
    """A complete configuration of a method, in its table's order, from values by name or alias.

    Args:
        method: its name, for messages.
        table: its hyperparameters.
        values: those that differ from the defaults; texts are read as on the command line.

    Raises:
        HyperparameterError: a name that the method does not have or that is given twice, or a value out of range.
    """
    known = {name: hp for hp in table for name in (hp.name, *hp.aliases)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            has = ", ".join(hp.name for hp in table) or "none"
            raise HyperparameterError(f"{method} has no hyperparameter {name!r}; it has: {has}")
        own = known[name].name
        if own in given:
            raise HyperparameterError(f"{method}: {own} is given twice, {name!r} is another name of it; give one")
        given[own] = value
    return {
        hp.name: hp.parse(value) if isinstance(value := given.get(hp.name, hp.default), str) else hp.validate(value)
        for hp in table
    }
