"""Publication figures of sweeps: LDS against a hyperparameter, and heat maps for two."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attriboard.errors import InputError
from attriboard.records import AttributionRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Marks", "draw_curve", "draw_surface", "marks_of", "save_figure"]

_INK, _BAND, _PICK, _ORACLE, _MUTED = "#1f4e79", "#9dbcd9", "#c2410c", "#15803d", "#6b7280"


@dataclass(frozen=True)
class Marks:
    """Values of the swept hyperparameter to mark; `None` is left out."""

    default: float | None = None
    selected: float | None = None
    oracle: float | None = None


def marks_of(records: Sequence[AttributionRecord], name: str) -> Marks:
    """Marks that follow from a sweep itself: ξ's pick among its points, and the oracle's by calibration LDS."""
    good = [r for r in records if r.calibration is not None and _number(r, name) is not None]
    with_criterion = [r for r in good if "surrogate" in r.criteria]
    pick = min(with_criterion, key=lambda r: abs(r.criteria["surrogate"] - 0.5), default=None)
    best = max(good, key=lambda r: r.calibration or 0.0, default=None)
    return Marks(
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
        InputError: fewer than two points.
    """
    points = sorted((r for r in records if _number(r, name) is not None), key=lambda r: _number(r, name) or 0.0)
    good = [r for r in points if r.lds is not None]
    if len(good) < 2:
        raise InputError(f"a curve over {name} needs at least two points that did not fail, there are {len(good)}")
    with_criterion = [r for r in good if "surrogate" in r.criteria]
    figure, axes = _axes(2 if len(with_criterion) > 1 else 1)
    top = axes[0]
    x = [_number(r, name) or 0.0 for r in good]
    logarithmic = _set_scale(top, [_number(r, name) or 0.0 for r in points])
    low, high = [r.lds.ci95[0] for r in good if r.lds], [r.lds.ci95[1] for r in good if r.lds]
    top.fill_between(x, low, high, color=_BAND, alpha=0.6, linewidth=0, label="95 % interval")
    top.plot(x, [r.lds.mean for r in good if r.lds], color=_INK, marker="o", markersize=3.5, label="LDS")
    if good[0].ceiling is not None:
        top.axhline(good[0].ceiling, color=_MUTED, linestyle="--", linewidth=1)
        top.annotate(
            "noise ceiling",
            (0.99, good[0].ceiling),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=8,
            color=_MUTED,
            xytext=(0, 2),
            textcoords="offset points",
        )
    failed = [_number(r, name) or 0.0 for r in points if r.lds is None]
    if failed:
        top.plot(
            failed, [0.02] * len(failed), "x", color="#b91c1c", transform=top.get_xaxis_transform(), label="failed"
        )
    for axis in axes:
        _mark(axis, marks, logarithmic)
    top.set_ylabel("LDS")
    task, attributor = good[0].task.name, good[0].attributor.name
    top.set_title(f"{attributor} on {task}", loc="left", fontsize=11)
    top.legend(loc="best", fontsize=8, frameon=False)
    if len(axes) > 1:
        axes[1].plot(
            [_number(r, name) or 0.0 for r in with_criterion],
            [r.criteria["surrogate"] for r in with_criterion],
            color=_PICK,
            linewidth=1.4,
        )
        axes[1].axhline(0.5, color=_MUTED, linewidth=0.8, linestyle=":")
        axes[1].set_ylim(0, 1)
        axes[1].set_ylabel("mean ξ")
    axes[-1].set_xlabel(_label(name))
    return figure


def draw_surface(records: Sequence[AttributionRecord], x_name: str, y_name: str) -> "Figure":
    """Heat map of LDS over two hyperparameters; failed points are crossed out, the best one is framed.

    Raises:
        InputError: fewer than two values on either axis.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    xs = sorted({v for r in records if (v := _number(r, x_name)) is not None})
    ys = sorted({v for r in records if (v := _number(r, y_name)) is not None})
    if len(xs) < 2 or len(ys) < 2:
        raise InputError(f"a surface needs two values of {x_name} and of {y_name}, there are {len(xs)} and {len(ys)}")
    cells: list[list[float]] = [[float("nan")] * len(xs) for _ in ys]
    failed = []
    for record in records:
        x, y = _number(record, x_name), _number(record, y_name)
        if x is None or y is None:
            continue
        column, row = xs.index(x), ys.index(y)
        if record.lds is None:
            failed.append((column, row))
        else:
            cells[row][column] = record.lds.mean
    figure = Figure(figsize=(1.6 + 0.42 * len(xs), 1.5 + 0.42 * len(ys)), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(cells, origin="lower", aspect="auto", cmap="viridis")
    for column, row in failed:
        axis.plot(column, row, "x", color="#b91c1c")
    best = max(((v, i, j) for i, row in enumerate(cells) for j, v in enumerate(row) if v == v), default=None)
    if best:
        axis.add_patch(Rectangle((best[2] - 0.5, best[1] - 0.5), 1, 1, fill=False, edgecolor=_PICK, linewidth=2))
    axis.set_xticks(range(len(xs)), [f"{v:g}" for v in xs], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(ys)), [f"{v:g}" for v in ys], fontsize=8)
    axis.set_xlabel(_label(x_name))
    axis.set_ylabel(_label(y_name))
    axis.set_title(f"{records[0].attributor.name} on {records[0].task.name}", loc="left", fontsize=11)
    figure.colorbar(image, label="LDS")
    return figure


def save_figure(figure: "Figure", stem: Path) -> Path:
    """Write `stem.svg` and `stem.png`; returns the path of the PNG. The same figure gives the same bytes."""
    import matplotlib as mpl

    stem.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context({"svg.hashsalt": "attriboard", "svg.fonttype": "none"}):
        figure.savefig(stem.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(stem.with_suffix(".png"), dpi=160)
    return stem.with_suffix(".png")


def _axes(count: int) -> tuple["Figure", list["Axes"]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6 if count == 1 else 5.0), layout="constrained")
    ratios = [1] if count == 1 else [2.6, 1]
    axes = figure.subplots(count, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e5e7eb", linewidth=0.6)
    return figure, list(axes)


def _set_scale(axis: "Axes", values: Sequence[float]) -> bool:
    """A logarithmic axis where the values span two decades; a zero among them gets a linear stretch."""
    positive = [v for v in values if v > 0]
    if not positive or min(values) < 0 or max(positive) / min(positive) < 100:
        return False
    if min(values) == 0:
        axis.set_xscale("symlog", linthresh=min(positive))
    else:
        axis.set_xscale("log")
    return True


def _mark(axis: "Axes", marks: Marks, logarithmic: bool) -> None:
    low, high = axis.get_xlim()
    for value, color, text, style in (
        (marks.default, _MUTED, "default", "-"),
        (marks.selected, _PICK, "selected (ξ)", "-"),
        (marks.oracle, _ORACLE, "oracle", "--"),
    ):
        if value is None:
            continue
        outside = value < low or (logarithmic and value <= 0 and axis.get_xscale() == "log")
        shown = low if outside else min(value, high)
        note = f"{text} = {value:g}" + (" ←" if outside else "")
        axis.axvline(shown, color=color, linestyle=style, linewidth=1.3, label=note)
    axis.set_xlim(low, high)


def _number(record: AttributionRecord, name: str) -> float | None:
    value: Any = record.hyperparameters.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _label(name: str) -> str:
    return {"regularization": "regularization λ", "projection_dim": "projection dimension"}.get(
        name, name.replace("_", " ")
    )
