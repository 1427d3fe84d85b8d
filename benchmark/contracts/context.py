"""What an attributor may see: examples, models with their checkpoints, losses, runs. It never contains ground truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from attriboard.base.errors import InputError, NotApplicableError
from attriboard.contracts.progress import progress
from attriboard.contracts.run import Run
from attriboard.contracts.task import Examples

if TYPE_CHECKING:
    import torch

BatchFunction = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]

NAMED = 8
"""Parameters of a model that a message names."""


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


_TRAINED_ON = {
    "full": "all training examples",
    "half": "random halves of the training examples: give the task a recipe, or set checkpoint_data = full",
}


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
        if not pool:
            raise NotApplicableError(f"no model was trained on {_TRAINED_ON[data]}")
        if epoch is not None and epoch not in epochs:
            earlier = epoch < epochs[-1]
            remedy = f"; attriboard groundtruth epochs TASK {epoch} --out DIR trains them at others" if earlier else ""
            raise NotApplicableError(f"epoch = {epoch}: {data}-data checkpoints exist at epochs {epochs}{remedy}")
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
