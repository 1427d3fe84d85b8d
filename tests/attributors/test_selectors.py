"""Every selector against a value computed by hand or by brute force."""

import math

import pytest
import torch
from torch import Tensor

from attriboard.attributors.selectors.default import Default
from attriboard.attributors.selectors.deflated_surrogate import DeflatedSurrogate, n_outliers
from attriboard.attributors.selectors.early_stopping import EarlyStopping, training_time
from attriboard.attributors.selectors.effective_dimension import EffectiveDimension
from attriboard.attributors.selectors.gcv import GeneralizedCrossValidation, gcv
from attriboard.attributors.selectors.mean_eigenvalue import MeanEigenvalue
from attriboard.attributors.selectors.mean_eigenvalue_10 import TenMeanEigenvalues
from attriboard.attributors.selectors.oracle import Oracle
from attriboard.attributors.selectors.random_grid import RandomGrid
from attriboard.attributors.selectors.surrogate import Surrogate
from attriboard.attributors.selectors.training_horizon import TrainingHorizon
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.card import Recipe
from attriboard.contracts.schedule import learning_rate, n_steps
from attriboard.contracts.selector import Choice, Evidence, GroundTruthSelector, Selector
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.regularization import mean_xi, pick_by_xi
from attriboard.toolkit.spectrum import solve_features, solve_kernel

LAMBDAS = tuple(10.0 ** (step / 2) for step in range(-12, 7))
SMALL = {"regularization": (1e-8,)}  # of which ξ can only choose less than the training time asks for
RECIPE = Recipe(optimizer="sgd", learning_rate=0.1, momentum=0.9, epochs=20, batch_size=32)


def spectrum_of(seed: int = 0, n: int = 30, d: int = 40, n_test: int = 4) -> Spectrum:
    generator = torch.Generator().manual_seed(seed)
    decay = torch.logspace(0, -2, d, dtype=torch.float64)
    G, g = (torch.randn(size, d, dtype=torch.float64, generator=generator) * decay for size in (n, n_test))
    return solve_features(G, g).spectrum


def evidence(*spectra: Spectrum, **changes: object) -> Evidence:
    values: dict[str, object] = {
        "configuration": {"regularization": 0.0, "epoch": None},
        "candidates": {"regularization": LAMBDAS},
        "spectra": spectra,
        "recipe": RECIPE,
        "n_train": 100,
    }
    return Evidence(**(values | changes))  # type: ignore[arg-type]


def flat(eigenvalues: list[float], coefficients: list[float], n_train: int = 100) -> Spectrum:
    return Spectrum(torch.tensor(eigenvalues).double(), torch.tensor([coefficients]).double(), n_train)


def test_default_changes_nothing() -> None:
    assert Default().select(evidence()) == Choice({})


def test_surrogate_picks_the_candidate_whose_mean_xi_is_closest_to_one_half() -> None:
    spectra = (spectrum_of(0), spectrum_of(1))
    choice = Surrogate().select(evidence(*spectra))
    by_hand = [float(torch.stack([s.xi(value) for s in spectra]).mean()) for value in LAMBDAS]
    assert choice.criterion == pytest.approx(by_hand, rel=1e-12)
    best = min(LAMBDAS, key=lambda value: abs(by_hand[LAMBDAS.index(value)] - 0.5))
    assert choice.values == {"regularization": best}
    assert choice.objective == pytest.approx([abs(xi - 0.5) for xi in by_hand])


def test_xi_of_two_directions_is_what_the_formula_gives_by_hand() -> None:
    """σ = (3, 1), c² = (4, 1), λ = 1: t = (4/4 + 1/2, 4/16 + 1/4, 4/64 + 1/8)."""
    assert mean_xi([flat([3.0, 1.0], [2.0, 1.0])], 1.0) == pytest.approx(0.5 / math.sqrt(1.5 * 0.1875))


def test_points_without_gradients_are_left_out_and_nothing_but_them_is_a_refusal() -> None:
    one = Spectrum(torch.tensor([2.0, 1.0]).double(), torch.tensor([[1.0, 1.0], [0.0, 0.0]]).double(), 10)
    assert mean_xi([one], 0.1) == pytest.approx(float(one.xi(0.1)[0]))
    with pytest.raises(NotApplicableError, match="r is not zero"):
        Surrogate().select(evidence(flat([2.0, 1.0], [0.0, 0.0])))
    with pytest.raises(NotApplicableError, match="r is not zero"):
        GeneralizedCrossValidation().select(evidence(flat([2.0, 1.0], [0.0, 0.0])))


BULK = [1.0 - 0.01 * step for step in range(60)]
BULK_COEFFICIENTS = [1.0 + 0.3 * math.sin(step) for step in range(60)]


def test_an_outlier_that_carries_nearly_all_of_r_is_removed() -> None:
    """One eigenvalue at ten times the bulk with 99 % of |r|²: ξ alone describes that direction and damps the bulk."""
    size = sum(c * c for c in BULK_COEFFICIENTS)
    spectrum = flat([10.0, *BULK], [math.sqrt(99 * size), *BULK_COEFFICIENTS])
    bulk = flat(BULK, BULK_COEFFICIENTS)
    assert n_outliers(spectrum) == 1
    deflated = DeflatedSurrogate().select(evidence(spectrum))
    plain = Surrogate().select(evidence(spectrum))
    alone = pick_by_xi([bulk], LAMBDAS)
    assert deflated.values == alone.values
    assert deflated.criterion == alone.criterion
    assert deflated.values != plain.values
    assert deflated.note == "removed [1] leading eigenvalues"


@pytest.mark.parametrize("gap", [1.5, 2.9])
def test_without_a_gap_of_three_deflation_is_the_surrogate(gap: float) -> None:
    spectrum = flat([gap, *BULK], [50.0, *BULK_COEFFICIENTS])
    deflated, plain = DeflatedSurrogate().select(evidence(spectrum)), Surrogate().select(evidence(spectrum))
    assert (deflated.values, deflated.criterion) == (plain.values, plain.criterion)
    assert deflated.note == "removed [0] leading eigenvalues"


@pytest.mark.parametrize(
    ("eigenvalues", "count"),
    [
        ([90.0, 30.0, 10.0, 9.0], 2),  # the last gap of three cuts, not the first
        ([10.0, 9.0, 3.0, 2.9, 2.8], 2),
        ([5.0], 0),
        ([2.0] * 10 + [0.1], 10),  # the tenth gap still counts
        ([2.0] * 11 + [0.1], 0),  # the eleventh does not
    ],
)
def test_gap_rule_counts_outliers(eigenvalues: list[float], count: int) -> None:
    assert n_outliers(flat(eigenvalues, [1.0] * len(eigenvalues))) == count


def test_gap_rule_looks_at_eigenvalues_only() -> None:
    eigenvalues = [10.0, *BULK]
    counts = {n_outliers(flat(eigenvalues, [scale, *BULK_COEFFICIENTS])) for scale in (0.0, 1.0, 1e6)}
    assert counts == {1}


def test_each_checkpoint_is_deflated_by_its_own_gap() -> None:
    spectra = flat([10.0, *BULK], [80.0, *BULK_COEFFICIENTS]), flat(BULK, BULK_COEFFICIENTS)
    choice = DeflatedSurrogate().select(evidence(*spectra))
    assert choice.note == "removed [1, 0] leading eigenvalues"
    assert choice.criterion == pick_by_xi([spectra[1]], LAMBDAS).criterion


def test_mean_eigenvalue_is_a_tenth_of_the_mean_over_checkpoints() -> None:
    choice = MeanEigenvalue().select(evidence(flat([3.0, 1.0], [1.0, 1.0]), flat([8.0], [1.0])))
    assert choice.values == {"regularization": pytest.approx(0.1 * (2.0 + 8.0) / 2)}
    ten = TenMeanEigenvalues().select(evidence(flat([3.0, 1.0], [1.0, 1.0]), flat([8.0], [1.0])))
    assert ten.values["regularization"] == pytest.approx(100 * float(choice.values["regularization"]))
    assert MeanEigenvalue(c=1.0).select(evidence(flat([3.0, 1.0], [1.0, 1.0]))).values["regularization"] == 2.0


def explicit_gcv(K: Tensor, r: Tensor, value: float) -> Tensor:
    """‖(I − A) r‖²/n / (tr(I − A)/n)², over |r|²/n, with A = (K/n)(K/n + λI)⁻¹ written out; r (n, n_test)."""
    n = len(K)
    identity = torch.eye(n, dtype=torch.float64)
    rest = identity - K / n @ torch.linalg.inv(K / n + value * identity)
    return (rest @ r).square().sum(0) / n / (rest.trace() / n) ** 2 / (r.square().sum(0) / n)


@pytest.mark.parametrize(("n", "d"), [(20, 30), (20, 6)])
def test_gcv_is_the_matrix_formula(n: int, d: int) -> None:
    generator = torch.Generator().manual_seed(n + d)
    G, g = (torch.randn(size, d, dtype=torch.float64, generator=generator) for size in (n, 3))
    for found in (solve_kernel(G @ G.T, G @ g.T).spectrum, solve_features(G, g).spectrum):
        for value in (1e-6, 1e-3, 0.1, 1.0, 100.0):
            torch.testing.assert_close(gcv(found, value), explicit_gcv(G @ G.T, G @ g.T, value), rtol=1e-6, atol=1e-14)


def test_gcv_is_leave_one_out_where_all_examples_have_the_same_leverage() -> None:
    """A circulant kernel: refit without each example, predict it, and average the squared errors."""
    n, value = 12, 0.05
    lags = torch.arange(n).double()
    row = torch.exp(-torch.minimum(lags, n - lags))
    K = torch.stack([row.roll(step) for step in range(n)])
    r = torch.randn(n, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    errors = []
    for i in range(n):
        kept = torch.arange(n) != i
        weights = torch.linalg.solve(K[kept][:, kept] + n * value * torch.eye(n - 1, dtype=torch.float64), r[kept])
        errors.append(r[i] - K[i, kept] @ weights)
    leave_one_out = torch.stack(errors).square().mean(0) / (r.square().sum(0) / n)
    torch.testing.assert_close(gcv(solve_kernel(K.clone(), r).spectrum, value), leave_one_out, rtol=1e-8, atol=0)


def test_gcv_selects_the_smallest_mean_over_test_points_and_checkpoints() -> None:
    spectra = (spectrum_of(2), spectrum_of(3))
    choice = GeneralizedCrossValidation().select(evidence(*spectra))
    by_hand = [float(torch.cat([gcv(s, value) for s in spectra]).mean()) for value in LAMBDAS]
    assert choice.objective == pytest.approx(by_hand)
    assert choice.values == {"regularization": LAMBDAS[by_hand.index(min(by_hand))]}


def test_gcv_of_a_full_rank_kernel_stays_precise_far_below_the_spectrum() -> None:
    """tr(I − A) is 1e-14 of n there; n minus the effective dimension would have no digit left."""
    eigenvalues = torch.linspace(3.0, 1.0, 50, dtype=torch.float64)
    coefficients = torch.ones(1, 50, dtype=torch.float64)
    expected = (1 / eigenvalues**2).sum() / 50 / (1 / eigenvalues).mean() ** 2
    found = gcv(Spectrum(eigenvalues, coefficients, 50), 1e-14)
    torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=0)


def test_training_horizon_is_one_over_learning_rate_times_steps() -> None:
    """100 examples in batches of 32 are 4 steps; 20 epochs at 0.1/(1 − 0.9) = 1."""
    assert TrainingHorizon().select(evidence()).values == {"regularization": pytest.approx(1 / 80)}
    early = evidence(configuration={"regularization": 0.0, "epoch": 5})
    assert TrainingHorizon().select(early).values == {"regularization": pytest.approx(1 / 20)}


def gradients_fall(*squares: float) -> dict[str, object]:
    """At epochs 5, 10, 20 of `RECIPE`."""
    return {"gradient_squares": dict(zip((5, 10, 20), squares, strict=True))}


def test_early_stopping_brings_one_over_the_training_time_to_the_scale_of_the_matrix() -> None:
    """tr C = 6 and 10 in the mean 8; tr F is 4 up to epoch 5, then 4 → 2 → 1: its mean is (20 + 15 + 15)/20; T = 80."""
    spectra = flat([4.0, 2.0], [1.0, 1.0]), flat([10.0], [1.0])
    choice = EarlyStopping().select(evidence(*spectra, **gradients_fall(4.0, 2.0, 1.0), candidates=SMALL))
    assert choice.values == {"regularization": pytest.approx(8 / (2.5 * 80), rel=1e-12)}
    assert choice.criterion is None


def test_early_stopping_takes_the_larger_of_the_horizon_and_xi() -> None:
    spectrum = spectrum_of()
    plain = Surrogate().select(evidence(spectrum))
    weak = EarlyStopping().select(evidence(spectrum, **gradients_fall(1e6, 1e6, 1e6)))
    assert (weak.values, weak.criterion, weak.objective) == (plain.values, plain.criterion, plain.objective)
    strong = EarlyStopping().select(evidence(spectrum, **gradients_fall(1e-3, 1e-3, 1e-3)))
    assert float(strong.values["regularization"] or 0) > float(plain.values["regularization"] or 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (gradients_fall(4.0, 4.0, 0.2), "fell to 0.066 of their mean"),
        ({"gradient_squares": {20: 1e-3}}, "models of one epoch only"),
        ({"gradient_squares": {5: 1e-3, 10: 1e-3}}, "models of one epoch only"),
        (gradients_fall(1e-3, 1e-3, 1e-3) | {"recipe": RECIPE.model_copy(update={"optimizer": "adamw"})}, "not by SGD"),
    ],
)
def test_early_stopping_is_the_surrogate_where_the_training_time_says_nothing(
    changes: dict[str, object], said: str
) -> None:
    spectrum = spectrum_of()
    choice, plain = (selector.select(evidence(spectrum, **changes)) for selector in (EarlyStopping(), Surrogate()))
    assert (choice.values, choice.criterion) == (plain.values, plain.criterion)
    assert choice.note.startswith("as surrogate: ")
    assert said in choice.note


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.25])
def test_the_training_time_adds_up_the_learning_rates_of_the_trainer(schedule: str, warmup: float) -> None:
    recipe = RECIPE.model_copy(update={"schedule": schedule, "warmup": warmup, "epochs": 6})
    for epochs in (1, 4, 6):
        rates = [learning_rate(recipe, step, n_steps(recipe, 100)) for step in range(4 * epochs)]
        assert training_time(recipe, 100, epochs) == pytest.approx(sum(rates) / (1 - 0.9), rel=1e-12)


def test_the_training_time_of_constant_and_linear_rates_is_the_closed_form() -> None:
    constant = RECIPE.model_copy(update={"schedule": "constant", "warmup": 0.0, "epochs": 6})
    linear = constant.model_copy(update={"schedule": "linear"})
    unit = RECIPE.learning_rate / (1 - RECIPE.momentum)
    assert training_time(constant, 100, 4) == pytest.approx(16 * unit, rel=1e-12)  # 4 batches an epoch
    assert training_time(linear, 100, 6) == pytest.approx((24 + 1) / 2 * unit, rel=1e-12)


def test_early_stopping_is_the_ridge_of_stopped_gradient_flow_on_a_linear_model() -> None:
    """Least squares in float64: λ_T is the ridge whose filter is nearest to gradient flow, within a factor of 4."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(200, 12, dtype=torch.float64, generator=generator) * torch.logspace(0, -1.5, 12).double()
    noise = torch.randn(200, dtype=torch.float64, generator=generator)
    residuals = noise - noise.mean()  # of size 1, as far as training did not fit them: F is then the Hessian
    time, gradients = 30.0, x * residuals[:, None]
    spectrum = solve_features(gradients, gradients[:5]).spectrum
    square = float(gradients.square().sum(1).mean())
    recipe = Recipe(optimizer="sgd", learning_rate=time / 10, momentum=0.0, epochs=10, batch_size=200)
    found = EarlyStopping().select(
        evidence(spectrum, recipe=recipe, n_train=200, gradient_squares={1: square, 10: square}, candidates=SMALL)
    )
    sigma = torch.linalg.eigvalsh(x.T @ x / 200)
    flow = (1 - torch.exp(-sigma * time)) / sigma
    tried = torch.logspace(-4, 1, 400).double()
    misfit = (torch.log(1 / (sigma + tried[:, None])) - torch.log(flow)).square().sum(1)
    best = float(tried[misfit.argmin()])
    assert best / 4 < float(found.values["regularization"] or 0) < 4 * best


def test_random_grid_is_determined_by_the_seed_and_reaches_every_candidate() -> None:
    picks = [RandomGrid().select(evidence(seed=seed)).values["regularization"] for seed in range(300)]
    assert picks == [RandomGrid().select(evidence(seed=seed)).values["regularization"] for seed in range(300)]
    assert set(picks) == set(LAMBDAS)


def test_effective_dimension_takes_the_smallest_projection_that_is_large_enough() -> None:
    spectrum = spectrum_of(n=60, d=80)
    dimensions = (2.0, 8.0, 32.0, 64.0, 128.0, 512.0)
    both = {"regularization": LAMBDAS, "projection_dim": dimensions}
    choice = EffectiveDimension().select(evidence(spectrum, candidates=both))
    value = pick_by_xi([spectrum], LAMBDAS).values["regularization"]
    needed = 12 * float((spectrum.eigenvalues / (spectrum.eigenvalues + value)).sum())
    assert choice.values == {"regularization": value, "projection_dim": next(d for d in dimensions if d >= needed)}
    few = EffectiveDimension(c=1e6).select(evidence(spectrum, candidates=both))
    assert few.values["projection_dim"] == 512


def test_oracle_takes_the_first_of_the_best() -> None:
    assert Oracle().select([0.1, 0.3, 0.2, 0.3]) == 1


@pytest.mark.parametrize(
    "selector", [Surrogate(), DeflatedSurrogate(), GeneralizedCrossValidation(), RandomGrid(), EffectiveDimension()]
)
@pytest.mark.parametrize("candidates", [{}, {"regularization": ()}])
def test_selectors_of_candidates_say_that_there_are_none(
    selector: Selector, candidates: dict[str, tuple[float, ...]]
) -> None:
    with pytest.raises(NotApplicableError, match="no positive number to choose from"):
        selector.select(evidence(spectrum_of(), candidates=candidates))


def test_evidence_has_no_field_for_ground_truth() -> None:
    fields = set(Evidence.__dataclass_fields__)
    assert fields == {"configuration", "candidates", "spectra", "recipe", "n_train", "seed", "gradient_squares"}
    assert not issubclass(GroundTruthSelector, Selector)
    assert not issubclass(Oracle, Selector)
