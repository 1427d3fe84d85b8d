"""EK-FAC and LoGra on the architectures of language models, tiny and random, against dense float64 linear algebra."""

from functools import cache
from math import prod

import pytest
import torch
from dense import REGISTRY, assert_rows_close
from other_layers import context_of, one_by_one, token_loss
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from zoo import LENGTH, ROWS, VOCABULARY

from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layerwise import matrix_layers, second_moments

pytest.importorskip("transformers")

ARCHITECTURES = ("Llama", "OPT", "BERT", "GPT-NeoX")
TIED = {"Llama": (), "OPT": ("net.lm_head",), "BERT": ("net.cls.predictions.decoder",), "GPT-NeoX": ()}
N, N_TEST, λ = 10, 3, 1e-2


@cache
def problem(kind: str) -> Context:
    torch.manual_seed(0)
    model = next(row for row in ROWS if row.name == kind).build()
    train, test = (Examples(one, one) for one in torch.randint(VOCABULARY, (N + N_TEST, LENGTH)).split(N))
    return context_of(model, train, test, token_loss, lambda outputs, targets: -token_loss(outputs, targets))


@cache
def gradients(kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    context = problem(kind)
    return one_by_one(context, context.loss, context.train), one_by_one(context, context.target, context.test)


def linear_layers(kind: str) -> list[str]:
    """Those that no other layer shares weights with."""
    named = problem(kind).model.named_modules()
    return [name for name, module in named if isinstance(module, nn.Linear) and name not in TIED[kind]]


def matrices(side: dict[str, Tensor], layer: str) -> Tensor:
    """Gradients (n, d_out, d_in) of a linear layer, the bias as last column."""
    weight = side[f"{layer}.weight"]
    return torch.cat([weight, side[f"{layer}.bias"][:, :, None]], 2) if f"{layer}.bias" in side else weight


def scores_and_note(name: str, kind: str, **values: object) -> tuple[Tensor, str]:
    method = REGISTRY.load(name)
    attributor, configuration = method(), method.configure(values)
    state = attributor.fit(problem(kind), **method.stage(configuration, "fit"))
    (note,) = attributor.notes(state)
    return attributor.score(state, **method.stage(configuration, "score")).double(), note


def assert_tells_the_rest(note: str, kind: str) -> None:
    """Which share of the parameters is left out, and the first layers of them."""
    sizes = {name: value.numel() for name, value in problem(kind).model.named_parameters()}
    covered = set(linear_layers(kind))
    rest = {name: size for name, size in sizes.items() if name.rpartition(".")[0] not in covered}
    assert note.startswith(f"leaves out {sum(rest.values()):,} of {sum(sizes.values()):,} parameters, ")
    modules = list(dict.fromkeys(name.rpartition(".")[0] for name in rest))
    assert ", ".join(modules[:12]) in note


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_linear_layer_with_weights_of_its_own_is_a_matrix_layer(kind: str) -> None:
    context = problem(kind)
    found = matrix_layers(context, context.checkpoints[0])
    assert list(found) == linear_layers(kind)
    assert len(found) >= 5
    for name, sizes in found.items():
        assert prod(sizes) == matrices(gradients(kind)[0], name)[0].numel()


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_logra_solves_every_layers_dense_system_and_says_what_it_leaves_out(kind: str) -> None:
    expected = torch.zeros(N_TEST, N, dtype=torch.float64)
    for layer in linear_layers(kind):
        G, g = (matrices(side, layer).flatten(1) for side in gradients(kind))
        F = G.T @ G / N + λ * torch.eye(G.shape[1], dtype=torch.float64)
        expected -= g @ torch.linalg.solve(F, G.T)
    scores, note = scores_and_note("logra", kind, regularization=λ, projection_dim=None)
    assert_rows_close(scores, expected)
    assert_tells_the_rest(note, kind)


@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_ekfac_is_the_dense_kronecker_eigenbasis_and_says_what_it_leaves_out(kind: str, fisher: str) -> None:
    context, (train, test) = problem(kind), gradients(kind)
    checkpoint, layers = context.checkpoints[0], linear_layers(kind)
    (draw,) = labelled(context, checkpoint, own=fisher == "true")
    moments = second_moments(context, checkpoint, [draw], layers)
    sampled = one_by_one(context, context.loss, draw.examples)
    expected = torch.zeros(N_TEST, N, dtype=torch.float64)
    for layer in layers:
        A, S = moments[layer]
        U = torch.kron(torch.linalg.eigh(S)[1], torch.linalg.eigh(A)[1])
        Λ = (draw.weights[:, None] * (matrices(sampled, layer).flatten(1) @ U).square()).mean(0)
        G, g = (matrices(side, layer).flatten(1) @ U for side in (train, test))
        expected -= g / (Λ + λ) @ G.T
    scores, note = scores_and_note("ekfac", kind, regularization=λ, fisher=fisher)
    assert_rows_close(scores, expected)
    assert_tells_the_rest(note, kind)


def ignoring(index: int, mean: bool):  # type: ignore[no-untyped-def]
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        each = cross_entropy(outputs[:, :-1].transpose(1, 2), targets[:, 1:], ignore_index=index, reduction="none")
        counted = (targets[:, 1:] != index).sum(1).clamp_min(1)
        return each.sum(1) / counted if mean else each.sum(1)

    return loss


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("index", [-100, -1, 0, 255])
def test_no_label_is_drawn_where_it_is_ignored_nor_one_that_is_ignored(index: int, mean: bool) -> None:
    """Whatever marks ignored positions, also a token of the vocabulary, such as padding."""
    torch.manual_seed(1)
    n, length = 300, 5
    inputs = torch.randint(1, 4, (n, length))
    ignored = torch.rand(n, length) < 0.4
    targets = inputs.masked_fill(ignored, index)
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4))
    loss = ignoring(index, mean)
    data = Examples(inputs, targets)
    context = context_of(model, data, data[:1], loss, lambda outputs, wanted: -loss(outputs, wanted))
    (draw,) = labelled(context, context.checkpoints[0], own=True)
    drawn = draw.examples.targets
    assert torch.equal(drawn[:, 1:] == index, ignored[:, 1:])
    assert ((drawn[:, 1:] >= 0) & (drawn[:, 1:] < 4) | ignored[:, 1:]).all()
    assert not torch.equal(drawn, targets)
    counted = (~ignored[:, 1:]).sum(1).double()
    assert torch.equal(draw.weights, counted if mean else torch.ones(n, dtype=torch.float64))


@pytest.mark.parametrize("index", [-100, -1, 255])
def test_examples_that_the_loss_ignores_have_no_labels_of_their_own(index: int) -> None:
    torch.manual_seed(0)
    targets = torch.arange(12) % 3
    targets[::4] = index

    def loss(outputs: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(outputs, wanted, ignore_index=index, reduction="none")

    data = Examples(torch.randn(12, 4).double(), targets)
    context = context_of(nn.Linear(4, 3), data, data[1:2], loss, loss)
    draws = labelled(context, context.checkpoints[0], own=True)
    total = torch.stack([draw.weights for draw in draws]).sum(0)
    torch.testing.assert_close(total, (targets != index).double())


def test_labels_that_count_are_not_mistaken_for_ignored_ones_where_the_model_is_certain() -> None:
    """The gradient at the outputs of such a position is zero; the mean still is over all positions."""
    data = Examples(torch.ones(4, 3, dtype=torch.int64), torch.ones(4, 3, dtype=torch.int64))
    loss = ignoring(-100, mean=True)
    context = context_of(nn.Sequential(nn.Embedding(2, 2), nn.Linear(2, 2)), data, data[:1], loss, loss)
    checkpoint = context.checkpoints[0]
    checkpoint.parameters["1.bias"].copy_(torch.tensor([-500.0, 500.0]))
    (draw,) = labelled(context, checkpoint, own=True)
    assert draw.weights.tolist() == [2.0] * 4
    assert torch.equal(draw.examples.targets, data.targets)
