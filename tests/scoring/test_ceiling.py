import numpy as np
import pytest

from attriboard.base.errors import InputError
from attriboard.scoring.ceiling import noise_ceiling, noiseless_ceiling
from attriboard.scoring.lds import correlate


def simulate(rng, reliability, n_masks, n_repeats):
    """Perfect predictions (n_masks, n_test) and outputs; `reliability` of one repeat per test point."""
    signal = rng.standard_normal((n_masks, reliability.size)) * np.sqrt(reliability)
    noise = rng.standard_normal((n_masks, n_repeats, reliability.size)) * np.sqrt(1 - reliability)
    return signal, signal[:, None] + noise


LAWS = {
    "weak": lambda rng: np.full(80, 0.1),
    "strong": lambda rng: np.full(80, 0.8),
    "mixed": lambda rng: rng.uniform(0.0, 0.6, 80),
    "skewed": lambda rng: rng.beta(0.5, 2.0, 80),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("n_repeats", "tolerance"), [(2, 0.02), (5, 0.01)])
def test_the_ceiling_is_what_a_perfect_predictor_gets(law, n_repeats, tolerance):
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(25):
        perfect, outputs = simulate(rng, LAWS[law](rng), 200, n_repeats)
        differences.append(noise_ceiling(outputs).mean - correlate(perfect, outputs).mean)
    assert abs(np.mean(differences)) < tolerance


def test_the_interval_covers_the_expected_ceiling():
    rng = np.random.default_rng(1)
    laws = [rng.uniform(0.1, 0.6, 60) for _ in range(200)]
    estimates = [noise_ceiling(simulate(rng, law, 60, 5)[1]) for law in laws]
    truth = np.mean([correlate(*simulate(rng, law, 60, 5)).mean for law in laws])
    assert np.mean([e.ci95[0] <= truth <= e.ci95[1] for e in estimates]) > 0.92


def test_pure_noise_has_a_ceiling_near_zero_and_no_noise_one_of_one():
    rng = np.random.default_rng(2)
    noise = noise_ceiling(rng.standard_normal((200, 5, 100)))
    assert 0.0 <= noise.ci95[0] <= noise.mean < 0.1
    exact = noise_ceiling(np.repeat(rng.standard_normal((20, 1, 6)), 3, axis=1))
    assert exact.mean == pytest.approx(1.0)
    np.testing.assert_allclose(exact.per_test, 1.0)


def test_constant_outputs_count_as_zero_as_they_do_in_the_lds():
    outputs = np.random.default_rng(3).standard_normal((20, 1, 6)) + np.zeros((20, 3, 6))
    outputs[:, :, 2] = 4.0
    ceiling = noise_ceiling(outputs)
    assert ceiling.per_test[2] == 0.0
    assert np.isfinite(ceiling.per_test).all()


def test_scale_and_offset_do_not_matter():
    _, outputs = simulate(np.random.default_rng(4), np.full(10, 0.4), 50, 3)
    assert noise_ceiling(1e-4 * outputs + 3.0).mean == pytest.approx(noise_ceiling(outputs).mean)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [((50, 1, 10), "n_repeats = 1"), ((4, 3, 10), "n_masks = 4"), ((50, 3, 1), "n_test = 1")],
)
def test_too_little_data_gives_a_reason_in_place_of_a_number(shape, reason):
    ceiling = noise_ceiling(np.random.default_rng(5).standard_normal(shape))
    assert ceiling.mean is None
    assert ceiling.ci95 is None
    assert ceiling.per_test is None
    assert reason in ceiling.reason


def test_outputs_without_a_repeat_axis_are_refused():
    with pytest.raises(InputError, match=r"outputs \(5, 4\): expected \(n_masks, n_repeats, n_test\)"):
        noise_ceiling(np.zeros((5, 4)))


def test_retrains_that_repeat_have_a_ceiling_of_one_but_where_outputs_are_constant():
    outputs = np.random.default_rng(0).standard_normal((10, 1, 4))
    assert noiseless_ceiling(outputs).mean == 1.0
    outputs[:, :, 2] = 0.5
    found = noiseless_ceiling(outputs)
    assert found.per_test.tolist() == [1, 1, 0, 1]
    assert found.mean == 0.75
    assert found.ci95 == (0.75, 0.75)
