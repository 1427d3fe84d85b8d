"""K-FAC, Shampoo, CG and ASTRA on EK-FAC, TrackStar and FactGraSS against matrices written out in float64."""

from dataclasses import replace

import pytest
import torch
from dense import (
    assert_rows_close,
    attribute,
    class_draws,
    dense_gauss_newton,
    dense_gradients,
    dense_layers,
    fitted,
    flat_parameters,
    layer_inputs,
    unflatten,
    with_model,
)
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev

from attriboard.attributors.astra import Descent
from attriboard.attributors.ekfac import ekfac_blocks
from attriboard.attributors.factgrass import draw
from attriboard.attributors.trackstar import agreeing
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.batches import BatchLosses, FunctionalBatch, PerceptronBatch
from attriboard.toolkit.damped import fit_damped
from attriboard.toolkit.kronecker import gradient_moments
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layerwise import matrix_layers, matrix_layout


def dense_curvature(context: Context, method: str, fisher: str, batch_size: int = 32) -> list[Tensor]:
    """Every layer's curvature (d_out · d_in, d_out · d_in), Kronecker products written out."""
    found = []
    for number, a in enumerate(layer_inputs(context)):
        draws = [(p, layers[number]) for p, layers in class_draws(context, fisher)]
        n = len(a)
        if method == "kfac":
            deltas = [(p, torch.einsum("noi,ni->no", G, a) / a.square().sum(1, keepdim=True)) for p, G in draws]
            S = sum(torch.einsum("n,no,nq->oq", p, d, d) / n for p, d in deltas)
            found.append(torch.kron(S, a.T @ a / n))
            continue
        mean = sum(torch.einsum("n,noi->oi", p, G) / n for p, G in draws)
        L = sum(torch.einsum("n,noi,nqi->oq", p, G, G) / n for p, G in draws)
        R = sum(torch.einsum("n,noi,noj->ij", p, G, G) / n for p, G in draws)
        L, R = (M / batch_size + (1 - 1 / batch_size) * m for M, m in ((L, mean @ mean.T), (R, mean.T @ mean)))
        U = torch.kron(torch.linalg.eigh(L)[1], torch.linalg.eigh(R)[1])
        Λ = sum((p[:, None] * (G.flatten(1) @ U).square()).sum(0) / n for p, G in draws)
        found.append(U @ torch.diag(Λ) @ U.T)
    return found


def layerwise_scores(context: Context, curvature: list[Tensor], damping: float | None) -> Tensor:
    train, test = (
        dense_layers(context, *side) for side in ((context.loss, context.train), (context.target, context.test))
    )
    total = torch.zeros(len(context.test), len(context.train), dtype=torch.float64)
    for G, g, C in zip(train, test, curvature, strict=True):
        λ = 0.1 * float(C.trace()) / len(C) if damping is None else damping
        total -= g.flatten(1) @ torch.linalg.solve(C + λ * torch.eye(len(C)), G.flatten(1).T)
    return total


@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize("method", ["kfac", "shampoo"])
def test_kfac_and_shampoo_are_their_kronecker_products(double_context: Context, method: str, fisher: str) -> None:
    score = fitted(method, double_context, fisher=fisher)
    curvature = dense_curvature(double_context, method, fisher)
    for damping in (None, 1e-4, 1e-2):
        assert_rows_close(score(regularization=damping), layerwise_scores(double_context, curvature, damping), 1e-5)


def test_kfac_is_divided_by_positions() -> None:
    """With the same inputs and δ at every position K-FAC has T (a aᵀ) ⊗ (δ δᵀ): A and S are sums over positions."""
    T = 3
    inputs = torch.randn(5, 1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).expand(5, T, 4)
    context = Context(
        train=Examples(inputs, torch.arange(5)),
        test=Examples(inputs, torch.arange(5)),
        model=nn.Sequential(nn.Linear(4, 2, bias=False)).double().eval().requires_grad_(False),
        checkpoints=(Checkpoint({"0.weight": torch.ones(2, 4, dtype=torch.float64)}, epoch=1, seed=0),),
        loss=lambda outputs, targets: outputs.sum((1, 2)),
        margin=lambda outputs, targets: outputs.sum((1, 2)),
        target=lambda outputs, targets: outputs.sum((1, 2)),
    )
    a = inputs[:, 0]
    F = T * torch.kron(torch.ones(2, 2), a.T @ a / 5)
    G = T * torch.cat([a, a], 1)
    expected = -G @ torch.linalg.solve(F + 0.1 * torch.eye(8), G.T)
    assert_rows_close(attribute("kfac", context, fisher="empirical", regularization=0.1), expected, 1e-5)


def test_gradient_moments_of_convolutions_are_those_of_whole_gradients(double_context: Context) -> None:
    model = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 2, 5), nn.Flatten(), nn.Linear(32, 10))
    context = with_model(double_context, model, epochs=1)
    draws = labelled(context, context.checkpoints[0], own=False)
    moments = gradient_moments(context, context.checkpoints[0], draws, {"1": 0, "3": 0})
    flat = dense_gradients(context, context.checkpoints[0], context.loss, context.train)
    weight, bias, last, last_bias = flat.split([50, 2, 320, 10], 1)
    layers = [
        torch.cat([weight.view(-1, 2, 25), bias[:, :, None]], 2),
        torch.cat([last.view(-1, 10, 32), last_bias[:, :, None]], 2),
    ]
    for (L, R, mean), G in zip(moments.values(), layers, strict=True):
        torch.testing.assert_close(L, torch.einsum("noi,nqi->oq", G, G) / len(G))
        torch.testing.assert_close(R, torch.einsum("noi,noj->ij", G, G) / len(G))
        torch.testing.assert_close(mean, G.mean(0))


def test_shampoos_batch_does_not_matter_with_the_models_own_labels(double_context: Context) -> None:
    one, many = (attribute("shampoo", double_context, fisher="true", batch_size=size) for size in (1, 1024))
    assert_rows_close(one, many, 1e-4)


@pytest.mark.parametrize("kind", ["perceptron", "without biases", "any"])
def test_derivatives_of_batches_are_the_dense_ones(double_context: Context, kind: str) -> None:
    torch.manual_seed(0)
    layers = {
        "perceptron": (nn.Linear(64, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 10)),
        "without biases": (nn.Linear(64, 5, bias=False), nn.ReLU(), nn.Linear(5, 10)),
        "any": (nn.Linear(64, 5), nn.Tanh(), nn.Linear(5, 10)),
    }
    context = with_model(double_context, nn.Sequential(*layers[kind]), epochs=3)
    checkpoint, examples = context.checkpoints[0], context.train[:7]
    batch = BatchLosses(context, checkpoint).at(checkpoint.parameters, examples)
    assert isinstance(batch, FunctionalBatch if kind == "any" else PerceptronBatch)
    X = torch.randn(3, len(flat_parameters(context, checkpoint)), dtype=torch.float64)
    named = [unflatten(context, row) for row in X]
    directions = {name: torch.stack([one[name] for one in named]) for name in named[0]}
    G = dense_gradients(context, checkpoint, context.loss, examples)

    def added(method: str, *args: object) -> tuple[Tensor, Tensor | None]:
        into = {name: torch.ones_like(value) for name, value in directions.items()}
        slopes = getattr(batch, method)(*args, into, 0.5)
        return torch.cat([into[name].flatten(1) - 1 for name in context.attributed], 1), slopes

    def total(flat: Tensor) -> Tensor:
        outputs = functional_call(context.model, unflatten(context, flat), (examples.inputs,))
        return context.loss(outputs, examples.targets).sum()

    torch.testing.assert_close(batch.slopes(directions), X @ G.T)
    w = torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(added("add_combination", w)[0], 0.5 * w @ G)
    H = jacrev(grad(total))(flat_parameters(context, checkpoint))
    C = 7 * dense_gauss_newton(context, examples)
    for method, matrix in (("add_hessian", H), ("add_gauss_newton", C)):
        found, slopes = added(method, directions)
        torch.testing.assert_close(found, 0.5 * X @ matrix)
        torch.testing.assert_close(slopes, X @ G.T)


@pytest.fixture(scope="module")
def damped(double_context: Context) -> tuple[Context, Tensor]:
    """A small network, and its scores with the damped Gauss–Newton matrix written out at λ = 0.05."""
    torch.manual_seed(0)
    context = with_model(double_context, nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 10)), epochs=40)
    C = dense_gauss_newton(context, context.train)
    G = dense_gradients(context, context.checkpoints[0], context.loss, context.train)
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    return context, -g @ torch.linalg.solve(C + 0.05 * torch.eye(len(C)), G.T)


def test_conjugate_gradients_converge_to_the_damped_solution(damped: tuple[Context, Tensor]) -> None:
    context, expected = damped
    scores = attribute("ekfac_cg", context, regularization=0.05, max_iterations=200, tolerance=0.0)
    assert_rows_close(scores, expected, 1e-5)
    few = attribute("ekfac_cg", context, regularization=0.05, max_iterations=5)
    start = attribute("ekfac_cg", context, regularization=0.05, max_iterations=0)
    assert_rows_close(start, attribute("ekfac", context, regularization=0.05), 1e-6)
    assert (few - expected).norm() < 0.3 * (start - expected).norm()


def test_astra_with_all_examples_converges_to_the_damped_solution(damped: tuple[Context, Tensor]) -> None:
    context, expected = damped
    values = {"batch_size": len(context.train), "max_iterations": 800}
    assert_rows_close(attribute("astra", context, regularization=0.05, **values), expected, 1e-5)


@pytest.mark.parametrize(("regularization", "batch_size"), [(0.05, 16), (0.05, 2), (1e-4, 16), (1e-4, 2)])
def test_astras_default_is_stable_and_comes_nearer_to_the_damped_solution(
    damped: tuple[Context, Tensor], regularization: float, batch_size: int
) -> None:
    """In the norm of the quadratic, which the steps lower."""
    context, _ = damped
    λ = regularization
    C = dense_gauss_newton(context, context.train)
    A = C + λ * torch.eye(len(C))
    G = dense_gradients(context, context.checkpoints[0], context.loss, context.train)
    g = dense_gradients(context, context.checkpoints[0], context.target, context.test)
    expected = -g @ torch.linalg.solve(A, G.T)
    start = attribute("ekfac", context, regularization=λ)
    scores = attribute("astra", context, regularization=λ, batch_size=batch_size)
    assert (scores - expected).norm() < 0.7 * (start - expected).norm()
    wild = attribute("astra", context, regularization=λ, batch_size=batch_size, learning_rate=3.0)
    assert not (wild - expected).norm() < (start - expected).norm()


def test_astras_largest_eigenvalue_is_that_of_the_preconditioned_matrix(damped: tuple[Context, Tensor]) -> None:
    context, _ = damped
    sizes = matrix_layers(context, context.checkpoints[0])
    blocks = ekfac_blocks(context, context.checkpoints[0], sizes, "true")
    curvature = fit_damped(context, context.checkpoints[0], sizes, blocks)
    rows = torch.arange(len(context.train))[None]
    solver = Descent(curvature, rows, None, 0.9, seed=0)
    damping, inverse = curvature.damping(0.05), curvature.preconditioner(0.05)
    n = sum(value.numel() for value in inverse.values())
    pieces = torch.eye(n, dtype=curvature.losses.dtype).split([value.numel() for value in inverse.values()], 1)
    unit = {name: one.view(n, *inverse[name].shape) for name, one in zip(inverse, pieces, strict=True)}
    product = curvature.product({name: x * inverse[name].sqrt() for name, x in unit.items()}, context.train, damping)
    M = torch.cat([(product[name] * inverse[name].sqrt()).flatten(1) for name in inverse], 1)
    expected = float(torch.linalg.eigvalsh((M + M.T) / 2)[-1])
    assert 0.9 * expected < solver.largest_eigenvalue(damping, inverse) <= expected * (1 + 1e-6)


def test_a_batch_of_the_curvature_is_drawn_from_the_training_examples(damped: tuple[Context, Tensor]) -> None:
    context, expected = damped
    whole = attribute("ekfac_cg", context, regularization=0.05, batch_size=len(context.train), max_iterations=50)
    assert_rows_close(whole, expected, 1e-4)
    part = attribute("ekfac_cg", context, regularization=0.05, batch_size=20, max_iterations=50)
    assert not torch.allclose(part, whole, rtol=1e-2)


def test_layers_make_up_parameters_and_come_back(double_context: Context) -> None:
    grouped = (nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(48, 10))
    context = with_model(double_context, nn.Sequential(nn.Unflatten(1, (2, 4, 8)), *grouped), epochs=1)
    sizes = matrix_layers(context, context.checkpoints[0])
    layout = matrix_layout(context, context.checkpoints[0], sizes)
    layers = {name: torch.randn(2, d_out, d_in) for name, (d_in, d_out) in sizes.items()}
    parameters = layout.parameters(layers)
    assert {name: value.shape[1:] for name, value in parameters.items()} == {
        name: value.shape for name, value in context.model.named_parameters()
    }
    for name, value in layout.layers(parameters).items():
        torch.testing.assert_close(value, layers[name])


@pytest.mark.parametrize("mixing", [0.0, 0.4, None])
def test_trackstar_is_its_definition(double_context: Context, mixing: float | None) -> None:
    context = double_context
    train, test = (
        [layer.flatten(1) for layer in dense_layers(context, *side)]
        for side in ((context.loss, context.train), (context.target, context.test))
    )
    sides: list[list[Tensor]] = [[], []]
    for G, g in zip(train, test, strict=True):
        query, corpus = g.T @ g / len(g), G.T @ G / len(G)
        m = agreeing(*(torch.linalg.eigvalsh(one).flip(0) for one in (query, corpus))) if mixing is None else mixing
        values, vectors = torch.linalg.eigh(m * query + (1 - m) * corpus + 1e-3 * torch.eye(G.shape[1]))
        root = vectors @ torch.diag(values.rsqrt()) @ vectors.T
        sides[0].append(g @ root)
        sides[1].append(G @ root)
    φ_test, φ_train = (nn.functional.normalize(torch.cat(side, 1)) for side in sides)
    scores = attribute("trackstar", context, regularization=1e-3, mixing=mixing, projection_dim=None)
    assert_rows_close(scores, -φ_test @ φ_train.T, 1e-5)


def test_the_papers_mixing_makes_eigenvalues_agree() -> None:
    query, corpus = torch.tensor([4.0, 3.0, 0.0]), torch.tensor([2.0, 1.0, 0.5])
    m = agreeing(query, corpus)
    assert m * 3.0 == pytest.approx((1 - m) * 1.0)


def test_factgrass_without_hashing_is_logra_without_projection(double_context: Context) -> None:
    values = {"projection_dim": None, "regularization": 1e-2}
    assert_rows_close(attribute("factgrass", double_context, **values), attribute("logra", double_context, **values))


def test_factgrass_is_its_sketch_written_out(double_context: Context) -> None:
    context, generator = double_context, torch.Generator().manual_seed(double_context.seed)
    expected = torch.zeros(len(context.test), len(context.train), dtype=torch.float64)
    train = dense_layers(context, context.loss, context.train)
    test = dense_layers(context, context.target, context.test)
    for G, g in zip(train, test, strict=True):
        d_out, d_in = G.shape[1:]
        sketch = draw((d_in, d_out), 16, 4, generator)
        rows = torch.arange(d_out) if sketch.deltas is None else sketch.deltas
        columns = torch.arange(d_in) if sketch.inputs is None else sketch.inputs
        S = torch.zeros(len(rows) * len(columns), sketch.dimension, dtype=torch.float64)
        assert sketch.buckets is not None
        assert sketch.signs is not None
        S[torch.arange(len(S)), sketch.buckets] = sketch.signs.double()
        Φ, φ = (sketch.scale * side[:, rows][:, :, columns].flatten(1) @ S for side in (G, g))
        F = Φ.T @ Φ / len(Φ) + 1e-3 * torch.eye(16)
        expected -= φ @ torch.linalg.solve(F, Φ.T)
    scores = attribute("factgrass", context, projection_dim=16, regularization=1e-3)
    assert_rows_close(scores, expected, 1e-5)


def test_factgrass_keeps_inner_products_in_expectation(double_context: Context) -> None:
    """At a large λ scores are inner products over λ."""
    exact = attribute("factgrass", double_context, projection_dim=None, regularization=1e4)
    draws = [
        attribute("factgrass", replace(double_context, seed=seed), projection_dim=64, regularization=1e4)
        for seed in range(40)
    ]
    of_one = torch.stack([(one - exact).norm() for one in draws]).mean()
    assert (torch.stack(draws).mean(0) - exact).norm() < 0.3 * of_one
