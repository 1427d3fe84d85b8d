"""Every row of the zoo, by every way that makes gradients or curvature, against float64 and one example at a time."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from zoo import ROWS, N, Row

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, trained_parameters
from attriboard.contracts.task import Examples
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import per_example_gradients
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.placed import CopiedModel
from attriboard.toolkit.projection import FourierProjection
from attriboard.toolkit.reference import reference

N_TEST, TOLERANCE = 4, 1e-5


def context_of(row: Row, seed: int = 0) -> Context:
    """As the engine makes it: the model's own parameters stay behind, those of the checkpoint are its."""
    torch.manual_seed(seed)
    model = row.build().eval()
    inputs, targets = row.inputs(N + N_TEST), row.targets(N + N_TEST)
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    buffers = {name: value.detach().clone() for name, value in model.named_buffers()}
    attributed = trained_parameters(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
        parameter.mul_(0)
    examples = Examples(inputs, targets)

    def target(outputs: Any, wanted: Tensor) -> Tensor:
        return -row.loss(outputs, wanted)

    checkpoint = Checkpoint(parameters, 1, 0, buffers=buffers)
    return Context(examples[:N], examples[N:], model, (checkpoint,), row.loss, target, target, parameters=attributed)


class Oracle:
    """Ordinary autograd in float64, one example at a time; in the model's own precision where it takes no other."""

    def __init__(self, context: Context) -> None:
        found = reference(context, context.checkpoints[0], context.loss)
        self.context, self.precision = context, found.precision
        self.model = CopiedModel(context, context.checkpoints[0], found.dtype)
        self.parameters = list(self.model.parameters.values())

    def loss(self, one: Examples) -> Tensor:
        outputs, targets = self.model.module(self.model.cast(one.inputs).clone()), one.targets
        if isinstance(outputs, Tensor):
            outputs = outputs.to(self.precision)
        if targets.is_floating_point():
            targets = targets.to(self.precision)
        return self.context.loss(outputs, targets).sum()

    def gradients(self, examples: Examples) -> Tensor:
        """(n, n_params), float64."""
        rows = [self.flat(self.loss(examples[i : i + 1])) for i in range(len(examples))]
        return torch.stack(rows)

    def flat(self, value: Tensor, **settings: Any) -> Tensor:
        if not value.requires_grad:
            return torch.cat([torch.zeros_like(one).flatten() for one in self.parameters]).double()
        found = torch.autograd.grad(value, self.parameters, materialize_grads=True, allow_unused=True, **settings)
        return torch.cat([one.flatten().double() for one in found])

    def hessian_products(self, examples: Examples, directions: Tensor) -> Tensor:
        """X H (k, n_params), H of the mean loss."""
        total = torch.zeros_like(directions)
        for i in range(len(examples)):
            with sdpa_kernel(SDPBackend.MATH):
                first = self.flat(self.loss(examples[i : i + 1]), create_graph=True)
                for row, direction in enumerate(directions):
                    total[row] += self.flat(first @ direction, retain_graph=True)
        return total / len(examples)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    error = float((actual.double() - expected).norm() / expected.norm().clamp_min(1e-12))
    assert error <= TOLERANCE, error


RIGHT = [row for row in ROWS if row.refused is None]


@pytest.mark.parametrize("row", RIGHT, ids=lambda row: row.name)
def test_gradients_are_those_of_single_examples(row: Row) -> None:
    """Blocks of any size, kernels and projections; the examples and the model stay as they were."""
    context = context_of(row)
    inputs = context.train.inputs.clone()
    checkpoint = context.checkpoints[0]
    oracle = Oracle(context)
    G, g = oracle.gradients(context.train), -oracle.gradients(context.test)
    for memory_bytes in (2**30, 1):
        blocks = per_example_gradients(context, checkpoint, context.loss, context.train, memory_bytes=memory_bytes)
        assert_close(torch.cat(list(blocks)), G)
    K, r = gradient_kernels(context, checkpoint, context.loss, context.target)
    assert_close(K, G @ G.T)
    assert_close(r, G @ g.T)
    project = FourierProjection(G.shape[1], 7, seed=0)
    blocks = per_example_gradients(context, checkpoint, context.loss, context.train)
    assert_close(torch.cat([project(block) for block in blocks]), project(G))
    assert torch.equal(context.train.inputs, inputs)


@pytest.mark.parametrize("row", [row for row in RIGHT if not row.second], ids=lambda row: row.name)
def test_second_derivatives_that_pytorch_does_not_have_are_refused(row: Row) -> None:
    context = context_of(row)
    with pytest.raises(NotApplicableError, match="no second derivatives"):
        TrainingLoss(context, context.checkpoints[0])


@pytest.mark.parametrize("row", [row for row in RIGHT if row.second], ids=lambda row: row.name)
def test_hessian_products_are_those_of_single_examples(row: Row) -> None:
    context = context_of(row)
    oracle = Oracle(context)
    n_params = sum(one.numel() for one in oracle.parameters)
    directions = torch.randn(2, n_params, dtype=torch.float64)
    loss = TrainingLoss(context, context.checkpoints[0], torch.float64)
    curvature, slopes = loss.products(directions)
    assert_close(curvature, oracle.hessian_products(context.train, directions))
    assert_close(slopes, directions @ oracle.gradients(context.train).T)
    assert_close(loss.slopes(context.target, context.test, directions), -directions @ oracle.gradients(context.test).T)


@pytest.mark.parametrize("row", [row for row in ROWS if row.refused], ids=lambda row: row.name)
def test_what_has_no_right_answer_is_refused(row: Row) -> None:
    context = context_of(row)
    checkpoint = context.checkpoints[0]
    makers: tuple[Callable[[], object], ...] = (
        lambda: list(per_example_gradients(context, checkpoint, context.loss, context.train)),
        lambda: TrainingLoss(context, checkpoint),
    )
    for make in makers:
        with pytest.raises(NotApplicableError, match=row.refused):
            make()


def test_the_zoo_is_large_and_its_names_are_claims_of_one_row() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60
