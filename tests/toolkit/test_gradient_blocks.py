"""Per-example gradients, factored or by vmap, against a dense Jacobian in float64."""

from collections.abc import Callable
from typing import Any
from weakref import ReferenceType

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from attriboard.attributors.datainf import DataInf
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import factored as factored_module
from attriboard.toolkit import held as held_module
from attriboard.toolkit import kernel as kernel_module
from attriboard.toolkit import needs
from attriboard.toolkit import solve as solve_module
from attriboard.toolkit.factored import FactoredGradients
from attriboard.toolkit.gradients import layer_gradients, per_example_gradients
from attriboard.toolkit.held import Stored, gradient_bytes, held_points
from attriboard.toolkit.kernel import gradient_kernels, gradient_products
from attriboard.toolkit.running import evaluate

N, N_TEST, D = 23, 7, 6


def squared_norm(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets[:, None]).square().sum(1)


def first_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs[:, 0] * targets).tanh()


class Normalised(nn.Module):
    """Running statistics in buffers, a shift that belongs to no linear layer, and parameters out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(D)
        self.lift = nn.Linear(D, 5)
        self.conv = nn.Conv1d(1, 2, 3)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.lift(self.norm(x)).relu()
        return self.head(self.conv(hidden.unsqueeze(1)).flatten(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh())


class Shifted(nn.Module):
    """A parameter of its own kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.shift = nn.Linear(D, 3), nn.Parameter(torch.ones(D))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x + self.shift)


class Silent(nn.Module):
    """Has a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(D, 3), nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Leaking(nn.Module):
    """Uses a layer's weight behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.layer.weight.square()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(D, 5), nn.ReLU(inplace=True), nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3)
    )


def build(make: Callable[[], nn.Module]) -> Context:
    torch.manual_seed(0)
    model = make().double().eval()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    buffers = {
        name: torch.rand_like(value) + 0.5 if value.is_floating_point() else value
        for name, value in model.named_buffers()
    }
    # Files are read in alphabetical order, which is not the model's.
    parameters = dict(sorted(parameters.items()))
    train = Examples(torch.randn(N, D).double(), torch.randn(N).double())
    test = Examples(torch.randn(N_TEST, D).double(), torch.randn(N_TEST).double())
    checkpoint = Checkpoint(parameters, epoch=1, seed=0, buffers=buffers)
    return Context(train, test, model, (checkpoint,), squared_norm, first_output, first_output)


def dense(context: Context, function: BatchFunction, examples: Examples) -> Tensor:
    checkpoint = context.checkpoints[0]

    def values(parameters: dict[str, Tensor]) -> Tensor:
        state = {**checkpoint.buffers, **parameters}
        return function(functional_call(context.model, state, (examples.inputs,)), examples.targets)

    jacobian = jacrev(values)(dict(checkpoint.parameters))
    return torch.cat([jacobian[name].flatten(1) for name, _ in context.model.named_parameters()], dim=1)


@pytest.mark.parametrize("make", [mlp, Normalised, Tied, Leaking, Shifted, Silent])
@pytest.mark.parametrize("memory_bytes", [1, 20_000, 2**30])
def test_blocks_are_the_dense_jacobian_however_they_are_cut(make: Callable[[], nn.Module], memory_bytes: int) -> None:
    context = build(make)
    blocks = per_example_gradients(
        context, context.checkpoints[0], context.loss, context.train, memory_bytes=memory_bytes
    )
    actual = torch.cat(list(blocks))
    torch.testing.assert_close(actual, dense(context, context.loss, context.train), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("make", [mlp, Normalised, Tied, Leaking])
def test_kernels_are_the_dense_products(make: Callable[[], nn.Module]) -> None:
    context = build(make)
    K, r = gradient_kernels(context, context.checkpoints[0], context.loss, context.target)
    G, g = dense(context, context.loss, context.train), dense(context, context.target, context.test)
    torch.testing.assert_close(K, G @ G.T, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(r, G @ g.T, rtol=1e-10, atol=1e-10)
    products = gradient_products(context, context.checkpoints[0], context.loss, context.target)
    torch.testing.assert_close(products, r, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("make", [mlp, Normalised, Leaking])
def test_kernels_do_not_depend_on_their_blocks(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    context = build(make)
    expected = gradient_kernels(context, context.checkpoints[0], context.loss, context.target)
    monkeypatch.setattr(kernel_module, "BLOCK_ROWS", 4)
    monkeypatch.setattr(kernel_module, "BLOCK_COLUMNS", 5)
    for name in ("DENSE_BYTES", "HELD_BYTES"):
        monkeypatch.setattr(held_module, name, 8 * (N + N_TEST) * 12)
    monkeypatch.setattr(factored_module, "GRADIENT_BYTES", 8 * factored_module.INTERMEDIATES * 23 * 5)
    actual = gradient_kernels(context, context.checkpoints[0], context.loss, context.target)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", [mlp, Normalised, Leaking])
def test_kernels_have_the_same_bits_whatever_memory_there_is(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With more of it, more pieces share a pass; the sums are made of the same pieces."""
    context = build(make)
    functions = (context.loss, context.target)
    one = 8 * (N + N_TEST) * 12
    monkeypatch.setattr(held_module, "DENSE_BYTES", one)
    found, passes = [], []
    for free in (0, 6 * one, 2**40):
        monkeypatch.setattr(held_module, "free_memory", lambda *_, free=free: free)
        passes.append(len(held_module._groups(context, context.checkpoints[0], functions, None, None)))
        found.append(gradient_kernels(context, context.checkpoints[0], *functions))
    assert passes[2] == 1
    assert passes[0] >= passes[1] >= passes[2]
    for K, r in found[1:]:
        assert torch.equal(K, found[0][0])
        assert torch.equal(r, found[0][1])
    if make is not mlp:
        assert passes[0] > passes[1] > 1


class Images(nn.Module):
    """Convolutions whose gradients take many times what they are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, dtype=torch.float64)
        self.second = nn.Conv2d(6, 12, 3, padding=1, dtype=torch.float64)
        self.head = nn.Linear(12, 3, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> Tensor:
        images = inputs.view(len(inputs), 1, 2, -1)
        return self.head(torch.relu(self.second(torch.relu(self.first(images)))).mean((2, 3)))


def exact(context: Context) -> None:
    gradient_kernels(context, context.checkpoints[0], context.loss, context.target)


def leading(context: Context) -> None:
    solve_module._solve_leading(context, context.checkpoints[0], (context.loss, context.target), 4)


def by_layer(context: Context) -> None:
    DataInf().fit_one(context, context.checkpoints[0], 0)


@pytest.mark.parametrize("work", [exact, leading, by_layer])
def test_a_piece_is_released_before_the_next_is_made(
    work: Callable[[Context], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One piece written out is counted beside what is held; a second one of ResNet-9 would be another 2 GB."""
    write, made = held_module._written, list[ReferenceType[Tensor]]()
    released = 0

    def watched(*arguments: Any) -> Stored:
        nonlocal released
        piece = write(*arguments)
        if len(piece.tensors[0]) == N:  # of the training examples, which come first
            assert not [tensor for earlier in made if (tensor := earlier()) is not None]
            released += len(made)
            made.clear()
        made.extend(map(ReferenceType, piece.tensors))
        return piece

    monkeypatch.setattr(held_module, "DENSE_BYTES", one := 8 * (N + N_TEST) * 100)
    monkeypatch.setattr(held_module, "free_memory", lambda *_: 8 * one)
    monkeypatch.setattr(held_module, "_written", watched)
    work(build(Images))
    assert released > 10


def test_what_gradients_are_made_of_is_held_instead_where_it_takes_less(monkeypatch: pytest.MonkeyPatch) -> None:
    context = build(Images)
    checkpoint, functions = context.checkpoints[0], (context.loss, context.target)
    G, g = dense(context, context.loss, context.train), dense(context, context.target, context.test)
    monkeypatch.setattr(held_module, "DENSE_BYTES", one := 8 * (N + N_TEST) * 100)
    monkeypatch.setattr(held_module, "JOINED_ROWS", 5)
    found = []
    for free in (0, 8 * one, 2**40):
        monkeypatch.setattr(held_module, "free_memory", lambda *_, free=free: free)
        groups = held_module._groups(context, checkpoint, functions, None, None)
        shares = [share for group in groups for share in group if share.layer == "second"]
        assert len({bool(share.written) for share in shares}) == 1
        pieces = [piece for share in shares for piece in share.pieces]
        kernel, products = gradient_kernels(context, checkpoint, *functions)
        torch.testing.assert_close(kernel, G @ G.T, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(products, G @ g.T, rtol=1e-10, atol=1e-10)
        found.append((bool(shares[0].written), len(groups), pieces, kernel, products))
    (written, passes, pieces, *sums), *others = found
    assert (written, [other[0] for other in others]) == (False, [True, True])
    assert passes > others[0][1] >= others[1][1] == 1
    for _, _, same, *equal in others:
        assert same == pieces
        assert all(map(torch.equal, equal, sums))


@pytest.mark.parametrize("make", [mlp, Normalised, Leaking])
def test_products_do_not_depend_on_groups_of_test_points(
    make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    context = build(make)
    expected = gradient_products(context, context.checkpoints[0], context.loss, context.target)
    assert held_points(context) == N_TEST
    monkeypatch.setattr(held_module, "DENSE_BYTES", 1)
    monkeypatch.setattr(held_module, "HELD_BYTES", 1)
    assert held_points(context) == 1
    monkeypatch.setattr(held_module, "JOINED_ROWS", 5)
    monkeypatch.setattr(factored_module, "GRADIENT_BYTES", 8 * factored_module.INTERMEDIATES * 23 * 2)
    actual = gradient_products(context, context.checkpoints[0], context.loss, context.target)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)


def test_test_gradients_take_at_most_half_of_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    context = build(mlp)
    one = gradient_bytes(context)
    monkeypatch.setattr(held_module, "DENSE_BYTES", one)
    for free, points in ((6 * one, 3), (7 * one, 3), (0, 1), (8 * one, 4), (100 * N_TEST * one, N_TEST)):
        monkeypatch.setattr(held_module, "free_memory", lambda *_, free=free: free)
        assert held_points(context) == points


def test_the_path_to_a_kernel_does_not_follow_from_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    context = build(Normalised)
    monkeypatch.setattr(held_module, "DENSE_BYTES", 1)
    found = []
    for free in (0, 2**40):
        monkeypatch.setattr(held_module, "free_memory", lambda *_, free=free: free)
        found.append(needs.making(context))
    assert found[0] == found[1]


def test_an_exact_kernel_of_too_many_passes_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    context = build(Normalised)
    monkeypatch.setattr(held_module, "DENSE_BYTES", 1)
    monkeypatch.setattr(held_module, "HELD_BYTES", 1)
    monkeypatch.setattr(held_module, "MOST_PASSES", 10)
    with pytest.raises(NotApplicableError, match="set projection_dim"):
        gradient_kernels(context, context.checkpoints[0], context.loss, context.target)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Shifted, "layer '': no gradient factors for Shifted as it is set"),
        (Leaking, "'layer': its weight is also used outside the layer"),
    ],
)
def test_models_without_factors_are_told_why(make: Callable[[], nn.Module], reason: str) -> None:
    context = build(make)
    with pytest.raises(NotApplicableError, match=reason):
        FactoredGradients(context, context.checkpoints[0], context.loss).check()
    assert not any(module._forward_hooks for module in context.model.modules())


def test_a_layer_that_no_gradient_reaches_counts_zero_and_a_remark_says_so() -> None:
    context = build(Silent)
    (chunk,) = layer_gradients(context, context.checkpoints[0], context.loss, context.train)
    assert {layer.name: bool(layer.dense().any()) for layer in chunk} == {"layer": True, "other": False}
    assert context.remarks == ("no gradient reaches 21 of 42 parameters: other.weight, other.bias",)


def test_some_layers_are_made_alone() -> None:
    context = build(Normalised)
    checkpoint = context.checkpoints[0]
    (whole,) = layer_gradients(context, checkpoint, context.loss, context.train)
    (some,) = layer_gradients(context, checkpoint, context.loss, context.train, layers=["norm", "head"])
    assert [layer.name for layer in whole] == ["norm", "lift", "conv", "head"]
    assert [layer.name for layer in some] == ["norm", "head"]
    for layer in some:
        expected = next(one for one in whole if one.name == layer.name)
        assert torch.equal(layer.dense(), expected.dense())
        torch.testing.assert_close(layer.squares(), expected.dense().square().sum(1))


def test_confident_examples_keep_their_relative_precision() -> None:
    """In float32 the gradient of an example with 1 − p = 1e-9 would be zero or off by a factor."""
    model = nn.Linear(1, 2, bias=False)
    logit = torch.tensor([[20.7], [0.0]])
    train = Examples(torch.ones(1, 1), torch.zeros(1, dtype=torch.long))
    checkpoint = Checkpoint({"weight": logit}, epoch=1, seed=0)

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    context = Context(train, train, model.eval(), (checkpoint,), loss, loss, loss)
    K, _ = gradient_kernels(context, checkpoint, loss, loss)
    error = torch.sigmoid(-logit[0].double())
    torch.testing.assert_close(K[0], 2 * error**2, rtol=1e-6, atol=0)


def test_values_do_not_depend_on_chunks() -> None:
    context = build(Normalised)
    checkpoint = context.checkpoints[0]
    whole = evaluate(context, checkpoint, context.loss, context.train)
    pieces = evaluate(context, checkpoint, context.loss, context.train, rows=4)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)
