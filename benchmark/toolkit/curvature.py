"""First and second derivatives of the training loss along given directions.

For directions X (k, n_params) at one checkpoint, one sweep over the training examples gives both

    X H  (k, n_params),  H the Hessian of the mean training loss, and
    X Gᵀ (k, n_train),   ⟨x, ∇L(z_i)⟩ for every training example,

by reverse-mode differentiation of the weighted gradient g(θ, w) = Σ_i w_i ∇L(z_i; θ) at w = 1: the pullback of x is
∂⟨x, g⟩/∂θ = n x H and ∂⟨x, g⟩/∂w = x Gᵀ. (Pearlmutter 1994, "Fast Exact Multiplication by the Hessian", for the first.)
Nothing of size n_train × n_params or n_params² is stored, and results do not depend on how examples and directions are
cut into blocks (beyond the rounding of sums). Every operation of the model needs a second derivative; fused attention,
which has none, is computed by its plain formula.

Directions go through `torch.func` together where it runs and agrees with ordinary double backward passes of single
examples along one random direction; one after the other where not. The loss is differentiated in float64 wherever it
takes that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.gradients import by_parameter
from attriboard.toolkit.memory import ROWS, count_activations
from attriboard.toolkit.placed import CopiedModel, FunctionalModel, own_precision, values
from attriboard.toolkit.reference import DivergedError, few_examples, reason_of, reference, remembered

WeightedGradient = Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor]]
Pullback = Callable[[dict[str, Tensor]], tuple[dict[str, Tensor], Tensor]]
"""x (k, *shape) of every parameter → n x H of every parameter, and x Gᵀ (k, n)."""

SWEEP_BYTES = 512 * 2**20
"""Memory for the intermediates of one pass; decides how many directions go together."""

INTERMEDIATES = 6
"""Values that a pass holds at once for each activation of the model, about."""


@dataclass(frozen=True)
class _Way:
    """How second derivatives are made.

    Attributes:
        functional: by `torch.func`, all directions together; else by double backward passes through a copy.
        dtype: of the model, see `FunctionalModel`.
        precision: of the loss, see `values`.
        rows: examples per pass, at most.
    """

    functional: bool
    dtype: torch.dtype | None
    precision: torch.dtype
    rows: int = ROWS


class TrainingLoss:
    """The mean training loss at one checkpoint, as a function of the attributed parameters in their order.

    Args:
        context: model, training examples and loss.
        checkpoint: where derivatives are taken.
        dtype: of all computation; the parameters' own where `None`, or where the model takes no other.
        rows: examples per pass, at most; no influence on the result.
        memory_bytes: bounds the intermediates of a pass; no influence on the result.

    Raises:
        NotApplicableError: the model, or the loss, has no second derivatives.
    """

    def __init__(
        self,
        context: Context,
        checkpoint: Checkpoint,
        dtype: torch.dtype | None = None,
        *,
        rows: int = ROWS,
        memory_bytes: int = SWEEP_BYTES,
    ) -> None:
        key = ("curvature", checkpoint, dtype)
        way = remembered(context, key, lambda: _choose(context, checkpoint, dtype))
        self.train, self._loss = context.train, context.loss
        self._products = _Products(context, checkpoint, way)
        self._shapes = {name: value.shape for name, value in self._products.parameters.items()}
        self.dtype = way.dtype or own_precision(context.model)
        self.n_params = sum(shape.numel() for shape in self._shapes.values())
        self.device = next(iter(self._products.parameters.values())).device
        width = count_activations(self._products.model, self.train.inputs[:1])
        self._numbers = memory_bytes // self.dtype.itemsize
        self._row_numbers = INTERMEDIATES * width
        self._rows = max(1, min(rows, way.rows, self._numbers // self._row_numbers))

    def products(self, directions: Tensor, examples: Examples | None = None) -> tuple[Tensor, Tensor]:
        """X H and X Gᵀ.

        Args:
            directions: X (k, n_params).
            examples: those that H and G are of; all training examples where `None`.

        Returns:
            X H (k, n_params), H the mean over the examples, and X Gᵀ (k, n), in the directions' precision.
        """
        examples = self.train if examples is None else examples
        curvature = torch.zeros_like(directions)
        slopes = directions.new_empty(len(directions), len(examples))
        for rows, batch in self._batches(examples):
            pull = self._products.pullback(self._loss, batch)
            for block in self._blocks(directions, batch):
                pieces, slopes[block, rows] = pull(by_parameter(directions[block], self._shapes))
                for name, view in by_parameter(curvature[block], self._shapes).items():
                    view.add_(pieces[name])
        return curvature.div_(len(examples)), slopes

    def slopes(self, function: BatchFunction, examples: Examples, directions: Tensor) -> Tensor:
        """⟨x, ∇φ(z)⟩ for every direction x and example z, (k, n), of φ = `function` of (outputs, targets)."""
        slopes = directions.new_empty(len(directions), len(examples))
        for rows, batch in self._batches(examples):
            pull = self._products.slope_pullback(function, batch)
            for block in self._blocks(directions, batch):
                slopes[block, rows] = pull(by_parameter(directions[block], self._shapes))
        return slopes

    def _batches(self, examples: Examples) -> Iterator[tuple[slice, Examples]]:
        for start in range(0, len(examples), self._rows):
            rows = slice(start, start + self._rows)
            yield rows, examples[rows]

    def _blocks(self, directions: Tensor, batch: Examples) -> Iterator[slice]:
        step = max(1, self._numbers // (len(batch) * self._row_numbers + 4 * self.n_params))
        for start in range(0, len(directions), step):
            yield slice(start, start + step)


class _Products:
    """Pullbacks of directions through the weighted gradient of a batch."""

    def __init__(self, context: Context, checkpoint: Checkpoint, way: _Way) -> None:
        self._way = way
        self.model: FunctionalModel | CopiedModel
        self.model = (FunctionalModel if way.functional else CopiedModel)(context, checkpoint, way.dtype)
        self.parameters = self.model.parameters

    def pullback(self, function: BatchFunction, batch: Examples) -> Pullback:
        """The pullback: x → n x H and x Gᵀ."""
        weights = self._ones(batch)
        if isinstance(self.model, CopiedModel):
            return self._twice(self.model, function, batch, weights)
        with sdpa_kernel(SDPBackend.MATH):
            pull = vjp(self._gradient(self.model, function, batch), self.parameters, weights)[1]

        def pulled(directions: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
            with sdpa_kernel(SDPBackend.MATH):
                curvature, slopes = vmap(pull)(self._cast(directions))
            return curvature, slopes

        return pulled

    def slope_pullback(self, function: BatchFunction, batch: Examples) -> Callable[[dict[str, Tensor]], Tensor]:
        """The same for x Gᵀ alone."""
        weights = self._ones(batch)
        if isinstance(self.model, CopiedModel):
            both = self._twice(self.model, function, batch, weights)
            return lambda directions: both(directions)[1]
        with sdpa_kernel(SDPBackend.MATH):
            pull = vjp(partial(self._gradient(self.model, function, batch), self.parameters), weights)[1]

        def pulled(directions: dict[str, Tensor]) -> Tensor:
            with sdpa_kernel(SDPBackend.MATH):
                (slopes,) = vmap(pull)(self._cast(directions))
            found: Tensor = slopes
            return found

        return pulled

    def _gradient(self, model: FunctionalModel, function: BatchFunction, batch: Examples) -> WeightedGradient:
        """(θ, w) → Σ_i w_i ∇φ(z_i; θ)."""

        def total(parameters: Mapping[str, Tensor], weights: Tensor) -> Tensor:
            found = values(function, model(batch.inputs, parameters), batch.targets, self._way.precision)
            return weights @ found

        gradient: WeightedGradient = grad(total)
        return gradient

    def _twice(self, model: CopiedModel, function: BatchFunction, batch: Examples, weights: Tensor) -> Pullback:
        """By two ordinary backward passes, one direction after the other."""
        weights.requires_grad_()
        named = self.parameters
        with sdpa_kernel(SDPBackend.MATH):
            total = weights @ values(function, model(batch.inputs), batch.targets, self._way.precision)
            first = torch.autograd.grad(total, list(named.values()), create_graph=True, allow_unused=True)
        reached = {name: gradient for name, gradient in zip(named, first, strict=True) if gradient is not None}

        def one(direction: dict[str, Tensor]) -> tuple[list[Tensor], Tensor]:
            along = torch.stack([(reached[name] * direction[name]).sum().double() for name in reached]).sum()
            with sdpa_kernel(SDPBackend.MATH):
                *second, slopes = torch.autograd.grad(
                    along, [*named.values(), weights], retain_graph=True, allow_unused=True, materialize_grads=True
                )
            return second, slopes

        def pulled(directions: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
            cast = self._cast(directions)
            k = len(next(iter(cast.values())))
            found = [one({name: value[row] for name, value in cast.items()}) for row in range(k)]
            columns = zip(*(second for second, _ in found), strict=True)
            curvature = {name: torch.stack(column) for name, column in zip(named, columns, strict=True)}
            return curvature, torch.stack([slopes for _, slopes in found])

        return pulled

    def _ones(self, batch: Examples) -> Tensor:
        return torch.ones(len(batch), dtype=self._way.precision, device=batch.inputs.device)

    def _cast(self, directions: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.parameters[name].dtype) for name, value in directions.items()}


def _choose(context: Context, checkpoint: Checkpoint, dtype: torch.dtype | None) -> _Way:
    """`torch.func` where it agrees with double backward passes of single examples."""
    try:
        found = reference(context, checkpoint, context.loss)
    except DivergedError as error:
        raise NotApplicableError("the Hessian is not finite: the model diverged") from error
    few = few_examples(context)
    generator = torch.Generator().manual_seed(0)
    shapes = {name: value.shape for name, value in context.model.named_parameters() if name in found.gradients}
    directions = {
        name: torch.randn(1, *shapes[name], generator=generator, dtype=torch.float64).to(context.device)
        for name in context.attributed
    }
    own = own_precision(context.model)
    wanted = None if dtype == own else dtype
    failure: BaseException | None = None
    for precision in dict.fromkeys((wanted, None)):
        try:
            plain = _Way(False, precision, found.precision, ROWS if found.batched else 1)
            expected = _along(context, checkpoint, plain, [few[row : row + 1] for row in range(len(few))], directions)
        except Exception as error:
            failure = failure or error
            reason_of(error)
            continue
        try:
            fast = _Way(True, precision, found.precision)
            actual = _along(context, checkpoint, fast, [few], directions)
        except Exception as error:
            reason_of(error)
        else:
            tolerance = 10 * torch.finfo(precision or own).eps ** 0.5
            if found.batched and float((actual - expected).norm()) <= tolerance * float(expected.norm()):
                return fast
        context.remark("makes second derivatives by one double backward pass for each direction, slower")
        return plain
    assert failure is not None
    raise NotApplicableError(f"the model or the loss has no second derivatives: {reason_of(failure)}") from failure


def _along(
    context: Context, checkpoint: Checkpoint, way: _Way, batches: list[Examples], directions: dict[str, Tensor]
) -> Tensor:
    """The pullback, n x H and x Gᵀ, of one direction, summed up over batches, as one vector."""
    products = _Products(context, checkpoint, way)
    curvature: dict[str, Any] = dict.fromkeys(directions, 0.0)
    slopes = []
    for batch in batches:
        pieces, slope = products.pullback(context.loss, batch)(dict(directions))
        slopes.append(slope[0].double())
        for name, piece in pieces.items():
            curvature[name] = curvature[name] + piece.double()
    return torch.cat([*(value.flatten() for value in curvature.values()), *slopes])
