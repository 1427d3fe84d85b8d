"""How publication figures look: colours, scales, marks and files.

Colours are Okabe and Ito's, which readers with any colour vision tell apart; what they mark differs in shape as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, BAND, PICK, ORACLE = "#0072b2", "#56b4e9", "#d55e00", "#009e73"
MUTED, FAILED = "#4b5563", "#000000"

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
LEGEND: dict[str, Any] = {"loc": "outside lower center", "ncols": 3, "frameon": False}


@dataclass(frozen=True)
class Marks:
    """Values of the swept hyperparameter to mark; `None` is left out."""

    default: float | None = None
    selected: float | None = None
    oracle: float | None = None


def save_figure(figure: "Figure", stem: Path) -> Path:
    """Write `stem.svg` and `stem.png`; returns the path of the PNG. The same figure gives the same bytes."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    name = stem.name.removesuffix(".svg").removesuffix(".png")  # any other dot belongs to the name
    svg, png = stem.with_name(f"{name}.svg"), stem.with_name(f"{name}.png")
    with styled():
        figure.savefig(svg, metadata={"Date": None})
        figure.savefig(png, dpi=160)
    return png


def styled() -> Any:
    """The style as a context."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def stacked_axes(count: int) -> tuple["Figure", list["Axes"]]:
    """A figure with one panel, or a large one above a small one that share their horizontal axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0 if count == 1 else 5.4), layout="constrained")
    ratios = [1] if count == 1 else [2.4, 1]
    axes = figure.subplots(count, 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(color="#e5e7eb", linewidth=0.6)
        axis.set_axisbelow(True)
    return figure, list(axes)


def set_scale(axis: "Axes", values: Sequence[float]) -> None:
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
        axis.set_xticks(distinct, [short(v) for v in distinct])
        axis.minorticks_off()


def draw_xi(axis: "Axes", x: Sequence[float], xi: Sequence[float]) -> None:
    """ξ̄ against λ, and one half."""
    axis.plot(x, xi, color=INK, marker=".", markersize=5, linewidth=1.4)
    axis.axhline(0.5, color=MUTED, linewidth=1, linestyle=":")
    axis.set_ylim(-0.03, 1.03)
    axis.set_yticks([0, 0.5, 1])
    axis.set_ylabel("mean ξ")


def cross_out(axis: "Axes", x: Sequence[float]) -> None:
    """Crosses at the bottom of the axis."""
    transform = axis.get_xaxis_transform()
    y = [0.035] * len(x)
    axis.plot(x, y, "x", color=FAILED, markeredgewidth=1.6, transform=transform, label="failed")


def draw_marks(axis: "Axes", marks: Marks, *, labelled: bool) -> None:
    """Vertical lines; a value that the axis does not reach becomes an arrowhead at its edge."""
    low, high = axis.get_xlim()
    for value, color, text, style in (
        (marks.default, MUTED, "default", (0, (1, 1.5))),
        (marks.selected, PICK, "selected (ξ)", "-"),
        (marks.oracle, ORACLE, "oracle", (0, (5, 2))),
    ):
        if value is None:
            continue
        label = f"{text} = {short(value)}" if labelled else None
        if low <= value <= high and not (value <= 0 and axis.get_xscale() == "log"):
            axis.axvline(value, color=color, linestyle=style, linewidth=1.8, label=label)
        elif labelled:
            edge, marker = (0, "<") if value < high else (1, ">")
            axis.plot(
                [edge], [0], marker, color=color, markersize=10, linestyle="none", clip_on=False, label=label,
                transform=axis.transAxes,
            )  # fmt: skip
    axis.set_xlim(low, high)


def short(value: float) -> str:
    """A number in as few characters as a label has room for."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e5 else f"{value:.3g}"


def label_of(name: str) -> str:
    """What an axis calls a hyperparameter."""
    return {"regularization": "regularization λ", "projection_dim": "projection dimension"}.get(
        name, name.replace("_", " ")
    )
