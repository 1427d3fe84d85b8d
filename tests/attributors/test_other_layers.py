"""Every method on convolutions with batch norm and on GPT-2's architecture, against dense float64 linear algebra."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from dense import REGISTRY, assert_rows_close, attribute
from other_layers import PROBLEMS, context_of, convolutions, flat, language_model, one_by_one, token_loss
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import normalize

from attriboard.attributors import logra
from attriboard.attributors.ekfac import EKFAC
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import eigenbasis, factored
from attriboard.toolkit import gradients as gradients_module
from attriboard.toolkit import held as held_module
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import per_example_gradients
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layerwise import matrix_layers, second_moments
from attriboard.toolkit.projection import FourierProjection

Make = Callable[[], Context]
λ = 1e-2

MATRIX_LAYERS = {
    "convolutions": ["first", "second", "head"],
    "language_model": [
        f"gpt2.transformer.h.0.{part}" for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    ],
}

SETTINGS: dict[str, dict[str, Any]] = {
    "embedding_similarity": {},
    "input_similarity": {},
    "grad_dot": {},
    "grad_cos": {},
    "tracin": {"projection_dim": 30},
    "iffim": {"regularization": λ},
    "trak": {"regularization": λ, "checkpoints": 1, "projection_dim": 40},
    "logra": {"regularization": λ, "projection_dim": 9},
    "ekfac": {"regularization": λ},
    "datainf": {"regularization": λ},
    "if_cg": {"regularization": 5.0, "max_iterations": 4},
    "if_lissa": {"batch_size": 24, "recursion_depth": 3, "scaling": 1e3},
    "if_arnoldi": {"regularization": λ, "max_iterations": 4},
}


@cache
def gradients(make: Make) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Of the training losses and of f, by parameter."""
    context = make()
    return one_by_one(context, context.loss, context.train), one_by_one(context, context.target, context.test)


def solved(train: Tensor, test: Tensor, regularization: float = λ) -> Tensor:
    """−g' (F + λI)⁻¹ Gᵀ."""
    fisher = train.T @ train / len(train) + regularization * torch.eye(train.shape[1], dtype=torch.float64)
    return -test @ torch.linalg.solve(fisher, train.T)


def matrices(side: dict[str, Tensor], layer: str) -> Tensor:
    """Gradients (n, d_out, d_in) of a matrix layer, the bias as last column, whatever the weight's layout."""
    weight = side[f"{layer}.weight"]
    weight = weight.transpose(1, 2) if ".c_" in layer else weight.flatten(2)
    return torch.cat([weight, side[f"{layer}.bias"][:, :, None]], 2) if f"{layer}.bias" in side else weight


@pytest.mark.parametrize("make", PROBLEMS)
def test_kernel_methods_solve_the_dense_system(make: Make) -> None:
    context = make()
    G, g = (flat(side) for side in gradients(make))
    assert_rows_close(attribute("iffim", context, regularization=λ), solved(G, g))
    assert_rows_close(attribute("iffim", context, regularization=λ, projection_dim=G.shape[1]), solved(G, g))
    phi = flat(one_by_one(context, context.margin, context.train))
    state = {**context.checkpoints[0].parameters, **context.checkpoints[0].buffers}
    margins = context.margin(functional_call(context.model, state, (context.train.inputs,)), context.train.targets)
    values = {"checkpoints": 1, "checkpoint_data": "full", "projection_dim": None}
    assert_rows_close(attribute("trak", context, regularization=λ, **values), -solved(phi, g) * torch.sigmoid(-margins))


@pytest.mark.parametrize("make", PROBLEMS)
def test_projections_are_their_dense_twins(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same numbers from blocks of gradients as from a written-out n_params × d_proj matrix."""
    monkeypatch.setattr(gradients_module, "GRADIENT_BYTES", 30_000)
    G, g = (flat(side) for side in gradients(make))
    P = FourierProjection(G.shape[1], 20, (0, 0))(torch.eye(G.shape[1], dtype=torch.float64))
    assert_rows_close(attribute("iffim", make(), regularization=λ, projection_dim=20), solved(G @ P, g @ P))


@pytest.mark.parametrize("make", PROBLEMS)
def test_similarities_are_dense_inner_products(make: Make) -> None:
    context = make()
    G, g = (flat(side) for side in gradients(make))
    assert_rows_close(attribute("grad_dot", context), -g @ G.T)
    assert_rows_close(attribute("tracin", context), -g @ G.T)
    assert_rows_close(attribute("grad_cos", context), -normalize(g) @ normalize(G).T)


@pytest.mark.parametrize("make", PROBLEMS)
def test_datainf_has_a_block_for_every_module(make: Make) -> None:
    """A tied embedding is one: its first module's."""
    train, test = gradients(make)
    expected = torch.zeros(len(flat(test)), len(flat(train)), dtype=torch.float64)
    for module in {name.rpartition(".")[0] for name in train}:
        G, g = (flat({n: v for n, v in side.items() if n.rpartition(".")[0] == module}) for side in (train, test))
        inverses = [torch.linalg.inv(torch.outer(row, row) + λ * torch.eye(len(row)).double()) for row in G]
        expected -= g @ torch.stack(inverses).mean(0) @ G.T
    assert_rows_close(attribute("datainf", make(), regularization=λ), expected, 1e-5)


@pytest.mark.parametrize("make", PROBLEMS)
def test_matrix_layers_are_linear_layers_convolutions_and_transposed_ones(make: Make) -> None:
    context = make()
    assert list(matrix_layers(context, context.checkpoints[0])) == MATRIX_LAYERS[make.__name__]


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("room", [2**31, 10_000])
def test_logra_without_projection_is_the_dense_block_diagonal(
    make: Make, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_module, "DENSE_BYTES", room)
    monkeypatch.setattr(held_module, "HELD_BYTES", room)
    sides = gradients(make)
    expected = sum(
        solved(*(matrices(side, layer).flatten(1) for side in sides)) for layer in MATRIX_LAYERS[make.__name__]
    )
    assert_rows_close(attribute("logra", make(), regularization=λ, projection_dim=None), expected)


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("initialization", ["random", "pca"])
def test_logra_projects_both_sides_of_every_position(make: Make, initialization: str) -> None:
    context, sides = make(), gradients(make)
    projections = logra.draw_projections(context, context.checkpoints[0], 2, initialization, stream=0)
    expected = torch.zeros(len(context.test), len(context.train), dtype=torch.float64)
    for layer in MATRIX_LAYERS[make.__name__]:
        P_i, P_o = projections[layer]
        assert P_i is not None
        assert P_o is not None
        expected += solved(*((P_o.T @ matrices(side, layer) @ P_i).flatten(1) for side in sides))
    scores = attribute("logra", context, regularization=λ, projection_dim=4, initialization=initialization)
    assert_rows_close(scores, expected)


GRADIENTS_KEPT = {"kept": (2**30, 2**30, 2**30), "made again": (0, 2**30, 2**30), "piece by piece": (0, 1, 300_000)}
"""Memory for what is kept, for test gradients that are held, and for a chunk of gradients."""


@pytest.fixture(params=GRADIENTS_KEPT.values(), ids=GRADIENTS_KEPT)
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory for gradients in Kronecker eigenbases; at the least, for one test point and a few examples at a time."""
    kept, held, chunk = request.param
    monkeypatch.setattr(eigenbasis, "KEPT_BYTES", kept)
    monkeypatch.setattr(held_module, "held_bytes", lambda context: held)
    monkeypatch.setattr(factored, "GRADIENT_BYTES", chunk)
    monkeypatch.setattr(held_module, "JOINED_ROWS", 7)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_ekfac_is_the_dense_kronecker_eigenbasis(make: Make, fisher: str) -> None:
    """Λ is made of whole gradients, of sampled labels too; only the eigenbasis sees positions."""
    context, (train, test) = make(), gradients(make)
    checkpoint, layers = context.checkpoints[0], MATRIX_LAYERS[make.__name__]
    draws = labelled(context, checkpoint, own=fisher == "true")
    moments = second_moments(context, checkpoint, draws, layers)
    sampled = [(draw.weights, one_by_one(context, context.loss, draw.examples)) for draw in draws]
    expected = torch.zeros(len(context.test), len(context.train), dtype=torch.float64)
    for layer in layers:
        A, S = moments[layer]
        U = torch.kron(torch.linalg.eigh(S)[1], torch.linalg.eigh(A)[1])
        Λ = sum((w[:, None] * (matrices(one, layer).flatten(1) @ U).square()).mean(0) for w, one in sampled)
        G, g = (matrices(side, layer).flatten(1) @ U for side in (train, test))
        expected -= g / (Λ + λ) @ G.T
    assert_rows_close(attribute("ekfac", context, regularization=λ, fisher=fisher), expected)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_ekfac_spectrum_is_that_of_its_eigenbasis_and_the_training_gradients(make: Make, fisher: str) -> None:
    """Its coefficients are of the training gradients, whatever labels the eigenvalues are of."""
    context, (train, test) = make(), gradients(make)
    state = EKFAC().fit(context, checkpoints=1, epoch=None, fisher=fisher)
    (found,) = EKFAC().spectrum(state) or []
    eigenvalues, squares = [], []
    for name, layer in state.models[0].layers.items():
        U_A, U_S = layer.basis.inputs, layer.basis.deltas
        v, own = (U_A.T @ matrices(side, name).transpose(1, 2) @ U_S for side in (test, train))
        eigenvalues.append(layer.curvature.corrected.flatten())
        squares.append((len(own) * own.square().mean(0) * v.square()).flatten(1))
    Λ, c2 = torch.cat(eigenvalues), torch.cat(squares, 1)
    for value in (1e-6, 1e-2):
        expected = (c2 / (Λ + value) ** 2 * (Λ > 0)).sum(1)
        torch.testing.assert_close(found.moment(2, value), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("method", ["kfac", "shampoo"])
@pytest.mark.parametrize("fisher", ["true", "empirical"])
def test_kronecker_methods_do_not_depend_on_chunks(
    make: Make, method: str, fisher: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {"fisher": fisher, "regularization": λ}
    expected = attribute(method, make(), **values).double()
    monkeypatch.setattr(eigenbasis, "KEPT_BYTES", 0)
    monkeypatch.setattr(held_module, "held_bytes", lambda context: 1)
    monkeypatch.setattr(factored, "GRADIENT_BYTES", 300_000)
    monkeypatch.setattr(held_module, "JOINED_ROWS", 7)
    assert_rows_close(attribute(method, make(), **values), expected, 1e-4)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("make", PROBLEMS)
def test_conjugate_gradients_start_from_ekfac_whatever_is_kept(make: Make) -> None:
    context = make()
    expected = attribute("ekfac", context, regularization=λ).double()
    assert_rows_close(attribute("ekfac_cg", context, regularization=λ, max_iterations=0), expected, 1e-4)


@pytest.mark.parametrize("make", PROBLEMS)
def test_second_moments_are_sums_over_positions(make: Make) -> None:
    """By hooks of the test's own."""
    context = make()
    checkpoint, layers = context.checkpoints[0], MATRIX_LAYERS[make.__name__]
    seen: dict[str, Tensor] = {}
    handles = [
        context.model.get_submodule(name).register_forward_pre_hook(lambda _, x, name=name: seen.update({name: x[0]}))
        for name in layers
    ]
    functional_call(context.model, {**checkpoint.parameters, **checkpoint.buffers}, (context.train.inputs,))
    for handle in handles:
        handle.remove()
    moments = second_moments(context, checkpoint, labelled(context, checkpoint, own=False), layers)
    for name in layers:
        module, x = context.model.get_submodule(name), seen[name]
        if isinstance(module, nn.Conv2d):
            x = nn.functional.unfold(x, module.kernel_size, padding=module.padding, stride=module.stride).transpose(
                1, 2
            )
        x = x.flatten(0, -2)
        if getattr(module, "bias", None) is not None:
            x = nn.functional.pad(x, (0, 1), value=1.0)
        torch.testing.assert_close(moments[name][0], x.T @ x / len(context.train), rtol=1e-9, atol=1e-12)


def test_drawn_labels_give_the_gauss_newton_matrix_of_the_mean_loss() -> None:
    """Of one block many times over: E[m ∇L ∇Lᵀ] = Σ_t Jᵀ (diag p − ppᵀ) J / m."""
    torch.manual_seed(0)
    block = torch.randint(4, (1, 5)).expand(4000, 5)
    data = Examples(block, block)
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    context = context_of(model, data, data[:1], token_loss, token_loss)
    checkpoint = context.checkpoints[0]
    (draw,) = labelled(context, checkpoint, own=True)
    assert draw.weights.unique().tolist() == pytest.approx([4.0])
    sampled = torch.cat(list(per_example_gradients(context, checkpoint, token_loss, draw.examples)))[:, 12:]
    hidden = checkpoint.parameters["0.weight"][block[0, :-1]]
    p = (hidden @ checkpoint.parameters["1.weight"].T).softmax(1)
    exact = sum(
        torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(h, h)) / 4 for q, h in zip(p, hidden, strict=True)
    )
    assert isinstance(exact, Tensor)
    estimate = 4 * sampled.T @ sampled / len(sampled)
    assert float((estimate - exact).norm() / exact.norm()) < 0.05


def test_drawn_labels_need_a_mean_of_log_likelihoods() -> None:
    context = language_model()
    squared = replace(context, loss=lambda outputs, targets: token_loss(outputs, targets).square())
    with pytest.raises(NotApplicableError, match="fisher = true: the loss must be a sum or mean of −log p"):
        attribute("ekfac", squared)


@pytest.mark.parametrize("make", PROBLEMS)
def test_hessian_products_are_those_of_second_backward_passes(make: Make) -> None:
    context = make()
    checkpoint = context.checkpoints[0]
    parameters = {name: value.clone().requires_grad_() for name, value in checkpoint.parameters.items()}
    ordered = [parameters[name] for name, _ in context.model.named_parameters()]
    outputs = functional_call(context.model, {**checkpoint.buffers, **parameters}, (context.train.inputs,))
    slopes = torch.autograd.grad(context.loss(outputs, context.train.targets).mean(), ordered, create_graph=True)
    gradient = torch.cat([slope.flatten() for slope in slopes])
    directions = torch.randn(3, len(gradient), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.stack(
        [
            torch.cat([row.flatten() for row in torch.autograd.grad(gradient @ x, ordered, retain_graph=True)])
            for x in directions
        ]
    )
    G = flat(gradients(make)[0])
    for memory_bytes in (2**29, 10_000):
        curved, products = TrainingLoss(context, checkpoint, memory_bytes=memory_bytes).products(directions)
        torch.testing.assert_close(curved, expected, rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(products, directions @ G.T, rtol=1e-8, atol=1e-10)


def test_bags_of_tokens_are_compared() -> None:
    context = language_model()
    train, test = (nn.functional.one_hot(side.inputs, 11).sum(1).double() for side in (context.train, context.test))
    mean = train.mean(0)
    expected = normalize(test - mean) @ normalize(train - mean).T
    assert_rows_close(attribute("input_similarity", context), expected)
    shuffled = context.test.inputs.flip(1)
    moved = replace(context, test=Examples(shuffled, shuffled))
    assert_rows_close(attribute("input_similarity", moved), expected)


@pytest.mark.parametrize("make", PROBLEMS)
@pytest.mark.parametrize("name", SETTINGS)
def test_scores_follow_examples_and_not_chunks(name: str, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    context = make()
    expected = attribute(name, context, **SETTINGS[name])
    if name != "ekfac" or make is convolutions:  # which draws labels by position
        order = torch.randperm(len(context.train), generator=torch.Generator().manual_seed(1))
        permuted = replace(context, train=context.train[order])
        assert_rows_close(attribute(name, permuted, **SETTINGS[name]), expected[:, order], 1e-4)
    monkeypatch.setattr(gradients_module, "GRADIENT_BYTES", 30_000)
    monkeypatch.setattr(held_module, "DENSE_BYTES", 80_000)
    monkeypatch.setattr(held_module, "HELD_BYTES", 80_000)
    monkeypatch.setattr(TrainingLoss.__init__, "__kwdefaults__", {"rows": 10, "memory_bytes": 2**20})
    assert_rows_close(attribute(name, context, **SETTINGS[name]), expected, 1e-4)


@pytest.mark.parametrize("name", ["ekfac", "logra"])
def test_a_diverged_model_is_called_so(name: str) -> None:
    context = convolutions()
    broken = {key: value * torch.nan for key, value in context.checkpoints[0].parameters.items()}
    diverged = replace(context, checkpoints=(replace(context.checkpoints[0], parameters=broken),))
    with pytest.raises(NotApplicableError, match="not finite: the model diverged"):
        attribute(name, diverged)


@pytest.mark.parametrize("make", PROBLEMS)
def test_notes_say_what_is_left_out(make: Make) -> None:
    for name in ("ekfac", "logra"):
        method = REGISTRY.load(name)
        attributor = method()
        (note,) = attributor.notes(attributor.fit(make(), **method.stage(method.configure({}), "fit")))
        assert "layers that are not one matrix product: " + ("first_norm" if make is convolutions else "gpt2.") in note
