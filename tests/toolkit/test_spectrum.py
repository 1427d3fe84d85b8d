"""λ-paths, ξ and exact influence, against dense float64 linear algebra."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from attriboard.base.errors import HyperparameterError, NotApplicableError
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.spectrum import solve_features, solve_kernel

SEEDS = st.integers(0, 10_000)
LOG_LAMBDAS = st.floats(-4, 3)


def problem(seed: int, n: int = 12, d: int = 20, n_test: int = 3) -> tuple[Tensor, Tensor]:
    """Gradients whose spectrum spans several decades: G (n, d) and g'ᵀ (n_test, d)."""
    generator = torch.Generator().manual_seed(seed)
    decay = torch.logspace(0.5, -1.5, d, dtype=torch.float64)
    return (
        torch.randn(n, d, dtype=torch.float64, generator=generator) * decay,
        torch.randn(n_test, d, dtype=torch.float64, generator=generator) * decay,
    )


def identity(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize(("n", "d"), [(12, 20), (20, 12), (15, 15)])
@pytest.mark.parametrize("value", [1e-9, 1e-6, 1e-3, 1.0, 1e3])
def test_scores_solve_the_system_on_either_side(n: int, d: int, value: float) -> None:
    G, g = problem(0, n, d)
    features = solve_features(G, g).scores(value)
    kernel = solve_kernel(G @ G.T, G @ g.T).scores(value)
    expected = -(G @ torch.linalg.solve(G.T @ G / n + value * identity(d), g.T)).T
    # A small λ makes a badly conditioned system of F for any solver.
    tolerance = max(1e-8, 1e-13 / value) * float(expected.abs().max())
    torch.testing.assert_close(features, expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(kernel, expected, rtol=0, atol=tolerance)


def test_lambda_zero_is_the_pseudo_inverse_of_a_rank_deficient_kernel() -> None:
    G, g = problem(1, n=20, d=6)
    G[10:] = G[:10]
    solution = solve_kernel(G @ G.T, G @ g.T)
    assert len(solution.spectrum.eigenvalues) == 6
    expected = -(torch.linalg.pinv(G @ G.T / 20, hermitian=True, rtol=1e-12) @ G @ g.T).T
    torch.testing.assert_close(solution.scores(0.0), expected, rtol=1e-7, atol=1e-9)
    below_the_floor = solution.spectrum.floor / 2
    torch.testing.assert_close(solution.scores(below_the_floor), solution.scores(0.0), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(solution.scores(1e-9), solution.scores(0.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [1e-9, 1e-6, 1e-3])
def test_what_lies_below_the_floor_still_counts_above_it(value: float) -> None:
    """A direction with σ = 1e-18 σ_max cannot be resolved in K, but r knows it to nine digits."""
    G = torch.diag(torch.tensor([1.0, 1e-3, 1e-9], dtype=torch.float64))
    g = torch.ones(1, 3, dtype=torch.float64)
    solution = solve_kernel(G @ G.T, G @ g.T)
    assert len(solution.spectrum.eigenvalues) == 2
    sigma = G.diagonal().square() / 3
    torch.testing.assert_close(solution.scores(value)[0], -G.diagonal() / (sigma + value), rtol=1e-8, atol=0)
    for order in (1, 2, 3):
        expected = (G.diagonal().square() / (sigma + value) ** order).sum()
        torch.testing.assert_close(solution.spectrum.moment(order, value)[0], expected, rtol=1e-8, atol=0)


def test_single_precision_keeps_the_spectrum_and_rounds_the_scores() -> None:
    G, g = problem(2)
    solution = solve_features(G, g)
    single = solution.single()
    assert single.spectrum is solution.spectrum
    assert single.scores(1e-3).dtype == torch.float32
    torch.testing.assert_close(single.scores(1e-3).double(), solution.scores(1e-3), rtol=1e-4, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(SEEDS, LOG_LAMBDAS)
def test_kernel_and_feature_forms_of_xi_and_moments_agree(seed: int, log_lambda: float) -> None:
    value = 10**log_lambda
    G, g = problem(seed, n=20, d=12)
    kernel, features = solve_kernel(G @ G.T, G @ g.T).spectrum, solve_features(G, g).spectrum
    torch.testing.assert_close(kernel.xi(value), features.xi(value), rtol=1e-8, atol=0)
    F = G.T @ G / 20
    for order in (1, 2, 3):
        power = torch.linalg.matrix_power(torch.linalg.inv(F + value * identity(12)), order)
        expected = 20 * (g @ F @ power * g).sum(1)
        torch.testing.assert_close(kernel.moment(order, value), expected, rtol=1e-8, atol=0)
        torch.testing.assert_close(features.moment(order, value), expected, rtol=1e-8, atol=0)
    assert math.isclose(kernel.effective_dimension(value), features.effective_dimension(value), rel_tol=1e-9)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.floats(-12, 6))
def test_xi_is_a_cosine(seed: int, log_lambda: float) -> None:
    xi = solve_features(*problem(seed)).spectrum.xi(10**log_lambda)
    assert ((xi >= 0) & (xi <= 1)).all()


def test_xi_tends_to_one_and_is_small_where_lambda_is_inside_a_wide_spectrum() -> None:
    eigenvalues = torch.logspace(4, -8, 400, dtype=torch.float64)
    coefficients = (eigenvalues**0.5).expand(2, -1)
    spectrum = Spectrum(eigenvalues, coefficients, n_train=400)
    path = [float(spectrum.xi(10.0**power)[0]) for power in range(-7, 9)]
    assert path[-1] > 0.999
    assert path[4] < 0.5
    assert path[-1] - path[4] > 0.4


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e-6, 1.0, 1e6])
@pytest.mark.parametrize("magnitude", [1e-150, 1.0, 1e150])
def test_xi_neither_overflows_nor_depends_on_the_scale_of_f(value: float, magnitude: float) -> None:
    spectrum = solve_features(*problem(3)).spectrum
    scaled = Spectrum(spectrum.eigenvalues, magnitude * spectrum.coefficients, spectrum.n_train)
    torch.testing.assert_close(scaled.xi(value), spectrum.xi(value), rtol=1e-12, atol=0)


def test_xi_of_a_single_direction_is_one_and_of_none_is_undefined() -> None:
    spectrum = Spectrum(torch.tensor([2.0, 1.0]).double(), torch.tensor([[0.0, 5.0], [0.0, 0.0]]).double(), 2)
    xi = spectrum.xi(0.3)
    assert float(xi[0]) == pytest.approx(1)
    assert torch.isnan(xi[1])


def test_effective_dimension_falls_from_rank_to_zero() -> None:
    spectrum = solve_features(*problem(4, n=30, d=10)).spectrum
    assert spectrum.effective_dimension(0.0) == pytest.approx(10)
    assert spectrum.effective_dimension(1e9) < 1e-6
    middle = float(spectrum.eigenvalues[4])
    assert 1 < spectrum.effective_dimension(middle) < 10


@settings(max_examples=200, deadline=None)
@given(SEEDS, LOG_LAMBDAS)
def test_correlation_rises_with_lambda_exactly_where_xi_is_below_omega(seed: int, log_lambda: float) -> None:
    """c(λ) = ⟨τ_λ, ψ⟩/‖τ_λ‖ for a ψ that is τ at some other λ plus noise; dc/dλ by central differences."""
    value = 10**log_lambda
    G, g = problem(seed, n_test=1)
    solution = solve_features(G, g)
    generator = torch.Generator().manual_seed(seed + 1)
    truth = solution.scores(float(torch.rand(1, generator=generator)))[0]
    noise = torch.randn(len(G), dtype=torch.float64, generator=generator)
    psi = truth / truth.norm() + 0.3 * noise / noise.norm()

    def correlation(at: float) -> float:
        tau = solution.scores(at)[0]
        return float(tau @ psi / tau.norm())

    coordinates = psi @ solution.vectors
    shifted = solution.spectrum.shifted(value)
    c = solution.spectrum.coefficients[0]
    o1, o2 = (float(-(c * coordinates / shifted**order).sum()) for order in (1, 2))
    t1, t3 = (float(solution.spectrum.moment(order, value)[0]) for order in (1, 3))
    assume(o1 > 0 and o2 > 0)
    omega = (o1 / t1**0.5) / (o2 / t3**0.5)
    xi = float(solution.spectrum.xi(value)[0])
    step = 1e-4 * value
    slope = (correlation(value + step) - correlation(value - step)) / (2e-4)
    assume(abs(xi / omega - 1) > 1e-4 and abs(slope) > 1e-7)
    assert (slope > 0) == (xi < omega)


def ridge(seed: int = 0, n: int = 60, d: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """X (n, d), y (n,), test inputs (9, d) and the ridge solution with penalty α|θ|²/2 on the mean loss."""
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, dtype=torch.float64, generator=generator)
    y = X @ torch.randn(d, dtype=torch.float64, generator=generator) + torch.randn(
        n, dtype=torch.float64, generator=generator
    )
    return X, y, torch.randn(9, d, dtype=torch.float64, generator=generator), ridge_solution(X, y, 0.1 * n)


def ridge_solution(X: Tensor, y: Tensor, penalty: float) -> Tensor:
    return torch.linalg.solve(X.T @ X + penalty * identity(X.shape[1]), X.T @ y)


def ridge_influence(X: Tensor, y: Tensor, X_test: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Influence on predictions (n_test, n) and leverages (n,): K = XXᵀ of the outputs, τ times residual."""
    solution = solve_features(X, X_test)
    influence = -solution.scores(0.1) * (y - X @ theta) / len(X)
    leverage = -solve_features(X, X).scores(0.1).diagonal() / len(X)
    return influence, leverage


def test_influence_on_ridge_regression_gives_exact_leave_one_out() -> None:
    X, y, X_test, theta = ridge()
    influence, leverage = ridge_influence(X, y, X_test, theta)
    for i in range(len(X)):
        kept = torch.arange(len(X)) != i
        without = ridge_solution(X[kept], y[kept], 0.1 * len(X))
        exact = X_test @ (theta - without)
        torch.testing.assert_close(influence[:, i] / (1 - leverage[i]), exact, rtol=1e-9, atol=1e-12)


def test_influence_on_ridge_regression_predicts_subset_retraining() -> None:
    X, y, X_test, theta = ridge(n=300)
    influence, _ = ridge_influence(X, y, X_test, theta)
    generator = torch.Generator().manual_seed(5)
    masks = torch.stack([torch.randperm(300, generator=generator) < 270 for _ in range(100)])
    truth = torch.stack([X_test @ ridge_solution(X[mask], y[mask], 0.1 * 300) for mask in masks])
    predicted = masks.double() @ influence.T
    ranks = [values.argsort(0).argsort(0).double() for values in (predicted, truth)]
    lds = [float(torch.corrcoef(torch.stack([a, b]))[0, 1]) for a, b in zip(ranks[0].T, ranks[1].T, strict=True)]
    assert sum(lds) / len(lds) > 0.98


def test_broken_kernels_are_named() -> None:
    with pytest.raises(NotApplicableError, match="not finite"):
        solve_kernel(torch.tensor([[1.0, math.nan], [math.nan, 1.0]]).double(), torch.ones(2, 1).double())
    with pytest.raises(NotApplicableError, match="kernel is zero"):
        solve_features(torch.zeros(3, 2), torch.ones(1, 2))


def test_negative_regularization_is_refused() -> None:
    with pytest.raises(HyperparameterError, match=r"regularization = -0\.1: must be at least 0"):
        solve_features(*problem(0)).scores(-0.1)
