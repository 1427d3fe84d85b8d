"""Publication figures of sweeps: LDS against a hyperparameter, heat maps for two, ξ̄ against λ."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attriboard.base.errors import InputError
from attriboard.contracts.selector import regularization_name
from attriboard.leaderboard.plots.style import (
    BAND,
    FAILED,
    INK,
    LEGEND,
    MUTED,
    PICK,
    Marks,
    cross_out,
    draw_marks,
    draw_xi,
    label_of,
    set_scale,
    short,
    stacked_axes,
    styled,
)
from attriboard.records.model import AttributionRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_NUMBERED_CELLS = 100  # of a heat map; more of them are colour alone


def marks_of(records: Sequence[AttributionRecord], name: str, default: object = None) -> Marks:
    """Marks of a sweep: the method's default, ξ's pick among the points, and the oracle's by calibration LDS."""
    good = [r for r in records if r.calibration is not None and _number(r, name) is not None]
    pick = _closest_to_half(good)
    best = max(good, key=lambda r: r.calibration or 0.0, default=None)
    return Marks(
        default=_as_number(default),
        selected=_number(pick, name) if pick else None,
        oracle=_number(best, name) if best else None,
    )


def draw_curve(records: Sequence[AttributionRecord], name: str, marks: Marks) -> "Figure":
    """LDS with its interval against one hyperparameter, the ceiling, the marks; ξ̄ below where it is known.

    Args:
        records: points of a sweep that differ in `name` alone.
        name: the hyperparameter; failed points are drawn as crosses at the bottom.
        marks: what to mark on the axis.

    Raises:
        InputError: fewer than two points that did not fail.
    """
    points = sorted((r for r in records if _number(r, name) is not None), key=lambda r: _number(r, name) or 0.0)
    good = [r for r in points if r.lds is not None]
    if len(good) < 2:
        raise InputError(f"a curve over {name} needs at least two points that did not fail, there are {len(good)}")
    with_criterion = [r for r in good if "surrogate" in r.criteria]
    with styled():
        figure, axes = stacked_axes(2 if len(with_criterion) > 1 else 1)
        top = axes[0]
        set_scale(top, _numbers(points, name))
        x = _numbers(good, name)
        low, high = [r.lds.ci95[0] for r in good if r.lds], [r.lds.ci95[1] for r in good if r.lds]
        top.fill_between(x, low, high, color=BAND, alpha=0.35, linewidth=0, label="95 % interval")
        top.plot(x, [r.lds.mean for r in good if r.lds], color=INK, marker="o", markersize=4, label="LDS")
        if good[0].ceiling is not None:
            label = f"noise ceiling = {good[0].ceiling:.3f}"
            top.axhline(good[0].ceiling, color=MUTED, linestyle=(0, (6, 3)), linewidth=1.2, label=label)
        failed = [r for r in points if r.lds is None]
        if failed:
            cross_out(top, _numbers(failed, name))
        top.set_ylabel("LDS")
        top.set_title(f"{good[0].attributor.name} on {good[0].task.name}", loc="left")
        if len(axes) > 1:
            x = _numbers(with_criterion, name)
            draw_xi(axes[1], x, [r.criteria["surrogate"] for r in with_criterion])
        axes[-1].set_xlabel(label_of(name))
        for position, axis in enumerate(axes):
            draw_marks(axis, marks, labelled=position == 0)
        figure.legend(**LEGEND)
    return figure


def draw_criterion(candidates: Sequence[float], xi: Sequence[float], pick: float) -> "Figure":
    """ξ̄ against λ, with the pick.

    Args:
        candidates: λ, ascending.
        xi: ξ̄ of each.
        pick: the chosen λ.
    """
    with styled():
        figure, (axis,) = stacked_axes(1)
        set_scale(axis, candidates)
        draw_xi(axis, candidates, xi)
        axis.set_xlabel(label_of("regularization"))
        draw_marks(axis, Marks(selected=pick), labelled=True)
        figure.legend(**LEGEND)
    return figure


def draw_surface(records: Sequence[AttributionRecord], x_name: str, y_name: str) -> "Figure":
    """Heat map of LDS over two hyperparameters.

    Failed points are crossed out, the best one is framed, and where one axis is λ and ξ̄ is known, ξ's pick at every
    value of the other is dotted.

    Raises:
        InputError: fewer than two values on either axis, or no point that did not fail.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    placed = [r for r in records if _number(r, x_name) is not None and _number(r, y_name) is not None]
    xs, ys = sorted(set(_numbers(placed, x_name))), sorted(set(_numbers(placed, y_name)))
    if len(xs) < 2 or len(ys) < 2:
        raise InputError(f"a surface needs two values of {x_name} and of {y_name}, there are {len(xs)} and {len(ys)}")
    place = {r.id: (xs.index(_number(r, x_name) or 0.0), ys.index(_number(r, y_name) or 0.0)) for r in placed}
    good = [r for r in placed if r.lds is not None]
    if not good:
        raise InputError("a surface needs a point that did not fail")
    cells: list[list[float]] = [[float("nan")] * len(xs) for _ in ys]
    for record in good:
        column, row = place[record.id]
        cells[row][column] = record.lds.mean if record.lds else float("nan")
    numbered = len(xs) * len(ys) <= MAX_NUMBERED_CELLS
    width, height = (0.52, 0.4) if numbered else (0.3, 0.3)
    with styled():
        figure = Figure(
            figsize=(max(5.2, 1.9 + width * len(xs)), max(3.6, 1.9 + height * len(ys))), layout="constrained"
        )
        axis = figure.subplots()
        image = axis.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
        figure.colorbar(image, label="LDS", pad=0.02, aspect=25)
        axis.set_facecolor("#e5e7eb")
        if numbered:
            _write_numbers(axis, cells)
        failed = [place[r.id] for r in placed if r.lds is None]
        if failed:
            axis.plot(*zip(*failed, strict=True), "x", color=FAILED, markeredgewidth=1.6, markersize=7, label="failed")
        picks = [place[r.id] for r in _picks(good, x_name, y_name)]
        if picks:
            # Above the number, where there is one.
            marker, above = ("v", 0.36) if numbered else ("o", 0.0)
            axis.plot(
                [column for column, _ in picks], [row + above for _, row in picks], marker, color="white",
                markeredgecolor="black", markersize=6, label="selected (ξ)",
            )  # fmt: skip
        column, row = place[max(good, key=lambda r: r.lds.mean if r.lds else -1.0).id]
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=PICK, linewidth=2.5, label="best")
        axis.add_patch(frame).set_clip_on(False)
        axis.set_xticks(range(len(xs)), [short(v) for v in xs], rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(ys)), [short(v) for v in ys])
        axis.set_xlabel(label_of(x_name))
        axis.set_ylabel(label_of(y_name))
        axis.set_title(f"{records[0].attributor.name} on {records[0].task.name}", loc="left")
        figure.legend(**LEGEND)
    return figure


def _write_numbers(axis: "Axes", cells: Sequence[Sequence[float]]) -> None:
    """The LDS in every cell, dark on light and light on dark."""
    known = [value for row in cells for value in row if value == value]
    middle = (min(known) + max(known)) / 2
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            if value == value:
                text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
                color = "black" if value > middle else "white"
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color=color)


def _picks(records: Sequence[AttributionRecord], x_name: str, y_name: str) -> list[AttributionRecord]:
    """Of every value of the other axis, the point whose ξ̄ is closest to one half; none where no axis is λ."""
    name = regularization_name((x_name, y_name))
    if name is None:
        return []
    other = y_name if name == x_name else x_name
    groups: dict[float | None, list[AttributionRecord]] = {}
    for record in records:
        groups.setdefault(_number(record, other), []).append(record)
    return [pick for group in groups.values() if (pick := _closest_to_half(group)) is not None]


def _closest_to_half(records: Sequence[AttributionRecord]) -> AttributionRecord | None:
    known = [r for r in records if "surrogate" in r.criteria]
    return min(known, key=lambda r: abs(r.criteria["surrogate"] - 0.5), default=None)


def _numbers(records: Sequence[AttributionRecord], name: str) -> list[float]:
    return [value for r in records if (value := _number(r, name)) is not None]


def _number(record: AttributionRecord, name: str) -> float | None:
    hyperparameters: Mapping[str, object] = record.hyperparameters
    return _as_number(hyperparameters.get(name))


def _as_number(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
