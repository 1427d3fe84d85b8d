"""EK-FAC and LoGra against dense float64 linear algebra, layer by layer."""

from dataclasses import replace

import pytest
import torch
from dense import assert_rows_close, class_draws, correlation, dense_layers, layer_inputs, with_model
from torch import Tensor, nn

from attriboard.attributors import logra
from attriboard.attributors.ekfac import EKFAC
from attriboard.attributors.iffim import IFFIM
from attriboard.attributors.logra import LoGra
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import eigenbasis
from attriboard.toolkit.knobs import REGULARIZATION_GRID
from attriboard.toolkit.layerwise import matrix_layers

ONE = {"checkpoints": 1, "epoch": None}
WHOLE = {**ONE, "projection_dim": None, "initialization": "random"}


def dense_ekfac(context: Context, fisher: str, damping: float | None) -> Tensor:
    """−Σ_l G_l (U Λ Uᵀ + λI)⁻¹ g'_l with U = U_S ⊗ U_A written out."""
    train = dense_layers(context, context.loss, context.train)
    test = dense_layers(context, context.target, context.test)
    draws = class_draws(context, fisher)
    scores = torch.zeros(len(context.test), len(context.train), dtype=torch.float64)
    for number, a in enumerate(layer_inputs(context)):
        # δ is the gradient with respect to a bias, or, where there is none, G a/|a|².
        pairs = [(p, gradients[number]) for p, gradients in draws]
        S = sum(
            torch.einsum("n,no,np->op", p, d, d) / len(a)
            for p, d in ((p, torch.einsum("noi,ni->no", G, a) / a.square().sum(1, keepdim=True)) for p, G in pairs)
        )
        U = torch.kron(torch.linalg.eigh(S)[1], torch.linalg.eigh(a.T @ a / len(a))[1])
        Λ = sum((p[:, None] * (G.flatten(1) @ U).square()).mean(0) for p, G in pairs)
        λ = 0.1 * float(Λ.mean()) if damping is None else damping
        curvature = U @ torch.diag(Λ + λ) @ U.T
        scores -= test[number].flatten(1) @ torch.linalg.solve(curvature, train[number].flatten(1).T)
    return scores


def dense_blocks(context: Context, regularization: float) -> Tensor:
    """−Σ_l G_l (F_l + λI)⁻¹ g'_l with the exact Fisher block of every layer."""
    scores = torch.zeros(len(context.test), len(context.train), dtype=torch.float64)
    train = dense_layers(context, context.loss, context.train)
    for G, g in zip(train, dense_layers(context, context.target, context.test), strict=True):
        G, g = G.flatten(1), g.flatten(1)
        F = G.T @ G / len(G) + regularization * torch.eye(G.shape[1], dtype=torch.float64)
        scores -= g @ torch.linalg.solve(F, G.T)
    return scores


@pytest.fixture(scope="module")
def one_layer(double_context: Context) -> Context:
    torch.manual_seed(0)
    return with_model(double_context, nn.Sequential(nn.Linear(64, 10)))


@pytest.fixture(scope="module")
def without_biases(double_context: Context) -> Context:
    torch.manual_seed(0)
    return with_model(double_context, nn.Sequential(nn.Linear(64, 8, bias=False), nn.Tanh(), nn.Linear(8, 10)))


@pytest.mark.parametrize("fisher", ["true", "empirical"])
@pytest.mark.parametrize("biases", [True, False])
def test_ekfac_is_the_dense_kronecker_eigenbasis(
    double_context: Context, without_biases: Context, fisher: str, biases: bool
) -> None:
    context = double_context if biases else without_biases
    method = EKFAC()
    state = method.fit(context, **ONE, fisher=fisher)
    for damping in (None, 1e-6, 1e-4, 1e-2, 1.0):
        assert_rows_close(method.score(state, regularization=damping), dense_ekfac(context, fisher, damping))


def test_ekfac_does_not_depend_on_how_test_points_are_grouped(
    double_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = EKFAC()
    state = method.fit(double_context, **ONE, fisher="true")
    expected = method.score(state, regularization=1e-4)
    monkeypatch.setattr(eigenbasis, "BLOCK_BYTES", 1)
    assert_rows_close(method.score(state, regularization=1e-4), expected.double(), 1e-6)


@pytest.mark.parametrize("damping", [1e-5, 1e-2])
def test_ekfac_is_the_exact_fisher_of_a_layer_with_one_output(double_context: Context, damping: float) -> None:
    """δ is a number, and with |δ| = 1 for every example F = E[a aᵀ]: the Kronecker product is exact."""
    inputs = double_context.train.inputs
    context = replace(
        double_context,
        model=nn.Sequential(nn.Linear(64, 1)).double().eval(),
        checkpoints=(Checkpoint({"0.weight": inputs[:1] / 8, "0.bias": inputs[0, :1]}, epoch=1, seed=0),),
        loss=lambda outputs, targets: outputs.squeeze(1) * (1 - 2 * (targets % 2)),
        target=lambda outputs, targets: outputs.squeeze(1),
    )
    exact, method = IFFIM(), EKFAC()
    expected = exact.score(exact.fit(context, **ONE, projection_dim=None), regularization=damping)
    actual = method.score(method.fit(context, **ONE, fisher="empirical"), regularization=damping)
    assert_rows_close(actual, expected.double(), 1e-5)


def test_ekfac_is_near_the_exact_fisher_of_a_trained_network(double_context: Context) -> None:
    """What Kronecker products and separate layers cost; with eigenvectors transposed it is 0.29 (dattri 0.3.0)."""
    method, exact = EKFAC(), IFFIM()
    scores = method.score(method.fit(double_context, **ONE, fisher="empirical"), regularization=1e-2)
    assert correlation(scores, dense_blocks(double_context, 1e-2)) > 0.85
    reference = exact.score(exact.fit(double_context, **ONE, projection_dim=None), regularization=1e-2)
    assert correlation(scores, reference) > 0.75


def test_ekfac_tends_to_grad_dot_as_lambda_grows(double_context: Context) -> None:
    """Then curvature does not matter, nor that layers are apart."""
    exact, method = IFFIM(), EKFAC()
    expected = exact.score(exact.fit(double_context, **ONE, projection_dim=None), regularization=1e6)
    scores = method.score(method.fit(double_context, **ONE, fisher="true"), regularization=1e6)
    assert_rows_close(scores, expected, 1e-5)


def test_ekfac_at_zero_is_the_limit_of_small_lambda(one_layer: Context) -> None:
    method = EKFAC()
    state = method.fit(one_layer, **ONE, fisher="empirical")
    assert torch.isfinite(method.score(state, regularization=0.0)).all()
    (layer,) = state.models[0].layers.values()
    known = layer.curvature.weights(0.0) > 0
    torch.testing.assert_close(layer.curvature.weights(0.0)[known], 1 / layer.curvature.corrected[known])


def test_true_fisher_needs_a_likelihood(double_context: Context) -> None:
    doubled = replace(double_context, loss=lambda outputs, targets: 2 * double_context.loss(outputs, targets))
    with pytest.raises(NotApplicableError, match="the loss must be −log p"):
        EKFAC().fit(doubled, **ONE, fisher="true")


def test_ekfac_spectrum_has_the_moments_of_its_eigenbasis(
    double_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = EKFAC()
    state = method.fit(double_context, **ONE, fisher="empirical")
    (whole,) = method.spectrum(state)
    for λ in (1e-6, 1e-3):
        expected = torch.zeros(len(double_context.test), dtype=torch.float64)
        for layer in state.models[0].layers.values():
            v = torch.einsum("jp,jq->jpq", layer.test.inputs, layer.test.deltas).double()
            Λ = layer.curvature.corrected
            expected += len(double_context.train) * (v.square() * Λ / (Λ + λ) ** 2).sum((1, 2))
        torch.testing.assert_close(whole.moment(2, λ), expected, rtol=1e-5, atol=0)
    monkeypatch.setattr(eigenbasis, "SPECTRUM_BYTES", 8 * len(double_context.test) * 100)
    (cut,) = method.spectrum(state)
    assert len(cut.eigenvalues) == 100
    large = 1e3 * cut.floor
    torch.testing.assert_close(cut.xi(large), whole.xi(large), rtol=1e-2, atol=1e-3)


def test_logra_without_projection_is_the_exact_fisher_of_one_layer(one_layer: Context) -> None:
    exact, method = IFFIM(), LoGra()
    reference, state = exact.fit(one_layer, **ONE, projection_dim=None), method.fit(one_layer, **WHOLE)
    for value in REGULARIZATION_GRID:
        expected = exact.score(reference, regularization=value).double()
        assert_rows_close(method.score(state, regularization=value), expected, 1e-5)
    torch.testing.assert_close(method.spectrum(state)[0].xi(1e-4), exact.spectrum(reference)[0].xi(1e-4))


@pytest.mark.parametrize("projection_dim", [None, 65**2])
@pytest.mark.parametrize("initialization", ["random", "pca"])
def test_logra_without_loss_of_dimensions_is_the_dense_block_diagonal(
    double_context: Context, projection_dim: int | None, initialization: str
) -> None:
    method = LoGra()
    state = method.fit(double_context, **ONE, projection_dim=projection_dim, initialization=initialization)
    for value in (1e-4, 1e-2, 1.0):
        assert_rows_close(method.score(state, regularization=value), dense_blocks(double_context, value))


def test_logra_default_is_a_tenth_of_the_mean_eigenvalue(one_layer: Context) -> None:
    G = dense_layers(one_layer, one_layer.loss, one_layer.train)[0].flatten(1)
    λ = 0.1 * float(G.square().sum() / len(G) / G.shape[1])
    method = LoGra()
    state = method.fit(one_layer, **WHOLE)
    assert_rows_close(method.score(state, regularization=None), method.score(state, regularization=λ).double())


def test_logra_projection_keeps_inner_products_in_expectation() -> None:
    side = torch.randn(4, 40, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    grams = []
    for _ in range(500):
        P = logra.projection(40, 5, generator)
        assert P is not None
        torch.testing.assert_close(P.T @ P, torch.eye(5, dtype=torch.float64) * 8)
        grams.append(side @ P @ P.T @ side.T)
    assert float((torch.stack(grams).mean(0) - side @ side.T).norm() / (side @ side.T).norm()) < 0.1


@pytest.mark.parametrize("initialization", ["random", "pca"])
def test_logra_comes_closer_as_the_projection_grows(double_context: Context, initialization: str) -> None:
    exact, method = dense_blocks(double_context, 1e-2), LoGra()
    found = []
    for rank in (2, 6, 30):
        state = method.fit(double_context, **ONE, projection_dim=rank**2, initialization=initialization)
        found.append(correlation(method.score(state, regularization=1e-2), exact))
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.9


@pytest.mark.parametrize("method", [EKFAC, LoGra])
def test_checkpoints_are_averaged(context: Context, method: type[EKFAC] | type[LoGra]) -> None:
    values = method.stage(method.configure({}), "fit")
    models = context.select_checkpoints(2)
    λ = method.hyperparameters[0].name
    attributor = method()
    singles = [
        attributor.score(attributor.fit(replace(context, checkpoints=(one,)), **values), **{λ: 1e-3}) for one in models
    ]
    together = attributor.score(attributor.fit(context, **{**values, "checkpoints": 2}), **{λ: 1e-3})
    if method is EKFAC:
        assert_rows_close(together, torch.stack(singles).double().mean(0))
    else:  # every checkpoint has projections of its own
        assert correlation(together, torch.stack(singles).mean(0)) > 0.99


@pytest.mark.parametrize("method", [EKFAC, LoGra])
def test_models_without_matrix_layers_are_refused(double_context: Context, method: type[EKFAC] | type[LoGra]) -> None:
    norms = nn.Sequential(nn.LayerNorm(64), nn.AdaptiveAvgPool1d(10))
    context = with_model(double_context, norms, epochs=1)
    with pytest.raises(NotApplicableError, match="no layer is one matrix product"):
        method().fit(context, **method.stage(method.configure({}), "fit"))


@pytest.mark.parametrize("method", [EKFAC, LoGra])
def test_groups_of_a_convolution_are_matrix_layers_and_other_layers_are_left_out(
    double_context: Context, method: type[EKFAC] | type[LoGra]
) -> None:
    grouped = (nn.Conv2d(2, 2, 3, groups=2), nn.PReLU(), nn.Flatten(), nn.Linear(24, 10))
    context = with_model(double_context, nn.Sequential(nn.Unflatten(1, (2, 4, 8)), *grouped), epochs=1)
    assert list(matrix_layers(context, context.checkpoints[0])) == ["1 group 0", "1 group 1", "4"]
    attributor = method()
    state = attributor.fit(context, **method.stage(method.configure({}), "fit"))
    assert attributor.notes(state) == (
        "leaves out 1 of 271 parameters, those of layers that are not one matrix product: 2",
    )
