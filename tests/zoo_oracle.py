"""Rows of the zoo as contexts, and what ordinary autograd says of them in float64, one example at a time."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from zoo import N, Row

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.context import trained_parameters
from attriboard.contracts.task import Examples
from attriboard.toolkit.placed import CopiedModel
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


def gauss_newton_products(oracle: Oracle, examples: Examples, directions: Tensor) -> Tensor:
    """X Jᵀ(∇²L)J of the mean loss, J of the outputs (1, …), one example at a time; (k, n_params)."""
    total = torch.zeros_like(directions)
    for i in range(len(examples)):
        one = examples[i : i + 1]
        outputs = oracle.model.module(oracle.model.cast(one.inputs).clone()).to(oracle.precision)
        J = torch.stack([oracle.flat(number, retain_graph=True) for number in outputs.flatten()])

        def loss(flat: Tensor, one: Examples = one, shape: torch.Size = outputs.shape) -> Tensor:
            return oracle.context.loss(flat.view(shape), one.targets).sum()

        curvature = torch.autograd.functional.hessian(loss, outputs.detach().flatten()).double()
        total += directions @ J.T @ curvature @ J
    return total / len(examples)
