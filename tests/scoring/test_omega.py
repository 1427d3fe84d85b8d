"""ω from a few retrains, on random linear models, where ω and the best λ are known in closed form.

The retrained target is linear in the subset, with the influence of every example that of ridge at some λ₀: ψ = τ_λ₀.
So λ₀ is the best λ of every test point, and ξ is right exactly where λ₀ is its pick.
"""

from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attriboard.base.errors import InputError
from attriboard.scoring.omega import Omega, estimate_omega

N, D = 80, 30


class Linear:
    """Scores of ridge at any λ on gradients that sum to zero, as at a stationary point."""

    def __init__(self, seed, n_test):
        random = np.random.default_rng(seed)
        decay = np.logspace(0.3, -1.2, D)
        self.gradients = random.normal(size=(N, D)) * decay
        self.gradients -= self.gradients.mean(axis=0)
        self.products = self.gradients @ (random.normal(size=(n_test, D)) * decay).T
        self.values, self.vectors = np.linalg.eigh(self.gradients @ self.gradients.T / N)
        self.random = random

    def power(self, value, order):
        """(K/n + λ)^−order r, (n_train, n_test)."""
        return self.vectors @ ((self.vectors.T @ self.products) / (self.values[:, None] + value) ** order)

    def scores(self, value):
        return -self.power(value, 1).T

    def moments(self, value):
        return [(self.products * self.power(value, order)).sum(axis=0) for order in (1, 2, 3)]

    def xi(self, value):
        t1, t2, t3 = self.moments(value)
        return float((t2 / np.sqrt(t1 * t3)).mean())

    def pick(self):
        grid = np.logspace(-6, 3, 181)
        return grid[np.argmin([abs(self.xi(value) - 0.5) for value in grid])]

    def subsets(self, k):
        masks = np.zeros((k, N))
        for mask in masks:
            mask[self.random.permutation(N)[: N // 2]] = 1.0
        return masks

    def estimate(self, value, psi, k, noise=0.0, step=0.5):
        masks = self.subsets(k)
        outputs = masks @ psi.T
        outputs = outputs + noise * outputs.std(axis=0) * self.random.normal(size=outputs.shape)
        decades = np.log10(value) + step * np.array([-1.0, 0.0, 1.0])
        taus = [self.scores(10.0**d) for d in decades]
        predictions = np.stack([masks @ tau.T for tau in taus])
        spreads = np.stack([np.linalg.norm(tau, axis=1) for tau in taus])
        return estimate_omega(predictions, outputs, spreads, decades, self.xi(value))


@given(st.integers(0, 10_000), st.floats(-1.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_with_many_retrains_the_estimate_is_the_closed_form(seed, shift):
    model = Linear(seed, n_test=1)
    value = model.pick()
    psi = model.scores(value * 10**shift)
    o1, o2 = (float(-(model.power(value, order)[:, 0] @ psi[0])) for order in (1, 2))
    t1, _, t3 = (float(t[0]) for t in model.moments(value))
    closed = (o1 / np.sqrt(t1)) / (o2 / np.sqrt(t3))
    found = model.estimate(value, psi, k=4000, step=0.05)
    assert found.value == pytest.approx(closed, rel=0.1)
    assert (closed > model.xi(value)) == (shift > 0) or abs(shift) < 0.02


@pytest.mark.parametrize(("shift", "side"), [(1.5, "above"), (-1.5, "below")])
def test_the_warning_fires_where_the_best_lambda_lies_far_from_xis(shift, side):
    fired = []
    for seed in range(20):
        model = Linear(seed, n_test=40)
        value = model.pick()
        found = model.estimate(value, model.scores(value * 10**shift), k=16, noise=1.0)
        assert found.trusts_xi == (found.low <= 0.5 <= found.high)
        fired.append(found.low > 0.5 if side == "above" else found.high < 0.5)
    assert np.mean(fired) >= 0.8


class Cosines(Linear):
    """Scores of unit length, whatever λ."""

    def scores(self, value):
        scores = super().scores(value)
        return scores / np.linalg.norm(scores, axis=1, keepdims=True)


def test_scores_that_do_not_shrink_with_lambda_have_no_omega():
    model = Cosines(0, n_test=40)
    value = model.pick()
    assert model.estimate(value, Linear(0, n_test=40).scores(value), k=16, noise=1.0) is None


def test_the_warning_stays_silent_where_xi_is_right():
    silent = []
    for seed in range(40):
        model = Linear(seed, n_test=40)
        value = model.pick()
        silent.append(model.estimate(value, model.scores(value), k=16, noise=1.0).trusts_xi)
    assert np.mean(silent) >= 0.85


def test_points_without_spread_are_left_out_and_omega_is_bounded():
    model = Linear(0, n_test=3)
    value = model.pick()
    masks, decades = model.subsets(8), np.log10(value) + np.array([-0.5, 0.0, 0.5])
    taus = [model.scores(10.0**d) for d in decades]
    predictions = np.stack([masks @ tau.T for tau in taus])
    spreads = np.stack([np.linalg.norm(tau, axis=1) for tau in taus])
    outputs = masks @ model.scores(1e6).T
    plain = estimate_omega(predictions, outputs, spreads, decades, 0.5)
    assert 0.5 < plain.low <= plain.value <= 10.0
    predictions[:, :, 1], spreads[1, 1] = np.nan, np.inf
    kept = [0, 2]
    same = estimate_omega(predictions[:, :, kept], outputs[:, kept], spreads[:, kept], decades, 0.5)
    left_out = estimate_omega(predictions, outputs, spreads, decades, 0.5)
    assert astuple(left_out) == pytest.approx(astuple(same), rel=1e-12)  # sums may run in another order
    assert Omega(0.5, 0.4, 0.6).trusts_xi
    assert not Omega(0.7, 0.6, 0.8).trusts_xi


def test_what_does_not_fit_together_is_refused():
    good = (np.zeros((3, 5, 4)), np.zeros((5, 4)), np.ones((3, 4)), np.array([0.0, 1.0, 2.0]))
    for at, bad in ((0, np.zeros((2, 5, 4))), (2, np.ones((3, 3))), (3, np.array([0.0, 0.0, 1.0]))):
        arguments = [*good]
        arguments[at] = bad
        with pytest.raises(InputError, match=r"expected|ascend"):
            estimate_omega(*arguments, 0.5)
