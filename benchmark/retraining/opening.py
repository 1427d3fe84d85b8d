"""What is wrong with a task, found before anything is trained: data, model, loss and outputs that do not go together.

Each refusal is one line that quotes what was found, the rule, and the way out. What the task's own code raised is the
cause of the error that it becomes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from attriboard.base.errors import AttriboardError, InputError
from attriboard.contracts.task import Dataset, Examples, Task
from attriboard.retraining.agreement import telling_rows
from attriboard.retraining.randomness import drawing_from
from attriboard.retraining.trainer import new_model, state_parts

T = TypeVar("T")
_PARAMETERS = (torch.float32, torch.float64)
_BUFFERS = (*_PARAMETERS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_MAX_ROWS = 256


def check_task(task: Task, data: Dataset) -> None:
    """Refuse a task that cannot be trained and measured.

    Args:
        task: the task.
        data: its data.

    Raises:
        InputError: the reason, in one line.
    """
    who = f"task {task.card.name}"
    with drawing_from(0):
        _check_data(who, task, data)
        model = _checked_model(who, task)
        model.to(data.train.inputs.device)
        for size in sorted({_last_batch(task, n) for n in (task.card.subset_size, len(data.train))}):
            _check_loss(who, task, model.train(), data.train[torch.arange(size)], backward=True)
        telling = telling_rows(data.train.targets)[:_MAX_ROWS]
        for rows in torch.split(telling, max(2, task.card.recipe.batch_size)):
            _check_loss(who, task, model.eval(), data.train[rows], backward=False)
        for rows in torch.split(telling_rows(data.test.targets)[:_MAX_ROWS], task.measured_rows):
            _check_measure(who, task, model.eval(), data.test[rows])


def has_batch_norm(model: nn.Module) -> bool:
    """Whether a training example's loss depends on the others of its batch."""
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def _last_batch(task: Task, n: int) -> int:
    """Size of the smallest batch of a training on `n` examples."""
    size = task.card.recipe.batch_size
    return n % size or min(size, n)


def _check_data(who: str, task: Task, data: Dataset) -> None:
    for side, examples, expected in (
        ("train", data.train, task.card.data.n_train),
        ("test", data.test, task.card.data.n_test),
    ):
        found = len(examples.inputs), len(examples.targets)
        if found != (expected, expected):
            raise InputError(
                f"{who}: {side} has {found[0]} inputs and {found[1]} targets, the card says data.n_{side} = "
                f"{expected}; they must be as many"
            )
        for what, tensor in (("inputs", examples.inputs), ("targets", examples.targets)):
            if tensor.is_floating_point() and (broken := tensor.isnan().reshape(expected, -1).any(1)).any():
                first = int(broken.nonzero()[0])
                raise InputError(
                    f"{who}: {side} {what} have NaN in {int(broken.sum())} of {expected} examples, the first is "
                    f"{first}; leave them out or fill them in"
                )


def _checked_model(who: str, task: Task) -> nn.Module:
    """A model of the task that can be trained, kept and made again."""
    with _author(who, "build_model"):
        model, again = new_model(task, 0), new_model(task, 0)
    if any(isinstance(value, nn.parameter.UninitializedParameter) for value in model.parameters()):
        raise InputError(f"{who}: build_model gives lazy parameters without a shape; run it on one example first")
    tensors, others = (dict((*m.named_parameters(), *m.named_buffers())) for m in (model, again))
    parts = state_parts(model)
    if not any(value.requires_grad for value in model.parameters()):
        raise InputError(f"{who}: the model has no parameter with requires_grad=True: there is nothing to train")
    for name, part in parts.items():
        allowed = _PARAMETERS if part == "parameters" else _BUFFERS
        if tensors[name].dtype not in allowed:
            raise InputError(
                f"{who}: {part[:-1]} {name} is {tensors[name].dtype}, must be {_names(allowed)}; for products in "
                "bfloat16 keep float32 parameters and set recipe.precision: bfloat16"
            )
        if name not in others or tensors[name].shape != others[name].shape:
            raise InputError(f"{who}: build_model gives another {name} each time; it must build one architecture")
        if tensors[name].numel() and tensors[name].data_ptr() == others[name].data_ptr():
            raise InputError(
                f"{who}: build_model gives the same {name} twice, so that one retrain would go on from another; it "
                "must build a new model each time"
            )
        if not torch.equal(tensors[name], others[name]) and not tensors[name].isnan().any():
            raise InputError(
                f"{who}: build_model gives another {name} for the same seed; draw from the global generators of "
                "PyTorch, NumPy or Python, which the retrain's seed sets"
            )
    return model


def _check_loss(who: str, task: Task, model: nn.Module, examples: Examples, backward: bool) -> None:
    where = f"on {len(examples)} training examples"
    with torch.set_grad_enabled(backward):
        outputs = _outputs(who, task, model, examples, where)
        with _author(who, f"loss {where}, {_shown(outputs, examples)}"):
            losses = task.loss(outputs, examples.targets)
    if not isinstance(losses, Tensor) or losses.shape != (len(examples),) or not losses.is_floating_point():
        found = f"{losses.dtype} {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise InputError(
            f"{who}: loss {where} gives {found}, must be one number per example, ({len(examples)},), without a mean "
            f"over them; {_shown(outputs, examples)}"
        )
    if not losses.isfinite().all():
        raise InputError(
            f"{who}: loss {where} is {float(losses.detach()[~losses.isfinite()][0])} before any training; "
            f"{_shown(outputs, examples)}"
        )
    if not backward:
        return
    with _author(who, f"the gradient of the loss {where}"):
        losses.mean().backward()  # type: ignore[no-untyped-call]
    if all(value.grad is None for value in model.parameters()):
        raise InputError(f"{who}: the loss depends on no parameter that is trained")


def _check_measure(who: str, task: Task, model: nn.Module, examples: Examples) -> None:
    where = f"on {len(examples)} test examples"
    with torch.no_grad():
        outputs = _outputs(who, task, model, examples, where)
        with _author(who, f"measure {where}, {_shown(outputs, examples)}"):
            measured = task.measure(outputs, examples.targets)
    for name in task.measurements:
        value = measured.get(name)
        if not isinstance(value, Tensor) or value.shape != (len(examples),):
            found = tuple(value.shape) if isinstance(value, Tensor) else "missing"
            raise InputError(f"{who}: measure {where} gives {name} {found}, must be ({len(examples)},)")


def _outputs(who: str, task: Task, model: nn.Module, examples: Examples, where: str) -> Any:
    reduced = task.card.recipe.precision == "bfloat16" and model.training
    inputs = examples.inputs.clone()
    with (
        _author(who, f"the model {where}, inputs {inputs.dtype} {tuple(inputs.shape)}"),
        torch.autocast(inputs.device.type, torch.bfloat16, enabled=reduced),
    ):
        outputs = model(inputs)
    return outputs.float() if reduced else outputs


def _shown(outputs: Any, examples: Examples) -> str:
    """What a loss was given, for messages."""
    targets = examples.targets
    found = f"outputs {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else f"outputs {type(outputs).__name__}"
    span = f" from {targets.min().item():g} to {targets.max().item():g}" if targets.numel() else ""
    return f"{found}, targets {targets.dtype} {tuple(targets.shape)}{span}"


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


@contextmanager
def _author(who: str, doing: str) -> Iterator[None]:
    """Errors of the task's own code as one line, with its traceback as the cause."""
    try:
        yield
    except AttriboardError:
        raise
    except Exception as error:
        text = (str(error).strip().splitlines() or ["no reason given"])[0][:300]
        raise InputError(f"{who}: {doing} raised {type(error).__name__}: {text}") from error
