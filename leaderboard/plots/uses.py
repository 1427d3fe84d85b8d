"""Figures of what attributions are used for: removal by rate and by hyperparameter, brittleness, mislabel detection."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.style import (
    BAND,
    INK,
    LEGEND,
    MUTED,
    ORACLE,
    PICK,
    Marks,
    draw_marks,
    draw_xi,
    label_of,
    set_scale,
    stacked_axes,
    styled,
)
from attriboard.leaderboard.removal_rows import ACCURACY, Quantity, RemovalRow, headline_quantity
from attriboard.records.model import AttributionRecord
from attriboard.records.uses import BrittlenessRecord, MislabelRecord, RemovalRecord
from attriboard.scoring.removal import mean_and_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CYCLE = (INK, PICK, ORACLE, "#cc79a7", "#e69f00", BAND, "#7a5195", "#8c564b")  # Okabe and Ito's, then two more
_SHAPES: dict[str, Any] = {
    "default": {"linestyle": (0, (1, 1.5)), "marker": "s"},
    "custom": {"linestyle": (0, (1, 1.5)), "marker": "v"},
    "selected": {"linestyle": "-", "marker": "D"},
    "oracle": {"linestyle": (0, (5, 2)), "marker": "o"},
}


def draw_removal(rows: Sequence[RemovalRow], title: str) -> "Figure":
    """Accuracy (or perplexity) against the share removed: a line per variant with a band of one standard error.

    Args:
        rows: of one task; see `removal_rows`.
        title: above.

    Raises:
        InputError: nothing was measured.
    """
    measured = [row for row in rows if row.measured]
    if not measured:
        raise InputError("a figure of removal needs a row that did not fail")
    quantity = headline_quantity(measured[0].measured)
    full = [row for row in measured if row.variant == "full"]
    names = list(dict.fromkeys(row.attributor for row in measured if row.attributor))
    with styled():
        figure, (axis,) = stacked_axes(1)
        drawn: set[tuple[object, ...]] = set()
        for attributor, variant in dict.fromkeys((row.attributor, row.variant) for row in measured):
            line = [row for row in measured if (row.attributor, row.variant) == (attributor, variant)]
            numbers = (attributor, *(value for row in line for value in row.measured["loss"]))
            if variant == "full" or numbers in drawn:  # the oracle often picks what was selected
                continue
            drawn.add(numbers)
            line = [*full, *line]
            if attributor is None:
                style = {"color": MUTED, "marker": "x", "linestyle": (0, (6, 3)), "label": "random examples"}
            else:
                style = {"color": _CYCLE[names.index(attributor) % len(_CYCLE)], **_SHAPES[variant]}
                style["label"] = f"{attributor}, {variant}"
            _band(axis, [row.rate for row in line], [row.measured for row in line], quantity, style)
        axis.set_xlabel("share of the training set removed")
        axis.set_ylabel(_axis_title(quantity))
        axis.set_title(title, loc="left")
        figure.legend(**LEGEND)
    return figure


def draw_removal_sweep(
    graded: Sequence[AttributionRecord], removed: Sequence[RemovalRecord], name: str, rate: float, marks: Marks
) -> "Figure":
    """LDS and accuracy after removal against one hyperparameter on one axis, with ξ̄ below.

    Args:
        graded: LDS of a sweep that varies `name` alone.
        removed: removal at `rate` over the same sweep.
        name: the hyperparameter.
        rate: the share removed.
        marks: default, ξ's pick and the oracle's.

    Raises:
        InputError: fewer than two points of either.
    """
    lds = sorted(((_number(r.hyperparameters, name), r) for r in graded if r.lds), key=lambda pair: pair[0])
    ends = sorted(((_number(r.hyperparameters, name), r) for r in removed if r.points), key=lambda pair: pair[0])
    if len(lds) < 2 or len(ends) < 2:
        raise InputError(f"two curves over {name} need two points each, there are {len(lds)} and {len(ends)}")
    measured = [next(p.measured for p in record.points if p.rate == rate) for _, record in ends]
    quantity = headline_quantity(measured[0])
    with styled():
        xi = [(x, r.criteria["surrogate"]) for x, r in lds if "surrogate" in r.criteria]
        figure, axes = stacked_axes(2 if len(xi) > 1 else 1)
        left, right = axes[0], axes[0].twinx()
        set_scale(left, [x for x, _ in lds])
        x = [x for x, _ in lds]
        low, high = [r.lds.ci95[0] for _, r in lds if r.lds], [r.lds.ci95[1] for _, r in lds if r.lds]
        left.fill_between(x, low, high, color=BAND, alpha=0.35, linewidth=0)
        left.plot(x, [r.lds.mean for _, r in lds if r.lds], color=INK, marker="o", markersize=4, label="LDS")
        style = {"color": "#cc79a7", "marker": "^", "linestyle": "-"}
        style["label"] = f"{quantity.key} with {100 * rate:g} % removed"
        _band(right, [x for x, _ in ends], measured, quantity, style)
        left.set_ylabel("LDS")
        right.set_ylabel(_axis_title(quantity) + " after removal")
        right.spines["top"].set_visible(False)
        left.set_title(f"{lds[0][1].attributor.name} on {lds[0][1].task.name}", loc="left")
        if len(axes) > 1:
            draw_xi(axes[1], *zip(*xi, strict=True))
        axes[-1].set_xlabel(label_of(name))
        for position, axis in enumerate(axes):
            draw_marks(axis, marks, labelled=position == 0)
        figure.legend(**LEGEND)
    return figure


def draw_brittleness(records: Sequence[BrittlenessRecord]) -> "Figure":
    """Share of the points that are flipped against the number of examples removed.

    Raises:
        InputError: no point was searched.
    """
    searched = [record for record in records if record.points]
    if not searched:
        raise InputError("a figure of brittleness needs a record that did not fail")
    with styled():
        figure, (axis,) = stacked_axes(1)
        for record, style in _styles(searched):
            found = [point.n_removed for point in record.points]
            x = record.sizes
            shares = [100 * sum(n is not None and n <= size for n in found) / len(found) for size in x]
            axis.step(x, shares, where="post", markevery=[-1], **style)
        axis.set_xscale("log")
        axis.set_xlabel("training examples removed, by the point's own scores")
        axis.set_ylabel("predictions flipped (%)")
        axis.set_ylim(-3, 103)
        axis.set_title(f"{searched[0].task.name}, {len(searched[0].points)} points", loc="left")
        figure.legend(**LEGEND)
    return figure


def draw_recall(records: Sequence[MislabelRecord]) -> "Figure":
    """Share of the wrong labels found against the share of the training set inspected, with chance.

    Raises:
        InputError: nothing was ranked.
    """
    ranked = [record for record in records if record.recall]
    if not ranked:
        raise InputError("a figure of recall needs a record that did not fail")
    with styled():
        figure, (axis,) = stacked_axes(1)
        axis.plot([0, 100], [0, 100], color=MUTED, linestyle=(0, (6, 3)), linewidth=1.2, label="chance")
        for record, style in _styles(ranked):
            x = [0.0, *(100 * share for share in record.inspected), 100.0]
            label = f"{style.pop('label')}: AUC {record.auc:.3f}"
            axis.plot(x, [0.0, *(100 * share for share in record.recall or ()), 100.0], label=label, **style)
        axis.set_xlabel("training set inspected, the most suspicious first (%)")
        axis.set_ylabel("wrong labels found (%)")
        axis.set_title(f"{ranked[0].task.name}, by {ranked[0].influence}", loc="left")
        figure.legend(**{**LEGEND, "ncols": 2})
    return figure


def _styles(records: Sequence[Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each record with its line: the attributor's colour, the variant's shape; of equal configurations the first."""
    names = list(dict.fromkeys(record.attributor.name for record in records))
    seen: list[tuple[str, Any]] = []
    for record in records:
        name = record.attributor.name
        if (name, record.hyperparameters) in seen:
            continue
        seen.append((name, record.hyperparameters))
        color = _CYCLE[names.index(name) % len(_CYCLE)]
        yield (
            record,
            {"color": color, "markersize": 4.5, "label": f"{name}, {record.variant}", **_SHAPES[record.variant]},
        )


def _band(
    axis: "Axes",
    x: Sequence[float],
    measured: Sequence[Mapping[str, Sequence[float]]],
    quantity: Quantity,
    style: Mapping[str, Any],
) -> None:
    """A line of means with a band of one standard error."""
    scale = 100.0 if quantity is ACCURACY else 1.0
    values = [found * scale for m in measured if (found := quantity.values(m)) is not None]
    summaries = [mean_and_error(v) for v in values]
    means = np.array([mean for mean, _ in summaries])
    errors = np.array([error or 0.0 for _, error in summaries])
    axis.fill_between(x, means - errors, means + errors, color=style["color"], alpha=0.18, linewidth=0)
    axis.plot(x, means, linewidth=1.6, markersize=4.5, **style)


def _axis_title(quantity: Quantity) -> str:
    return "accuracy (%)" if quantity is ACCURACY else quantity.key


def _number(hyperparameters: Mapping[str, Any], name: str) -> float:
    return float(hyperparameters[name])
