"""What PyTorch itself says of a few examples: one ordinary backward pass for each, through a copy of the model.

Every faster way to make gradients is compared with this, example by example, before it is used. Here also stands what
must hold for gradients of single examples to exist at all; what does not is refused before any work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.placed import CopiedModel, Runnable, own_precision, values

T = TypeVar("T")

FEW = 5
"""Examples that are differentiated one by one."""

FEW_OF_LARGE = 2
"""The same where a model has more than `LARGE` parameters."""

LARGE = 2**24
"""Parameters of a model that is not copied in float64."""


SMALL = 2**19
"""Parameters of a model whose reference is kept."""


class DivergedError(NotApplicableError):
    """Gradients are NaN or infinite."""


@dataclass(frozen=True)
class Reference:
    """Gradients of a few single examples.

    Attributes:
        examples: which.
        gradients: attributed parameter → (n, *shape); a scalar counts as (1,).
        reached: parameters that the function depends on, for autograd.
        dtype: of the model, see `FunctionalModel`.
        precision: of the function, see `values`.
        batched: whether the model takes several examples at once.
    """

    examples: Examples
    gradients: Mapping[str, Tensor]
    reached: frozenset[str]
    dtype: torch.dtype | None
    precision: torch.dtype
    batched: bool


def remembered(context: Context, key: tuple[Any, ...], make: Callable[[], T]) -> T:
    """What `make` returns, made once for each context and key; the key's objects are kept alive."""
    key = (context.model, context.train, *key)
    named = (part if isinstance(part, (str, type(None), torch.dtype)) else id(part) for part in key)
    identity = (*named, context.attributed)
    if identity not in context.findings.known:
        context.findings.known[identity] = (key, make())
    found: T = context.findings.known[identity][1]
    return found


def reason_of(error: BaseException) -> str:
    """The error in a line.

    Raises:
        BaseException: the same error, where memory ran out: that is no fault of the model.
    """
    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        raise error
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first[:200]}"


def few_examples(context: Context) -> Examples:
    """Training examples from the whole range."""
    most = FEW if count(context) <= LARGE else FEW_OF_LARGE
    rows = torch.linspace(0, len(context.train) - 1, min(most, len(context.train))).round().long()
    return context.train[rows.to(context.train.inputs.device)]


def count(context: Context) -> int:
    """How many numbers the attributed parameters have."""
    return sum(value.numel() for name, value in context.model.named_parameters() if name in set(context.attributed))


def reference(context: Context, checkpoint: Checkpoint, function: BatchFunction) -> Reference:
    """`differentiate_few`, remembered where it is small."""

    def make() -> Reference:
        return differentiate_few(context, checkpoint, function)

    if count(context) > SMALL:
        return make()
    return remembered(context, ("reference", checkpoint, function), make)


def differentiate_few(context: Context, checkpoint: Checkpoint, function: BatchFunction) -> Reference:
    """Gradients of a few training examples, in float64 where the model takes it.

    Raises:
        NotApplicableError: single examples have no gradients: the model does not run, is random, or lets examples of
            a batch see each other; the function does not return a value for each; parameters are complex; nothing
            that is attributed has a gradient.
    """
    check_model(context)
    examples, failures = few_examples(context), []
    for dtype, precision in _precisions(context):
        try:
            found = _differentiate(context, checkpoint, function, examples, dtype, precision)
        except NotApplicableError:
            raise
        except Exception as error:
            failures.append(reason_of(error))
            last = error
            continue
        if not found.reached:
            raise NotApplicableError(
                f"the loss or target has no gradient with respect to any of {len(context.attributed)} attributed "
                "parameters: is the model's output detached, or made under no_grad?"
            )
        return found
    raise NotApplicableError(
        f"the model cannot be differentiated for a single example, inputs {tuple(examples.inputs[:1].shape)}: "
        f"{failures[-1]}"
    ) from last


def close(actual: Tensor, expected: Tensor, whole: Tensor, precision: torch.dtype) -> bool:
    """Whether one parameter's gradients (n, …) are the expected ones, example by example, up to rounding.

    Args:
        actual: of any precision.
        expected: from `Reference`.
        whole: ‖∇_i‖ (n,), of all parameters: what is small beside it may be rounding.
        precision: the lower of both sides'.
    """
    error = (actual.double() - expected.double()).flatten(1).norm(dim=1)
    size = expected.double().flatten(1).norm(dim=1) + 1e-2 * whole
    return bool((error <= 10 * torch.finfo(precision).eps ** 0.5 * size + 1e-30).all())


def lengths(found: Reference) -> Tensor:
    """‖∇_i‖ (n,), float64."""
    return torch.stack([one.double().flatten(1).square().sum(1) for one in found.gradients.values()]).sum(0).sqrt()


def _precisions(context: Context) -> Iterator[tuple[torch.dtype | None, torch.dtype]]:
    """Precisions of model and function, the best first."""
    own = own_precision(context.model)
    dtypes = (torch.float64, None) if count(context) <= LARGE else (None,)
    yield from dict.fromkeys(product(dtypes, (torch.float64, own)))


def check_model(context: Context) -> None:
    """Refuse what no example of has a gradient.

    Raises:
        NotApplicableError: see `differentiate_few`.
    """
    named = dict(context.model.named_parameters())
    for name in context.attributed:
        if name not in named:
            raise NotApplicableError(f"parameter {name!r}: the model has no such parameter; it has {_some(named)}")
        if named[name].is_complex():
            raise NotApplicableError(
                f"parameter {name!r} is {named[name].dtype}: complex parameters are not attributed"
            )
    for name, module in context.model.named_modules():
        if isinstance(module, BatchNorm) and (module.training or module.running_mean is None):
            raise NotApplicableError(
                f"layer {name!r}, {type(module).__name__}, normalizes by the statistics of a batch: examples of it "
                "have no gradients of their own; use running statistics, and eval()"
            )
    if not context.attributed:
        raise NotApplicableError("the model has no parameters that a gradient could be taken of")


def _some(names: Mapping[str, Any]) -> str:
    return ", ".join(list(names)[:5]) + ", …" * (len(names) > 5)


def _differentiate(
    context: Context,
    checkpoint: Checkpoint,
    function: BatchFunction,
    examples: Examples,
    dtype: torch.dtype | None,
    precision: torch.dtype,
) -> Reference:
    model = CopiedModel(context, checkpoint, dtype)
    singles, rows, reached = [], [], set()
    for row in range(len(examples)):
        one = examples[row : row + 1]
        value = values(function, model(one.inputs), one.targets, precision)
        check_shape(value, 1)
        gradients = one_gradient(model, value)
        reached |= {name for name, gradient in gradients.items() if gradient is not None}
        rows.append([_filled(model.parameters[name], gradient) for name, gradient in gradients.items()])
        singles.append(value.detach().double())
    stacked = [with_axis(torch.stack(column)) for column in zip(*rows, strict=True)]
    if not all(bool(torch.isfinite(column).all()) for column in stacked):
        raise DivergedError("gradients of single examples are not finite: the model diverged")
    batched = check_independence(model, function, examples, torch.cat(singles), precision, tolerance_of(context))
    return Reference(
        examples, dict(zip(model.parameters, stacked, strict=True)), frozenset(reached), dtype, precision, batched
    )


def one_gradient(model: CopiedModel, value: Tensor) -> dict[str, Tensor | None]:
    """Gradients of the sum of `value`, by `backward`, which checkpointed segments ask for; `None` where unreached."""
    for parameter in model.parameters.values():
        parameter.grad = None
    if value.requires_grad:
        value.sum().backward()  # type: ignore[no-untyped-call]
    return {name: parameter.grad for name, parameter in model.parameters.items()}


def with_axis(gradients: Tensor) -> Tensor:
    """(n, *shape), where a scalar parameter counts as (1,)."""
    return gradients.unsqueeze(1) if gradients.dim() == 1 else gradients


def _filled(parameter: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        return torch.zeros_like(parameter.detach())
    return gradient.to_dense() if gradient.is_sparse else gradient


def check_shape(value: Any, n: int) -> None:
    """Refuse what is no value for each of n examples.

    Raises:
        NotApplicableError: another shape.
    """
    shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
    if shape != (n,):
        raise NotApplicableError(
            f"the loss, margin or target returned {shape} for {n} examples: it must be one value for each example, "
            f"{(n,)}; use reduction='none'"
        )


@torch.no_grad()
def check_independence(
    model: Runnable,
    function: BatchFunction,
    examples: Examples,
    singles: Tensor,
    precision: torch.dtype | None,
    tolerance: float,
) -> bool:
    """Whether the model takes batches.

    Args:
        model: with its parameters.
        function: of outputs and targets.
        examples: a few.
        singles: its values for each of them alone.
        precision: of the function, see `values`.
        tolerance: relative, of values that are the same.

    Raises:
        NotApplicableError: a value changes from call to call, or with the other examples in its batch.
    """
    first = examples[:1]
    again = values(function, model(first.inputs), first.targets, precision).double()
    if not _near(again, singles[:1], tolerance):
        raise NotApplicableError(
            f"the same example gives {float(singles[0]):.6g} and {float(again):.6g}: the model is random in evaluation "
            "mode, or changes itself; make it deterministic in eval()"
        )
    try:
        together = values(function, model(examples.inputs), examples.targets, precision)
    except Exception as error:
        reason_of(error)
        return False
    check_shape(together, len(examples))
    if not _near(together.double(), singles, tolerance):
        row = int((together.double() - singles).abs().argmax())
        raise NotApplicableError(
            f"an example gives {float(singles[row]):.6g} alone and {float(together[row]):.6g} in a batch of "
            f"{len(examples)}: it depends on the other examples of the batch and has no gradient of its own; "
            "use running statistics, or a loss of single examples"
        )
    return True


def tolerance_of(context: Context) -> float:
    """Of values that are the same: a single-precision segment may stand inside whatever precision a model runs in."""
    return 1e-3 if torch.finfo(own_precision(context.model)).bits > 16 else 0.1


def _near(actual: Tensor, expected: Tensor, tolerance: float) -> bool:
    return bool(torch.isclose(actual, expected, rtol=tolerance, atol=tolerance * 0.1, equal_nan=True).all())
