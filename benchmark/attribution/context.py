"""The context that an attributor is given: data, models and functions of a task; and whether it was left alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from attriboard.base.errors import AttriboardError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.context import matching_parameters
from attriboard.contracts.run import Run
from attriboard.contracts.task import Examples, Task
from attriboard.groundtruth.checkpoints import read_checkpoints
from attriboard.retraining.replay import run_of

MAX_NAMED = 3


class ContextChangedError(AttriboardError):
    """An attributor changed what it was given to look at."""


class ContextWatch:
    """Notices what an attributor changes in a context.

    PyTorch counts the changes of every tensor, together with all that share its memory, so looking costs nothing.
    Writes around PyTorch (through NumPy, or `.data`) go unseen here; the conformance suite compares every bit.

    Args:
        context: as it is to stay.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._before = dict(_marks(context))

    def changes(self) -> list[str]:
        """What is not as it was."""
        now = dict(_marks(self._context))
        return [name for name in self._before | now if self._before.get(name) != now.get(name)]

    def check(self, stage: str) -> None:
        """Compare with the beginning.

        Raises:
            ContextChangedError: something was changed; the message names it.
        """
        if changed := self.changes():
            names = ", ".join(changed[:MAX_NAMED]) + (
                f" and {len(changed) - MAX_NAMED} more" * (len(changed) > MAX_NAMED)
            )
            raise ContextChangedError(f"context_changed: {stage} changed {names}; work on copies, and remove hooks")


def build_context(
    task: Task,
    checkpoints: Path,
    *,
    device: str = "cpu",
    seed: int = 0,
    queries: Literal["test", "train"] = "test",
    memory_bytes: int | None = None,
    parameters: Sequence[str] = (),
) -> Context:
    """Assemble a context.

    Args:
        task: the task; its data is loaded.
        checkpoints: its checkpoint bundle.
        device: where tensors go.
        seed: for the attributor's randomness.
        queries: what the context has for test examples; the training examples give self-influence.
        memory_bytes: what the process may use.
        parameters: glob patterns of the attributed parameters; the task's own by default. Frozen ones never are.

    Raises:
        DataError: the data is missing.
        InputError: a pattern fits no parameter.
        FormatError: the checkpoints are damaged or of another task.
    """
    data, model = task.load_data(), task.build_model()
    attributed = matching_parameters(model, parameters or task.parameters)

    def place(examples: Examples) -> Examples:
        return Examples(examples.inputs.to(device), examples.targets.to(device))

    models = read_checkpoints(checkpoints, task.card.fingerprint, device, task.pretrained)
    return Context(
        train=place(data.train),
        test=place(data.test if queries == "test" else data.train),
        model=model.to(device).eval().requires_grad_(False),
        checkpoints=models,
        loss=task.loss,
        margin=task.margin,
        target=task.target,
        device=device,
        seed=seed,
        memory_bytes=memory_bytes,
        error=None if type(task).error is Task.error else task.error,
        parameters=attributed,
        runs=_runs(task, models),
    )


def _runs(task: Task, models: Sequence[Checkpoint]) -> tuple[Run, ...]:
    """How every model was trained; nothing is known of models that were trained elsewhere."""
    if task.trained:
        return ()
    seen = {(one.seed, one.indices is None): one.indices for one in models}
    return tuple(run_of(task, seed, None if rows is None else rows.cpu().numpy()) for (seed, _), rows in seen.items())


def _marks(context: Context) -> Iterator[tuple[str, object]]:
    """What tells a changed context from an unchanged one: name → anything comparable."""
    for side in ("train", "test"):
        examples = getattr(context, side)
        yield f"{side}.inputs", _mark(examples.inputs)
        yield f"{side}.targets", _mark(examples.targets)
    for number, checkpoint in enumerate(context.checkpoints):
        tensors = {**checkpoint.parameters, **checkpoint.buffers, "indices": checkpoint.indices}
        for name, tensor in tensors.items():
            if tensor is not None:
                yield f"checkpoints[{number}].{name}", _mark(tensor)
    for name, tensor in (*context.model.named_parameters(), *context.model.named_buffers()):
        yield f"model.{name}", (*_mark(tensor), tensor.requires_grad)
    for name, module in context.model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        yield f"the mode or hooks of {name or 'the model'}", (module.training, *map(len, hooks))


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Which tensor, and how often it was written to."""
    return tensor.data_ptr(), tensor._version
