"""The noise ceiling: the LDS of a perfect predictor, limited only by the noise of retraining.

For each test point the retrained targets follow a one-way random-effects model, y_kr = S_k + ε_kr over
masks k and repeats r. A perfect predictor knows S_k; graded against the mean of R repeats its Pearson
correlation is √λ, with the reliability λ = σ_S² / (σ_S² + σ_ε²/R). From the mean squares between and within
masks (Shrout & Fleiss 1979),

    λ̂ = 1 − (n_masks − 3)/(n_masks − 1) · MS_within / MS_between,

which is unbiased under normality since E[1/χ²_ν] = 1/(ν − 2). Under bivariate normality a correlation ρ
becomes an expected Spearman correlation over n masks of (Moran 1948, *Biometrika* 35)

    6/(π(n + 1)) · [asin ρ + (n − 2) asin(ρ/2)]        (→ (6/π) asin(ρ/2) as n grows).

The root of a noisy λ̂ is biased downwards, and cutting negative ones at 0 biases upwards. So the λ̂ are
first drawn toward their mean until their variance is what remains after the sampling variance (1 −
λ)²(2/(n_masks − 1) + 2/(n_masks(R − 1))) is taken out (constrained empirical Bayes: Louis 1984); then cut
to [0, 1].

Simulated bias, 200 masks × 100 test points, over reliabilities of a single repeat that are constant (.02,
.1, .3, .8), uniform on (0, .6) or Beta(.5, 2): at most .006 for R = 5 and .014 for R = 2; without shrinking
.026 and .020; split-half rank correlations with Spearman–Brown .029 and .025. If half of the test points
carry no signal at all, every estimator that keeps to [0, 1] is too high by about .07.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.scoring.differences import t_quantile
from attriboard.scoring.lds import mean_outputs

LEAST = 0.3
"""Under this ceiling a ground truth is mostly noise: what it says of methods is shown, and ranks none."""


@dataclass(frozen=True, eq=False)
class Ceiling:
    """The mean LDS that a perfect predictor would get.

    Attributes:
        mean: over test points; `None` where it cannot be estimated.
        ci95: 95 % interval over masks and test points; `None` with `mean`.
        per_test: (n_test,) estimates, 0 where the outputs are constant; `None` with `mean`.
        reason: why there is no estimate; empty otherwise.
    """

    mean: float | None
    ci95: tuple[float, float] | None
    per_test: NDArray[np.float64] | None
    reason: str = ""


def noiseless_ceiling(outputs: NDArray[Any]) -> Ceiling:
    """The ceiling of retrains that repeat exactly: 1 at every test point whose outputs are not constant.

    Args:
        outputs: (n_masks, n_repeats, n_test) targets of the retrained models.

    Raises:
        InputError: an output is not finite.
    """
    means = mean_outputs(outputs)
    per_test = (means != means[:1]).any(axis=0).astype(np.float64)
    mean = float(per_test.mean())
    return Ceiling(mean, (mean, mean), per_test)


def noise_ceiling(outputs: NDArray[Any]) -> Ceiling:
    """Estimate the noise ceiling of a ground truth.

    Args:
        outputs: (n_masks, n_repeats, n_test) targets of the retrained models.

    Raises:
        InputError: not three axes, or an output is not finite.
    """
    if outputs.ndim != 3:
        raise InputError(f"outputs {outputs.shape}: expected (n_masks, n_repeats, n_test)")
    means = mean_outputs(outputs)
    n_masks, n_repeats, n_test = outputs.shape
    for name, size, least in (("n_repeats", n_repeats, 2), ("n_masks", n_masks, 5), ("n_test", n_test, 2)):
        if size < least:
            return Ceiling(None, None, None, f"{name} = {size}: a noise ceiling needs at least {least}")

    within_by_mask = outputs.var(axis=1, dtype=np.float64, ddof=1)
    centered = means - means.mean(axis=0)
    within, squares = within_by_mask.mean(axis=0), (centered**2).sum(axis=0)
    reliability = _reliability(squares, within, n_masks, n_repeats)
    per_test = _expected_spearman(_shrunk(reliability, n_masks, n_repeats), n_masks)

    # Without mask k, whose mean deviates by d, a sum of squares about the mean loses d² · n/(n − 1).
    squares_without = np.maximum(squares - centered**2 * (n_masks / (n_masks - 1)), 0.0)
    within_without = (n_masks * within - within_by_mask) / (n_masks - 1)
    left_out = [
        _expected_spearman(_shrunk(row, n_masks - 1, n_repeats), n_masks).mean()
        for row in _reliability(squares_without, within_without, n_masks - 1, n_repeats)
    ]
    v_mask = (n_masks - 1) * np.var(left_out)
    v_test = _expected_spearman(reliability, n_masks).var(ddof=1) / n_test  # unshrunk: noise belongs in it
    reach = t_quantile(min(n_masks, n_test) - 1) * float(np.sqrt(v_mask + v_test))
    mean = float(per_test.mean())
    return Ceiling(mean, (max(mean - reach, 0.0), min(mean + reach, 1.0)), per_test)


def _reliability(
    squares: NDArray[np.float64], within: NDArray[np.float64], n_masks: int, n_repeats: int
) -> NDArray[np.float64]:
    """Unbiased λ̂, any shape, from Σ_k (ȳ_k − ȳ)² and the mean square within masks; 0 for constant outputs."""
    between = n_repeats * squares / (n_masks - 1)
    noise = (n_masks - 3) / (n_masks - 1) * within
    ratio = np.divide(noise, between, out=np.ones_like(between), where=between > 0)
    return 1.0 - ratio


def _shrunk(reliability: NDArray[np.float64], n_masks: int, n_repeats: int) -> NDArray[np.float64]:
    """Draw the λ̂ (n_test,) toward their mean, leaving the variance that sampling does not explain.

    Test points of constant outputs stay at 0.
    """
    sampling = ((1 - reliability) ** 2).mean() * (2 / (n_masks - 1) + 2 / (n_masks * (n_repeats - 1)))
    spread = reliability.var(ddof=1)
    keep = np.sqrt(1 - sampling / spread) if spread > sampling else 0.0
    center = reliability.mean()
    shrunk: NDArray[np.float64] = np.where(reliability == 0, 0.0, center + keep * (reliability - center))
    return shrunk


def _expected_spearman(reliability: NDArray[np.float64], n_masks: int) -> NDArray[np.float64]:
    """Moran's expected Spearman correlation over n_masks masks of a Pearson correlation √λ."""
    root = np.sqrt(np.clip(reliability, 0.0, 1.0))
    expected: NDArray[np.float64] = (
        6 / (np.pi * (n_masks + 1)) * (np.arcsin(root) + (n_masks - 2) * np.arcsin(root / 2))
    )
    return expected
