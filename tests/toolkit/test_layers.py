"""Gradient factors of every kind of module against one ordinary backward pass for each example."""

from collections.abc import Callable

import pytest
import torch
from other_layers import PROBLEMS, context_of, convolutions, flat, in_single_precision, language_model, one_by_one
from torch import Tensor, nn

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import factored as factored_module
from attriboard.toolkit import held as held_module
from attriboard.toolkit.factored import FactoredGradients
from attriboard.toolkit.gradients import layer_gradients, per_example_gradients
from attriboard.toolkit.held import store
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.layers import LayerFactors

N = 9


def squares(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.flatten(1).sin().sum(1) - targets).square()


def numbers(model: nn.Module, *shape: int) -> Context:
    torch.manual_seed(1)
    examples = Examples(torch.randn(N, *shape).double(), torch.randn(N).double())
    return context_of(model, examples, examples[:3], squares, squares)


def tokens(model: nn.Module) -> Context:
    torch.manual_seed(1)
    examples = Examples(torch.randint(7, (N, 5)), torch.randn(N).double())
    return context_of(model, examples, examples[:3], squares, squares)


class Conv1D(nn.Module):
    """As in transformers: the weight is (d_in, nf)."""

    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Positioned(nn.Module):
    """Tied embeddings, and embedded positions without an axis of examples."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(7, 4, padding_idx=2), nn.Embedding(5, 4)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.tokens.weight

    def forward(self, x: Tensor) -> Tensor:
        places: Tensor = self.places(torch.arange(5)[None])
        logits: Tensor = self.head((self.tokens(x) + places).tanh())
        return logits


class Twice(nn.Module):
    """One layer at two depths, over sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh()[:, :2])


KINDS: dict[str, Callable[[], Context]] = {
    "vectors": lambda: numbers(nn.Sequential(nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2, bias=False)), 4),
    "sequences": lambda: numbers(nn.Linear(4, 3), 5, 4),
    "Conv1D": lambda: numbers(nn.Sequential(Conv1D(6, 4), nn.Tanh(), Conv1D(2, 6)), 5, 4),
    "Conv1d": lambda: numbers(nn.Conv1d(2, 3, 3, stride=2, padding=2, dilation=2), 2, 9),
    "Conv2d": lambda: numbers(nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(1, 0), dilation=(2, 1)), 2, 6, 5),
    "norms": lambda: numbers(nn.Sequential(nn.BatchNorm1d(4), nn.GroupNorm(2, 4), nn.LayerNorm((4, 3))), 4, 3),
    "norms of vectors": lambda: numbers(nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4, bias=False)), 4),
    "embeddings": lambda: tokens(Positioned()),
    "one layer twice": lambda: numbers(Twice(), 3, 4),
    "convolutions": convolutions,
    "language model": language_model,
}


@pytest.mark.parametrize("name", KINDS)
def test_factors_are_the_gradients_of_single_examples(name: str) -> None:
    context = KINDS[name]()
    checkpoint = context.checkpoints[0]
    factored = FactoredGradients(context, checkpoint, context.loss)
    factored.check()
    expected = flat(one_by_one(context, context.loss, context.train))
    for rows in (None, 4):
        chunks = factored.blocks(context.train, rows=rows)
        actual = torch.cat([torch.cat([layer.dense() for layer in chunk], 1) for chunk in chunks])
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)
    for chunk in factored.blocks(context.train):
        total = torch.stack([layer.squares() for layer in chunk]).sum(0)
        torch.testing.assert_close(total, expected.square().sum(1), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
def test_rows_of_a_parameter_are_made_alone(name: str) -> None:
    """Also those of a table of embeddings, tied or not."""
    context = KINDS[name]()
    (chunk,) = layer_gradients(context, context.checkpoints[0], context.loss, context.train)
    for part in (part for layer in chunk for part in layer.parts):
        pieces = [part.gradient(slice(row, row + 2)) for row in range(0, part.shape[0], 2)]
        torch.testing.assert_close(torch.cat(pieces, 1), part.gradient(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", PROBLEMS)
def test_kernels_do_not_depend_on_passes(make: Callable[[], Context], monkeypatch: pytest.MonkeyPatch) -> None:
    context = make()
    checkpoint = context.checkpoints[0]
    G, g = (
        flat(one_by_one(context, function, side))
        for function, side in ((context.loss, context.train), (context.target, context.test))
    )
    for room in (2**31, 8 * (len(G) + len(g)) * 30):
        monkeypatch.setattr(held_module, "DENSE_BYTES", room)
        monkeypatch.setattr(held_module, "HELD_BYTES", room)
        K, r = gradient_kernels(context, checkpoint, context.loss, context.target)
        torch.testing.assert_close(K, G @ G.T, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(r, G @ g.T, rtol=1e-9, atol=1e-10)


def test_a_sequence_kernel_stands_for_gradients_where_it_is_cheaper() -> None:
    wide, long = numbers(nn.Linear(16, 16), 2, 16), numbers(nn.Linear(3, 3), 8, 3)
    for context, factored in ((wide, True), (long, False)):
        (chunk,) = layer_gradients(context, context.checkpoints[0], context.loss, context.train)
        assert isinstance(store(chunk[0]), LayerFactors) == factored
        K, _ = gradient_kernels(context, context.checkpoints[0], context.loss, context.loss)
        G = flat(one_by_one(context, context.loss, context.train))
        torch.testing.assert_close(K, G @ G.T, rtol=1e-10, atol=1e-10)


def test_single_precision_costs_every_gradient_its_own_rounding() -> None:
    """Also a well-fitted example's, whose 1 − p is lost in float32: logits of the model's own classes, scaled up."""
    context = convolutions()

    def confident(outputs: Tensor, targets: Tensor) -> Tensor:
        return context.loss(100 * outputs, outputs.argmax(1))

    expected = flat(one_by_one(context, confident, context.train))
    sizes = expected.norm(dim=1)
    assert sizes.min() < 1e-12 * sizes.max()
    single = in_single_precision(context)
    blocks = per_example_gradients(single, single.checkpoints[0], confident, single.train)
    errors = (torch.cat(list(blocks)).double() - expected).norm(dim=1) / sizes
    assert errors.max() < 1e-3, errors.max()


def test_memory_decides_how_many_examples_go_together(monkeypatch: pytest.MonkeyPatch) -> None:
    context = convolutions()
    monkeypatch.setattr(factored_module, "GRADIENT_BYTES", 8 * factored_module.INTERMEDIATES * 1500)
    chunks = list(layer_gradients(context, context.checkpoints[0], context.loss, context.train))
    assert {len(layer) for layer in chunks[0]} == {4}
    assert sum(len(chunk[0]) for chunk in chunks) == len(context.train)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.ConvTranspose2d(2, 2, 3), (2, 5, 5)),
        (nn.InstanceNorm2d(2, affine=True), (2, 5, 5)),
        (nn.PReLU(), (4,)),
    ],
)
def test_other_modules_are_differentiated_one_by_one(module: nn.Module, shape: tuple[int, ...]) -> None:
    context = numbers(module, *shape)
    checkpoint = context.checkpoints[0]
    with pytest.raises(NotApplicableError, match="no gradient factors for"):
        FactoredGradients(context, checkpoint, context.loss).check()
    actual = torch.cat(list(per_example_gradients(context, checkpoint, context.loss, context.train)))
    torch.testing.assert_close(actual, flat(one_by_one(context, context.loss, context.train)), rtol=1e-9, atol=1e-11)


def test_batch_statistics_have_no_gradients_of_single_examples() -> None:
    context = numbers(nn.BatchNorm1d(4), 4)
    context.model.train()
    with pytest.raises(NotApplicableError, match="statistics of a batch"):
        FactoredGradients(context, context.checkpoints[0], context.loss)
