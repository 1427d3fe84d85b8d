"""Which rules fit a grid, and what ξ says of it.

`best` and `smoothed` look at LDS; `posterior`, `pooled` and `between` at pooled correlations (see
`attriboard.scoring.rules`). `pooled` adds ξ's pick as a prior, and `between` also chooses between grid points of λ. The
last one that fits is the default of `attriboard select --budget`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Selected
from attriboard.contracts.selector import REGULARIZATION
from attriboard.scoring.omega import Omega, estimate_omega
from attriboard.scoring.rules import BEST, Geometry, Rule, posterior, prior_of_center, smoothed

WIDEST_STEP = 1.5  # decades between ξ's λ and its neighbors, above which derivatives are not estimated
FEWEST = 4  # models that an interval over models needs


def varying(configurations: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Names of the hyperparameters that differ."""
    first = configurations[0]
    return tuple(name for name in first if any(c[name] != first[name] for c in configurations))


def positions(points: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """log₁₀ λ of every grid point, (n_grid,): λ = 0 at a tenth of the smallest other, NaN where λ is no number."""
    values = [point.get(REGULARIZATION) for point in points]
    numbers = [math.nan if value is None or isinstance(value, (bool, str)) else float(value) for value in values]
    least = min((number for number in numbers if number > 0), default=math.nan)
    return np.array([math.log10(least / 10 if number <= 0 else number) for number in numbers])


def swept_alone(points: Sequence[Mapping[str, Any]]) -> bool:
    """Whether grid points differ in λ alone, and it is a number."""
    return varying(points) == (REGULARIZATION,) and not np.isnan(positions(points)).all()


def centers(n_points: int, choices: Iterable[Selected]) -> NDArray[np.float64]:
    """log₁₀ of the λ that ξ chose on the fit of every grid point, (n_points,); NaN where it chose none."""
    found = np.full(n_points, math.nan)
    for choice in choices:
        value = choice.values.get(REGULARIZATION)
        if choice.reason is None and isinstance(value, (int, float)) and value > 0:
            mine = [index for index in choice.configurations if index < n_points]
            found[mine] = math.log10(value)
    return found


def choice_rules(points: Sequence[Mapping[str, Any]], shape: Geometry, xi: NDArray[np.float64]) -> dict[str, Rule]:
    """The rules that fit a grid, by name, the best last.

    Args:
        points: complete configurations.
        shape: of their predictions.
        xi: from `centers`.
    """
    swept, place, alone = varying(points), positions(points), swept_alone(points)
    rules = {"best": BEST} | ({"smoothed": smoothed(place)} if alone else {})
    rules["posterior"] = posterior(shape.similarity)
    prior = None if np.isnan(xi).all() or REGULARIZATION not in swept else prior_of_center(place, xi)
    if prior is not None:
        rules["pooled"] = posterior(shape.similarity, prior)
    if alone:
        # Nothing lies between λ = 0 and a positive λ on a log axis.
        inner = np.where([point[REGULARIZATION] == 0 for point in points], math.nan, place)
        rules["between"] = posterior(shape.similarity, prior, inner)
    return rules


def omega_at_pick(
    choice: Selected,
    points: Mapping[int, Mapping[str, Any]],
    predictions: Mapping[int, NDArray[np.float64]],
    outputs: NDArray[np.float64],
    spreads: Mapping[int, NDArray[np.float64]],
) -> Omega | None:
    """ω at the λ that ξ chose; `None` where there is none.

    That is where the grid has no neighbors close to it, the models are too few, or scores do not shrink as λ grows.

    Args:
        choice: of `surrogate`.
        points: number of a configuration → the configuration.
        predictions: (k, n_test) of each that did not fail.
        outputs: (k, n_test).
        spreads: (n_test,) of each.
    """
    picked = choice.values.get(REGULARIZATION)
    if (
        choice.reason is not None
        or choice.criterion is None
        or len(outputs) < FEWEST
        or picked not in choice.candidates
    ):
        return None
    by_value = {points[i][REGULARIZATION]: i for i in choice.configurations if i in predictions}
    values = sorted(value for value in by_value if isinstance(value, (int, float)) and value > 0)
    at = values.index(picked) if picked in values else 0
    if not 0 < at < len(values) - 1:
        return None
    near = values[at - 1 : at + 2]
    decades = np.log10(np.array(near, dtype=np.float64))
    if np.diff(decades).max() > WIDEST_STEP:
        return None
    three = [by_value[value] for value in near]
    return estimate_omega(
        np.stack([predictions[i] for i in three]),
        outputs,
        np.stack([spreads[i] for i in three]),
        decades,
        choice.criterion[choice.candidates.index(float(near[1]))],
    )
