import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata, spearmanr

from attriboard.scoring.ranks import WeightedRanks, average_ranks, sort_rows, weighted_spearman


@given(arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=st.integers(0, 5).map(float)))
def test_average_ranks_equal_scipy(values):
    np.testing.assert_array_equal(average_ranks(sort_rows(values)), rankdata(values, axis=1))


@st.composite
def weighted_rows(draw):
    shape = (draw(st.integers(1, 3)), draw(st.integers(3, 10)))
    elements = draw(st.sampled_from([st.integers(0, 3).map(float), st.floats(-9, 9)]))
    x, y = (draw(arrays(np.float64, shape, elements=elements)) for _ in range(2))
    weights = draw(arrays(np.int64, (draw(st.integers(1, 4)), shape[1]), elements=st.integers(0, 3)))
    return x, y, weights


@given(weighted_rows())
@settings(deadline=None)
def test_multiplicities_equal_repeating_the_items(problem):
    x, y, weights = problem
    ours = weighted_spearman(sort_rows(x), sort_rows(y), weights.astype(float))
    for k, multiplicity in enumerate(weights):
        for t in range(len(x)):
            a, b = np.repeat(x[t], multiplicity), np.repeat(y[t], multiplicity)
            defined = len(set(a)) > 1 and len(set(b)) > 1
            expected = spearmanr(a, b).statistic if defined else 0.0
            np.testing.assert_allclose(ours[t, k], expected, atol=1e-12)


def test_what_is_kept_between_calls_changes_no_bit(monkeypatch):
    rng = np.random.default_rng(0)
    x, y, z = (sort_rows(rng.integers(0, 9, (3, 20)).astype(float)) for _ in range(3))
    weights = rng.integers(0, 3, (11, 20)).astype(float)
    monkeypatch.setattr("attriboard.scoring.ranks._KEPT_BYTES", 2000)  # room for two rows of three
    ranked = WeightedRanks(y, weights)
    for other in (x, z, x):
        np.testing.assert_array_equal(ranked.spearman(other), weighted_spearman(other, y, weights))


def test_sums_stay_exact_where_single_precision_and_short_integers_end():
    """All the weight on two tie groups makes the largest sums: n³ in the covariance, 2n in the ranks."""
    for total in (256, 257, 16_383, 16_384, 40_000):
        x = sort_rows(np.array([[0.0, 1.0, 1.0, 2.0]]))
        weights = np.array([[total // 2, 0.0, 0.0, total - total // 2], [1.0, 1.0, 1.0, total - 3.0]])
        np.testing.assert_allclose(WeightedRanks(x, weights).spearman(x), 1.0, rtol=0, atol=1e-15)
