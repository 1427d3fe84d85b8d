"""What makes ξ a surrogate: a cosine that rises through the spectrum, and the sign of the LDS curve's slope."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.spectrum import solve_features, solve_kernel

SEEDS = st.integers(0, 10_000)


def gradients(seed: int, n: int, d: int, n_test: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    decay = torch.logspace(0.5, -1.5, d, dtype=torch.float64)
    return (
        torch.randn(n, d, dtype=torch.float64, generator=generator) * decay,
        torch.randn(n_test, d, dtype=torch.float64, generator=generator) * decay,
    )


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.floats(-4, 3))
def test_xi_is_the_cosine_between_r_and_its_solution_in_the_inverse_metric(seed: int, log_lambda: float) -> None:
    G, g = gradients(seed, n=15, d=10)
    M = torch.linalg.inv(G @ G.T / 15 + 10**log_lambda * torch.eye(15, dtype=torch.float64))
    r = G @ g.T
    solution = M @ r
    products = [(a * (M @ b)).sum(0) for a, b in ((r, solution), (r, r), (solution, solution))]
    cosine = products[0] / (products[1] * products[2]).sqrt()
    torch.testing.assert_close(solve_features(G, g).spectrum.xi(10**log_lambda), cosine, rtol=1e-8, atol=0)


@settings(max_examples=100, deadline=None)
@given(st.floats(1.0, 3.0), st.floats(0.5, 1.5))
def test_xi_rises_monotonically_through_a_power_law_spectrum(decay: float, alignment: float) -> None:
    """σ_j = j^−decay and c_j² = σ_j^alignment, as gradients of trained networks roughly have."""
    eigenvalues = torch.arange(1, 1001, dtype=torch.float64) ** -decay
    spectrum = Spectrum(eigenvalues, eigenvalues[None] ** (alignment / 2), n_train=2000)
    low, high = math.log10(float(eigenvalues[-1])), math.log10(float(eigenvalues[0]))
    path = [float(spectrum.xi(10**power)[0]) for power in torch.linspace(low, high + 4, 60).tolist()]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(path))
    assert path[-1] > 0.999
    assert path[0] < path[-1] - 0.05


def test_below_the_spectrum_xi_stays_at_its_value_without_regularization() -> None:
    spectrum = solve_features(*gradients(0, n=30, d=10)).spectrum
    smallest = float(spectrum.eigenvalues[-1])
    torch.testing.assert_close(spectrum.xi(1e-9 * smallest), spectrum.xi(0.0), rtol=1e-6, atol=0)


@settings(max_examples=50, deadline=None)
@given(SEEDS, st.floats(-3, 2), st.sampled_from([1e-3, 0.5, 7.0, 1e4]), st.sampled_from([-1e-3, 2.0, 1e5]))
def test_rescaling_the_loss_rescales_lambda_and_rescaling_f_changes_nothing(
    seed: int, log_lambda: float, a: float, b: float
) -> None:
    """Gradients times a: λ times a². f times b, of either sign: nothing."""
    G, g = gradients(seed, n=20, d=12)
    value = 10**log_lambda
    plain, scaled = solve_features(G, g).spectrum, solve_features(a * G, b * g).spectrum
    torch.testing.assert_close(scaled.xi(a * a * value), plain.xi(value), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("n", "d"), [(20, 12), (12, 20), (15, 15), (30, 3)])
def test_kernel_and_feature_forms_agree_to_eight_digits_over_the_whole_spectrum(n: int, d: int) -> None:
    G, g = gradients(1, n, d)
    kernel, features = solve_kernel(G @ G.T, G @ g.T).spectrum, solve_features(G, g).spectrum
    for power in range(-5, 5):
        torch.testing.assert_close(kernel.xi(10.0**power), features.xi(10.0**power), rtol=1e-8, atol=0)
        for order in (1, 2, 3):
            moments = (spectrum.moment(order, 10.0**power) for spectrum in (kernel, features))
            torch.testing.assert_close(*moments, rtol=1e-8, atol=0)


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.floats(-3, 2), st.sampled_from([(30, 8), (8, 30)]))
def test_slope_of_the_correlation_has_the_sign_of_its_closed_form(
    seed: int, log_lambda: float, shape: tuple[int, int]
) -> None:
    """For any ψ, of either sign: dc/dλ > 0 exactly when o₂ t₂ < o₁ t₃, and where o₁, o₂ > 0 when ξ < ω."""
    value = 10**log_lambda
    G, g = gradients(seed, *shape, n_test=1)
    solution = solve_kernel(G @ G.T, G @ g.T)
    psi = torch.randn(len(G), dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1))
    psi += float(torch.rand(1, generator=torch.Generator().manual_seed(seed + 2))) * solution.scores(0.1)[0]
    dense = torch.linalg.inv(G @ G.T / len(G) + value * torch.eye(len(G), dtype=torch.float64))
    r = (G @ g.T)[:, 0]
    o1, o2 = (float(-(r @ torch.linalg.matrix_power(dense, order) @ psi)) for order in (1, 2))
    t1, t2, t3 = (float(solution.spectrum.moment(order, value)[0]) for order in (1, 2, 3))

    def correlation(at: float) -> float:
        tau = solution.scores(at)[0]
        return float(tau @ psi / tau.norm())

    step = 1e-4 * value
    slope = (correlation(value + step) - correlation(value - step)) / (2 * step)
    exact = (o1 * t3 - o2 * t2) / t2**1.5
    assume(abs(slope) * value > 1e-6 * abs(correlation(value)))
    assert slope == pytest.approx(exact, rel=1e-3)
    assert (slope > 0) == (o2 * t2 < o1 * t3)
    if o1 > 0 and o2 > 0:
        omega = (o1 / math.sqrt(t1)) / (o2 / math.sqrt(t3))
        assert (slope > 0) == (float(solution.spectrum.xi(value)[0]) < omega)


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.floats(-3, 2))
def test_sign_rule_holds_for_a_method_that_inverts_any_other_matrix(seed: int, log_lambda: float) -> None:
    """docs/formulas.md, "Other curvatures": τ = −G (C + λI)⁻¹ g' with C no Gram matrix of G, and any ψ."""
    value = 10**log_lambda
    G, g = gradients(seed, n=20, d=12, n_test=1)
    generator = torch.Generator().manual_seed(seed + 3)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    psi = torch.randn(20, dtype=torch.float64, generator=generator)

    def inverse(at: float) -> Tensor:
        return torch.linalg.inv(root @ root.T / 12 + at * torch.eye(12, dtype=torch.float64))

    def correlation(at: float) -> float:
        tau = -(G @ inverse(at) @ g[0])
        return float(tau @ psi / tau.norm())

    tau, slope = -(G @ inverse(value) @ g[0]), G @ inverse(value) @ inverse(value) @ g[0]
    t1, t2, t3 = (float(t) for t in (-(G @ g[0]) @ tau, tau @ tau, -(tau @ slope)))
    o1, o2 = float(tau @ psi), -float(slope @ psi)
    step = 1e-4 * value
    rising = (correlation(value + step) - correlation(value - step)) / (2 * step)
    assume(abs(rising) * value > 1e-6 * abs(correlation(value)))
    assert rising == pytest.approx((o1 * t3 - o2 * t2) / t2**1.5, rel=1e-3)
    assert (rising > 0) == (o2 * t2 < o1 * t3)
    if min(o1, o2, t1, t3) > 0:
        xi, omega = t2 / math.sqrt(t1 * t3), (o1 / math.sqrt(t1)) / (o2 / math.sqrt(t3))
        assert (rising > 0) == (xi < omega)
