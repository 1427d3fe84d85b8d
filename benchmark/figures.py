"""Publication figures of sweeps: LDS against a hyperparameter, heat maps for two, ξ̄ against λ.

Colours are Okabe and Ito's, which readers with any colour vision tell apart; what they mark differs in shape as well.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attriboard.errors import InputError
from attriboard.records import AttributionRecord
from attriboard.selector import regularization_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Marks", "draw_criterion", "draw_curve", "draw_surface", "marks_of", "save_figure"]

_INK, _BAND, _PICK, _ORACLE = "#0072b2", "#56b4e9", "#d55e00", "#009e73"
_MUTED, _FAILED = "#4b5563", "#000000"

_STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.labelsize": 10.5,
    "legend.fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "svg.hashsalt": "attriboard",
    "svg.fonttype": "none",
}
_LEGEND: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "frameon": False}
MAX_NUMBERED_CELLS = 100  # of a heat map; more of them are colour alone


@dataclass(frozen=True)
class Marks:
    """Values of the swept hyperparameter to mark; `None` is left out."""

    default: float | None = None
    selected: float | None = None
    oracle: float | None = None


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
    with _styled():
        figure, axes = _axes(2 if len(with_criterion) > 1 else 1)
        top = axes[0]
        _set_scale(top, _numbers(points, name))
        x = _numbers(good, name)
        low, high = [r.lds.ci95[0] for r in good if r.lds], [r.lds.ci95[1] for r in good if r.lds]
        top.fill_between(x, low, high, color=_BAND, alpha=0.35, linewidth=0, label="95 % interval")
        top.plot(x, [r.lds.mean for r in good if r.lds], color=_INK, marker="o", markersize=4, label="LDS")
        if good[0].ceiling is not None:
            label = f"noise ceiling = {good[0].ceiling:.3f}"
            top.axhline(good[0].ceiling, color=_MUTED, linestyle=(0, (6, 3)), linewidth=1.2, label=label)
        failed = [r for r in points if r.lds is None]
        if failed:
            _cross_out(top, _numbers(failed, name))
        top.set_ylabel("LDS")
        top.set_title(f"{good[0].attributor.name} on {good[0].task.name}", loc="left")
        if len(axes) > 1:
            x = _numbers(with_criterion, name)
            _draw_xi(axes[1], x, [r.criteria["surrogate"] for r in with_criterion])
        axes[-1].set_xlabel(_label(name))
        for position, axis in enumerate(axes):
            _mark(axis, marks, labelled=position == 0)
        figure.legend(**_LEGEND)
    return figure


def draw_criterion(candidates: Sequence[float], xi: Sequence[float], pick: float) -> "Figure":
    """ξ̄ against λ, with the pick.

    Args:
        candidates: λ, ascending.
        xi: ξ̄ of each.
        pick: the chosen λ.
    """
    with _styled():
        figure, (axis,) = _axes(1)
        _set_scale(axis, candidates)
        _draw_xi(axis, candidates, xi)
        axis.set_xlabel(_label("regularization"))
        _mark(axis, Marks(selected=pick), labelled=True)
        figure.legend(**_LEGEND)
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
    with _styled():
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
            axis.plot(*zip(*failed, strict=True), "x", color=_FAILED, markeredgewidth=1.6, markersize=7, label="failed")
        picks = [place[r.id] for r in _picks(good, x_name, y_name)]
        if picks:
            # Above the number, where there is one.
            marker, above = ("v", 0.36) if numbered else ("o", 0.0)
            axis.plot(
                [column for column, _ in picks], [row + above for _, row in picks], marker, color="white",
                markeredgecolor="black", markersize=6, label="selected (ξ)",
            )  # fmt: skip
        column, row = place[max(good, key=lambda r: r.lds.mean if r.lds else -1.0).id]
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=_PICK, linewidth=2.5, label="best")
        axis.add_patch(frame).set_clip_on(False)
        axis.set_xticks(range(len(xs)), [_short(v) for v in xs], rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(ys)), [_short(v) for v in ys])
        axis.set_xlabel(_label(x_name))
        axis.set_ylabel(_label(y_name))
        axis.set_title(f"{records[0].attributor.name} on {records[0].task.name}", loc="left")
        figure.legend(**_LEGEND)
    return figure


def save_figure(figure: "Figure", stem: Path) -> Path:
    """Write `stem.svg` and `stem.png`; returns the path of the PNG. The same figure gives the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    name = stem.name.removesuffix(".svg").removesuffix(".png")  # any other dot belongs to the name
    svg, png = stem.with_name(f"{name}.svg"), stem.with_name(f"{name}.png")
    with _styled():
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, dpi=160)
    return png


def _styled() -> Any:
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def _axes(count: int) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0 if count == 1 else 5.4), layout="constrained")
    ratios = [1] if count == 1 else [2.4, 1]
    axes = figure.subplots(count, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e5e7eb", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, list(axes)


def _set_scale(axis: "Axes", values: Sequence[float]) -> None:
    """A logarithmic axis where the values span two decades; a zero among them gets a linear stretch."""
    positive = [v for v in values if v > 0]
    if not positive or min(values) < 0 or max(positive) / min(positive) < 100:
        return
    if min(values) == 0:
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.7)
        # matplotlib would put a decade into the linear stretch, on top of the zero.
        first, last = math.ceil(math.log10(min(positive))), math.floor(math.log10(max(positive)))
        axis.set_xticks([0.0, *(10.0**power for power in range(first, last + 1, 1 + (last - first) // 8))])
    else:
        axis.set_xscale("log")
    distinct = sorted(set(values))
    if len(distinct) <= 12 and all(v.is_integer() for v in map(float, distinct)):
        axis.set_xticks(distinct, [_short(v) for v in distinct])
        axis.minorticks_off()


def _draw_xi(axis: "Axes", x: Sequence[float], xi: Sequence[float]) -> None:
    axis.plot(x, xi, color=_INK, marker=".", markersize=5, linewidth=1.4)
    axis.axhline(0.5, color=_MUTED, linewidth=1, linestyle=":")
    axis.set_ylim(-0.03, 1.03)
    axis.set_yticks([0, 0.5, 1])
    axis.set_ylabel("mean ξ")


def _cross_out(axis: "Axes", x: Sequence[float]) -> None:
    """Crosses at the bottom of the axis."""
    transform = axis.get_xaxis_transform()
    y = [0.035] * len(x)
    axis.plot(x, y, "x", color=_FAILED, markeredgewidth=1.6, transform=transform, label="failed")


def _mark(axis: "Axes", marks: Marks, *, labelled: bool) -> None:
    """Vertical lines; a value that the axis does not reach becomes an arrowhead at its edge."""
    low, high = axis.get_xlim()
    for value, color, text, style in (
        (marks.default, _MUTED, "default", (0, (1, 1.5))),
        (marks.selected, _PICK, "selected (ξ)", "-"),
        (marks.oracle, _ORACLE, "oracle", (0, (5, 2))),
    ):
        if value is None:
            continue
        label = f"{text} = {_short(value)}" if labelled else None
        if low <= value <= high and not (value <= 0 and axis.get_xscale() == "log"):
            axis.axvline(value, color=color, linestyle=style, linewidth=1.8, label=label)
        elif labelled:
            edge, marker = (0, "<") if value < high else (1, ">")
            axis.plot(
                [edge], [0], marker, color=color, markersize=10, linestyle="none", clip_on=False, label=label,
                transform=axis.transAxes,
            )  # fmt: skip
    axis.set_xlim(low, high)


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


def _short(value: float) -> str:
    """A number in as few characters as a label has room for."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e5 else f"{value:.3g}"


def _label(name: str) -> str:
    return {"regularization": "regularization λ", "projection_dim": "projection dimension"}.get(
        name, name.replace("_", " ")
    )
