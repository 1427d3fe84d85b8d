"""Influence functions with the Hessian, and DataInf, against dense float64 linear algebra."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from dense import (
    assert_proportional,
    assert_rows_close,
    attribute,
    dense_gradients,
    dense_hessian,
    fitted,
    without_factors,
)
from torch import Tensor

from attriboard.attributors.if_explicit import Decomposition, IFExplicit
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import gradients, krylov, memory
from attriboard.toolkit.curvature import TrainingLoss

# Above the size of the Hessian's most negative eigenvalue (0.09): H + λI is positive definite.
DEFINITE = 0.2

FULL_BATCH = {"batch_size": 60, "scaling": 10.0, "regularization": 1.0}


@pytest.fixture(scope="module")
def dense(double_context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """G (n_train, n_params), g' (n_test, n_params), H, at the full-data model."""
    checkpoint = double_context.select_checkpoints()[0]
    return (
        dense_gradients(double_context, checkpoint, double_context.loss, double_context.train),
        dense_gradients(double_context, checkpoint, double_context.target, double_context.test),
        dense_hessian(double_context, checkpoint, double_context.train),
    )


def solved(dense: tuple[Tensor, Tensor, Tensor], regularization: float) -> Tensor:
    G, g, H = dense
    return -g @ torch.linalg.solve(H + regularization * torch.eye(len(H), dtype=H.dtype), G.T)


def test_products_are_those_of_the_dense_matrices(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    G, g, H = dense
    checkpoint = double_context.select_checkpoints()[0]
    directions = torch.randn(7, len(H), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for rows, memory_bytes in ((1024, 2**29), (7, 1), (13, 2**18)):
        loss = TrainingLoss(double_context, checkpoint, rows=rows, memory_bytes=memory_bytes)
        curved, slopes = loss.products(directions)
        torch.testing.assert_close(curved, directions @ H, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(slopes, directions @ G.T, rtol=1e-10, atol=1e-12)
        test_slopes = loss.slopes(double_context.target, double_context.test, directions)
        torch.testing.assert_close(test_slopes, directions @ g.T, rtol=1e-10, atol=1e-12)


def test_products_of_a_batch_are_means_over_it(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    batch = double_context.train[torch.tensor([5, 2, 40])]
    H, loss = dense_hessian(double_context, checkpoint, batch), TrainingLoss(double_context, checkpoint)
    directions = torch.eye(len(H), dtype=torch.float64)[:9]
    torch.testing.assert_close(loss.products(directions, batch)[0], H[:9], rtol=1e-10, atol=1e-12)


def test_explicit_solves_the_dense_system_even_where_it_is_indefinite(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    score = fitted("if_explicit", double_context)
    for regularization in (1e-3, 0.05, DEFINITE, 100.0):
        assert_rows_close(score(regularization=regularization), solved(dense, regularization))


@pytest.mark.parametrize(
    ("regularization", "inverses"),
    [(0.0, [-0.5, 0.0, 0.0, 1.0, 0.25]), (2.0, [0.0, 0.5, 0.5, 1 / 3, 1 / 6]), (1.0, [-1.0, 1.0, 1.0, 0.5, 0.2])],
)
def test_explicit_leaves_out_directions_in_which_nothing_is_left_to_invert(
    regularization: float, inverses: list[float]
) -> None:
    eigenvalues = torch.tensor([-2.0, 0.0, 1e-17, 1.0, 4.0], dtype=torch.float64)
    identity = torch.eye(5, dtype=torch.float64)
    scores = Decomposition(eigenvalues, identity, identity).scores(regularization)
    torch.testing.assert_close(-scores, torch.tensor(inverses, dtype=torch.float64).diag())


def test_explicit_names_the_memory_that_a_large_model_lacks(context: Context) -> None:
    layer = torch.nn.Linear(109_386, 1, bias=False, device="meta")
    large = replace(context, model=layer, checkpoints=(Checkpoint(dict(layer.named_parameters()), epoch=1, seed=0),))
    with pytest.raises(
        MemoryError, match=r"needs 28\d\.\d GB \(the Hessian of 109,386 parameters in float64 95\.7 GB, "
    ):
        memory.require_memory(IFExplicit().memory_need(large, checkpoints=1, epoch=None), limit=2**34)


def test_explicit_refuses_the_hessian_of_a_diverged_model(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    broken = {name: value * torch.nan for name, value in checkpoint.parameters.items()}
    diverged = replace(double_context, checkpoints=(replace(checkpoint, parameters=broken),))
    with pytest.raises(NotApplicableError, match="not finite"):
        attribute("if_explicit", diverged)


def plain_cg(H: Tensor, b: Tensor, iterations: int, tolerance: float) -> Tensor:
    """One right-hand side, as in textbooks; stops before a direction of non-positive curvature."""
    x, r = torch.zeros_like(b), b.clone()
    p = r.clone()
    for step in range(iterations):
        curved = H @ p
        if p @ curved <= 0:
            return x if step else b
        length = (r @ r) / (p @ curved)
        x, following = x + length * p, r - length * curved
        if following.norm() <= tolerance * b.norm():
            return x
        p, r = following + (following @ following) / (r @ r) * p, following
    return x


@pytest.mark.parametrize(("iterations", "tolerances"), [(1, (0.0,)), (10, (1e-7, 0.2)), (12, (0.0,))])
def test_cg_takes_the_iterates_of_plain_conjugate_gradients(
    double_context: Context,
    dense: tuple[Tensor, Tensor, Tensor],
    iterations: int,
    tolerances: tuple[float, ...],
) -> None:
    G, g, H = dense
    score = fitted("if_cg", double_context, max_iterations=iterations)
    for regularization, tolerance in product([0.0, 1e-3, 0.03, DEFINITE], tolerances):
        shifted = H + regularization * torch.eye(len(H), dtype=H.dtype)
        expected = torch.stack([-G @ plain_cg(shifted, row, iterations, tolerance) for row in g])
        assert_rows_close(score(regularization=regularization, tolerance=tolerance), expected)


def unguarded_cg(H: Tensor, b: Tensor, iterations: int) -> Tensor:
    x, r = torch.zeros_like(b), b.clone()
    p = r.clone()
    for _ in range(iterations):
        length = (r @ r) / (p @ H @ p)
        x, following = x + length * p, r - length * (H @ p)
        p, r = following + (following @ following) / (r @ r) * p, following
    return x


def test_cg_stops_before_negative_curvature_and_still_helps_a_copy(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Without regularization some points meet negative curvature in ten iterations; bᵀx > 0 all the same."""
    _, g, H = dense
    assert any(not torch.equal(plain_cg(H, row, 10, 0.0), unguarded_cg(H, row, 10)) for row in g)
    copies = Examples(
        torch.cat([double_context.train.inputs, double_context.test.inputs]),
        torch.cat([double_context.train.targets, double_context.test.targets]),
    )
    scores = attribute("if_cg", replace(double_context, train=copies), max_iterations=10, tolerance=0.0)
    assert (scores[:, len(double_context.train) :].diagonal() > 0).all()


def test_cg_converges_to_the_exact_solution(double_context: Context, dense: tuple[Tensor, Tensor, Tensor]) -> None:
    exact = solved(dense, DEFINITE)
    errors = []
    for iterations in (2, 8, 80):
        values = {"max_iterations": iterations, "tolerance": 0.0, "regularization": DEFINITE}
        scores = attribute("if_cg", double_context, **values)
        errors.append(float((scores - exact).norm() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_an_exhausted_krylov_space_ends_the_iteration(double_context: Context) -> None:
    """Copies of one training example and one test point: the space has few dimensions, and rounding adds none."""
    rows = torch.zeros(6, dtype=torch.int64)
    degenerate = replace(double_context, train=double_context.train[rows], test=double_context.test[rows])
    few, many = (
        attribute("if_cg", degenerate, max_iterations=iterations, tolerance=0.0, regularization=DEFINITE)
        for iterations in (40, 200)
    )
    assert_rows_close(many, few)


def test_lissa_with_full_batches_converges_to_the_exact_solution(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    exact = solved(dense, 1.0)
    errors = []
    for depth in (10, 40, 160):
        scores = attribute("if_lissa", double_context, **FULL_BATCH, recursion_depth=depth)
        errors.append(float((scores - exact).norm() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-5


def test_lissa_is_its_series(double_context: Context, dense: tuple[Tensor, Tensor, Tensor]) -> None:
    G, g, H = dense
    v = g.clone()
    for _ in range(7):
        v = g + v - (v @ H + v) / 10.0
    assert_rows_close(attribute("if_lissa", double_context, **FULL_BATCH, recursion_depth=7), -v @ G.T / 10.0)


def test_lissa_with_random_batches_is_right_on_average(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    values = {"regularization": 5.0, "scaling": 50.0, "recursion_depth": 40, "batch_size": 20}
    exact = solved(dense, 5.0)
    errors = []
    for repeats in (1, 8):
        scores = attribute("if_lissa", double_context, **values, repeats=repeats)
        errors.append(float((scores - exact).norm() / exact.norm()))
    assert errors[1] < errors[0]
    assert errors[1] < 0.1


@pytest.mark.parametrize("values", [{"scaling": 5.0}, {"scaling": 0.5, "batch_size": 1}])
def test_lissa_reports_divergence(double_context: Context, values: dict[str, float]) -> None:
    """The largest eigenvalue is 16.3: the series needs a scaling above 8.2."""
    with pytest.raises(NotApplicableError, match=r"diverged: scaling = .* raise scaling or regularization"):
        attribute("if_lissa", double_context, **{"batch_size": 60, **values}, recursion_depth=200)


def test_arnoldi_in_all_dimensions_is_the_positive_part_of_the_explicit_method(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    G, g, H = dense
    eigenvalues, vectors = torch.linalg.eigh(H)
    positive = eigenvalues > 1e-9
    U, sigma = vectors[:, positive], eigenvalues[positive]
    expected = -(g @ U / (sigma + DEFINITE)) @ (G @ U).T
    scores = attribute(
        "if_arnoldi", double_context, projection_dim=len(H), max_iterations=len(H), regularization=DEFINITE
    )
    assert_rows_close(scores, expected)


def test_arnoldi_converges_to_the_leading_eigenvectors(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    G, g, H = dense
    eigenvalues, vectors = torch.linalg.eigh(H)
    U, sigma = vectors[:, -6:], eigenvalues[-6:]
    expected = -(g @ U / (sigma + 0.1)) @ (G @ U).T
    errors = []
    for iterations in (6, 12, 60):
        values = {"projection_dim": 6, "max_iterations": iterations, "regularization": 0.1}
        errors.append(float((attribute("if_arnoldi", double_context, **values) - expected).norm() / expected.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def blocks_of_layers(context: Context) -> list[slice]:
    """Weight and bias of every linear layer."""
    sizes = [value.numel() for value in context.model.parameters()]
    ends = torch.tensor(sizes).view(-1, 2).sum(1).cumsum(0).tolist()
    return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("factors", [True, False])
@pytest.mark.parametrize("regularization", [None, 1e-4, 1.0])
def test_datainf_is_the_mean_of_dense_inverses_in_every_layer(
    double_context: Context,
    dense: tuple[Tensor, Tensor, Tensor],
    regularization: float | None,
    factors: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not factors:
        without_factors(monkeypatch)
    G, g = dense[0][:20], dense[1]
    fewer = replace(double_context, train=double_context.train[:20])
    expected = torch.zeros(len(g), len(G), dtype=torch.float64)
    for layer in blocks_of_layers(double_context):
        own, n_params = G[:, layer], layer.stop - layer.start
        value = float(0.1 * own.square().sum(1).mean() / n_params) if regularization is None else regularization
        rank_ones = own[:, :, None] * own[:, None, :] + value * torch.eye(n_params, dtype=torch.float64)
        expected -= g[:, layer] @ torch.linalg.inv(rank_ones).mean(0) @ own.T
    scores = attribute("datainf", fewer, regularization=regularization)
    assert_rows_close(scores, expected, 1e-5)


def test_datainf_of_one_example_inverts_every_layers_fisher_matrix(
    double_context: Context, dense: tuple[Tensor, Tensor, Tensor]
) -> None:
    G, g, _ = dense
    alone = replace(double_context, train=double_context.train[7:8])
    expected = torch.zeros(len(g), 1, dtype=torch.float64)
    for layer in blocks_of_layers(double_context):
        own = G[7:8, layer]
        fisher = own.T @ own + 1e-2 * torch.eye(own.shape[1], dtype=torch.float64)
        expected -= g[:, layer] @ torch.linalg.solve(fisher, own.T)
    assert_rows_close(attribute("datainf", alone, regularization=1e-2), expected)


def test_datainf_says_that_it_divides_by_lambda(double_context: Context) -> None:
    with pytest.raises(NotApplicableError, match="regularization = 0: DataInf divides by λ"):
        attribute("datainf", double_context, regularization=0.0)


@pytest.mark.parametrize("name", ["if_explicit", "if_cg", "datainf"])
def test_methods_tend_to_grad_dot_as_lambda_grows(context: Context, name: str) -> None:
    chosen = {"checkpoints": 2, "epoch": 30}
    scores = attribute(name, context, regularization=1e8, **chosen)
    assert_proportional(scores, attribute("grad_dot", context, **chosen))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("if_explicit", {"regularization": DEFINITE}),
        ("if_cg", {}),
        ("if_cg", {"regularization": 1e-2, "max_iterations": 20}),
        ("if_lissa", {"recursion_depth": 40, "batch_size": 4}),
        ("if_arnoldi", {"projection_dim": 10, "max_iterations": 20}),
    ],
)
def test_scores_do_not_depend_on_blocks(
    double_context: Context, monkeypatch: pytest.MonkeyPatch, name: str, values: dict[str, float]
) -> None:
    """Examples per pass, directions per pass, right-hand sides per solve, rows of the explicit Hessian."""
    expected = attribute(name, double_context, **values)
    n_params = 644
    monkeypatch.setattr(TrainingLoss.__init__, "__kwdefaults__", {"rows": 23, "memory_bytes": 2**23})
    monkeypatch.setattr(krylov.lanczos, "__kwdefaults__", {"memory_bytes": 3 * 8 * n_params * 5})
    monkeypatch.setattr(gradients.per_example_gradients, "__kwdefaults__", {"memory_bytes": 4 * 8 * n_params * 5})
    monkeypatch.setattr("attriboard.attributors.if_explicit.ROWS", 250)
    assert_rows_close(attribute(name, double_context, **values), expected, 1e-5)
