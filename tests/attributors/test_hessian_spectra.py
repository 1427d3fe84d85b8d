"""What methods with the Hessian tell selectors of it: ξ's moments, against dense float64 linear algebra."""

from dataclasses import replace

import pytest
import torch
from dense import dense_gradients, dense_hessian
from torch import Tensor

from attriboard.attributors.if_arnoldi import IFArnoldi
from attriboard.attributors.if_cg import IFCG
from attriboard.attributors.if_explicit import IFExplicit
from attriboard.attributors.iffim import IFFIM
from attriboard.attributors.selectors.deflated_surrogate import n_outliers
from attriboard.attributors.selectors.gcv import gcv
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Attributor, Context
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.krylov import KrylovSolution, lanczos
from attriboard.toolkit.regularization import mean_xi, pick_by_xi

LAMBDAS = (1e-3, 1e-2, 0.2, 10.0)


def spectrum_of(method: type[Attributor], context: Context, **values: object) -> Spectrum:
    attributor = method()
    (spectrum,) = attributor.spectrum(attributor.fit(context, **method.stage(method.configure(values), "fit"))) or ()
    return spectrum


@pytest.fixture(scope="module")
def positive(double_context: Context) -> tuple[Tensor, Tensor]:
    """H's positive eigenvalues, and g' (n_test, m) along their vectors."""
    checkpoint = double_context.select_checkpoints()[0]
    values, vectors = torch.linalg.eigh(dense_hessian(double_context, checkpoint, double_context.train))
    kept = values > 1e-12
    g = dense_gradients(double_context, checkpoint, double_context.target, double_context.test)
    return values[kept], g @ vectors[:, kept]


def moment(positive: tuple[Tensor, Tensor], n_train: int, order: int, regularization: float) -> Tensor:
    h, g = positive
    return n_train * (g.square() * h / (h + regularization) ** order).sum(1)


@pytest.mark.parametrize("regularization", LAMBDAS)
def test_explicit_has_the_moments_of_the_positive_part(
    double_context: Context, positive: tuple[Tensor, Tensor], regularization: float
) -> None:
    spectrum = spectrum_of(IFExplicit, double_context)
    assert bool((spectrum.eigenvalues[:-1] >= spectrum.eigenvalues[1:]).all())
    for order in (1, 2, 3):
        expected = moment(positive, len(double_context.train), order, regularization)
        torch.testing.assert_close(spectrum.moment(order, regularization), expected, rtol=1e-8, atol=0)


def test_quadrature_of_cg_approaches_the_explicit_moments(
    double_context: Context, positive: tuple[Tensor, Tensor]
) -> None:
    n, errors = len(double_context.train), []
    for iterations in (3, 10, 30):
        spectrum = spectrum_of(IFCG, double_context, max_iterations=iterations)
        ratio = spectrum.moment(2, 0.2) / moment(positive, n, 2, 0.2)
        errors.append(float((ratio - 1).abs().max()))
    # What is left out below zero makes a kink, so convergence is slow, but it is no slower than this.
    assert errors[0] > 5 * errors[1] > 25 * errors[2]
    assert errors[2] < 0.01
    exact = mean_xi([spectrum_of(IFExplicit, double_context)], 0.2)
    assert mean_xi([spectrum], 0.2) == pytest.approx(exact, abs=0.002)


def test_quadrature_is_exact_for_low_powers_of_a_positive_matrix() -> None:
    """‖b‖² Σ w θᵏ = bᵀ Hᵏ b up to k = 2m − 1 (Golub & Meurant 2010)."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    H, b = root @ root.T, torch.randn(12, dtype=torch.float64, generator=generator)
    basis, diagonal, off_diagonal = [b / b.norm()], [], []
    for _ in range(4):
        following = H @ basis[-1] - sum((q @ (H @ basis[-1])) * q for q in basis)
        diagonal.append(basis[-1] @ H @ basis[-1])
        off_diagonal.append(following.norm())
        basis.append(following / following.norm())
    solution = KrylovSolution(
        torch.stack(diagonal)[None], torch.stack(off_diagonal)[None], b.norm()[None], torch.empty(1, 4, 7)
    )
    spectrum = solution.spectrum
    for power in range(1, 8):
        # c² = n θ ‖b‖² w
        found = (spectrum.coefficients.square() / 7 * spectrum.eigenvalues ** (power - 1)).sum()
        torch.testing.assert_close(found, b @ torch.linalg.matrix_power(H, power) @ b, rtol=1e-9, atol=0)


def test_one_iteration_is_one_node(double_context: Context) -> None:
    assert spectrum_of(IFCG, double_context, max_iterations=1).eigenvalues.shape == (len(double_context.test), 1)


def test_arnoldi_has_the_moments_of_the_directions_that_it_keeps(
    double_context: Context, positive: tuple[Tensor, Tensor]
) -> None:
    spectrum = spectrum_of(IFArnoldi, double_context, projection_dim=5, max_iterations=150)
    leading = (positive[0][-5:], positive[1][:, -5:])
    for regularization in LAMBDAS:
        expected = moment(leading, len(double_context.train), 2, regularization)
        torch.testing.assert_close(spectrum.moment(2, regularization), expected, rtol=1e-6, atol=0)


def test_given_the_fisher_matrix_itself_xi_is_that_of_iffim(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    G = dense_gradients(double_context, checkpoint, double_context.loss, double_context.train)
    g = dense_gradients(double_context, checkpoint, double_context.target, double_context.test)
    values, vectors = torch.linalg.eigh(G.T @ G / len(G))
    dense = Spectrum.of_curvature(values.where(values > 1e-12, 0.0), (g @ vectors).square(), len(G))
    for regularization in LAMBDAS:
        expected = spectrum_of(IFFIM, double_context).xi(regularization)
        torch.testing.assert_close(dense.xi(regularization), expected, rtol=1e-6, atol=0)


def test_own_eigenvalues_of_every_point_give_each_points_xi() -> None:
    h = torch.tensor([[4.0, 1.0, -2.0], [0.5, 3.0, 0.0]], dtype=torch.float64)
    squares = torch.tensor([[1.0, 2.0, 5.0], [3.0, 1.0, 4.0]], dtype=torch.float64)
    both = Spectrum.of_curvature(h, squares, 10)
    for point in range(2):
        alone = Spectrum.of_curvature(h[point], squares[point : point + 1], 10)
        torch.testing.assert_close(both.xi(0.1)[point], alone.xi(0.1)[0])
        torch.testing.assert_close(both.at(torch.tensor([point])).xi(0.1)[0], alone.xi(0.1)[0])


def test_a_point_without_positive_curvature_is_left_out_and_a_matrix_without_any_refused() -> None:
    h = torch.tensor([[4.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    spectrum = Spectrum.of_curvature(h, torch.ones(2, 2, dtype=torch.float64), 10)
    assert mean_xi([spectrum], 0.1) == float(spectrum.xi(0.1)[0])
    with pytest.raises(NotApplicableError, match="no positive eigenvalue"):
        Spectrum.of_curvature(h[1:], torch.ones(1, 2, dtype=torch.float64), 10)


def test_what_asks_for_eigenvalues_is_refused_a_quadrature() -> None:
    spectrum = Spectrum.of_curvature(torch.ones(2, 3).double(), torch.ones(2, 3).double(), 10)
    for ask in (lambda: n_outliers(spectrum), lambda: spectrum.without_leading(1)):
        with pytest.raises(NotApplicableError, match="along each test gradient only"):
            ask()


def test_what_asks_for_a_trace_is_refused_a_part_of_the_spectrum(double_context: Context) -> None:
    quadrature = spectrum_of(IFCG, double_context)
    leading = spectrum_of(IFArnoldi, double_context, projection_dim=5, max_iterations=20)
    assert n_outliers(leading) <= 5
    for spectrum in (quadrature, leading):
        with pytest.raises(NotApplicableError, match="a part of its curvature only"):
            spectrum.effective_dimension(1.0)


def test_gcv_is_refused_what_is_no_kernel_of_the_training_examples() -> None:
    spectrum = Spectrum.of_curvature(torch.ones(3).double(), torch.ones(2, 3).double(), 10)
    with pytest.raises(NotApplicableError, match="kernel of the training examples"):
        gcv(spectrum, 1.0)


@pytest.mark.parametrize("method", [IFExplicit, IFCG, IFArnoldi])
def test_every_checkpoint_has_a_spectrum(double_context: Context, method: type[Attributor]) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    twice = replace(double_context, checkpoints=(checkpoint, checkpoint))
    attributor = method()
    state = attributor.fit(twice, **method.stage(method.configure({"checkpoints": 2}), "fit"))
    first, second = attributor.spectrum(state) or ()
    assert first.xi(0.1).shape == second.xi(0.1).shape == (len(double_context.test),)
    assert float((first.xi(0.1) - second.xi(0.1)).abs().max()) < 0.2  # Arnoldi's starts differ


def test_a_model_that_diverged_is_refused_by_name(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    broken = {name: value * torch.nan for name, value in checkpoint.parameters.items()}
    diverged = replace(double_context, checkpoints=(replace(checkpoint, parameters=broken),))
    with pytest.raises(NotApplicableError, match="the Hessian is not finite: the model diverged"):
        spectrum_of(IFCG, diverged)
    with pytest.raises(NotApplicableError, match="the curvature is not finite"):
        Spectrum.of_curvature(torch.tensor([1.0, torch.nan]).double(), torch.ones(1, 2).double(), 10)


def test_a_test_gradient_of_zero_is_left_out(double_context: Context) -> None:
    loss = TrainingLoss(double_context, double_context.select_checkpoints()[0])
    starts = torch.zeros(2, loss.n_params, dtype=torch.float64)
    starts[1] = torch.randn(loss.n_params, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = lanczos(loss, starts, 5).spectrum
    assert spectrum.xi(0.1).isnan().tolist() == [True, False]
    assert mean_xi([spectrum], 0.1) == float(spectrum.xi(0.1)[1])


def test_nodes_that_rounding_of_the_products_made_do_not_count() -> None:
    diagonal, off_diagonal = torch.tensor([[1.0, 1e-7]]).double(), torch.tensor([[1e-9, 0.0]]).double()
    solution = KrylovSolution(diagonal, off_diagonal, torch.ones(1).double(), torch.empty(1, 2, 7))
    single = replace(solution, precision=torch.float32)
    assert int((solution.spectrum.coefficients > 0).sum()) == 2
    assert int((single.spectrum.coefficients > 0).sum()) == 1


def test_an_outlying_eigenvalue_lets_xi_dip_and_the_last_passage_counts() -> None:
    spectrum = Spectrum(torch.tensor([1.0, 1e-4]).double(), torch.tensor([[1.0, 1e-2]]).double(), 10)
    candidates = (1e-9, 1e-4, 1e-2, 1e-1)
    choice = pick_by_xi([spectrum], candidates)
    assert choice.criterion == pytest.approx([0.707, 0.578, 0.198, 0.950], abs=1e-3)
    assert choice.values == {"regularization": 1e-2}


def test_only_the_last_time_that_xi_passes_one_half_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of a short quadrature: ξ̄ is near one half at λ → 0 too."""
    curve = {1e-4: 0.49, 1e-3: 0.40, 1e-2: 0.44, 1e-1: 0.60, 1.0: 0.9}
    monkeypatch.setattr("attriboard.toolkit.regularization.mean_xi", lambda _, value: curve[value])
    assert pick_by_xi([], tuple(curve)).values == {"regularization": 1e-2}
    above = {1e-4: 0.6, 1e-3: 0.55, 1e-2: 0.7}
    curve.clear()
    curve.update(above)
    assert pick_by_xi([], tuple(above)).values == {"regularization": 1e-3}
