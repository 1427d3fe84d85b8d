"""Files of sweeps: LDS against one hyperparameter, heat maps for two."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attriboard.base.errors import InputError
from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard.axes import make_axis
from attriboard.leaderboard.curves import Curve, Point
from attriboard.leaderboard.formats import fixed
from attriboard.leaderboard.plots.charts import Chart, as_number, filled, label_of, numbered, short
from attriboard.leaderboard.plots.curves import curve_chart
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord

MAX_NUMBERED_CELLS = 100  # of a heat map; more of them are color alone
SIZE: dict[str, Any] = {"width": 470, "height": 250, "xi_height": 95, "dot": 32}


@dataclass(frozen=True)
class Marks:
    """Values of the swept hyperparameter to mark; `None` is left out."""

    default: float | None = None
    selected: float | None = None
    oracle: float | None = None


def marks_of(records: Sequence[AttributionRecord], name: str, default: object = None) -> Marks:
    """Marks of a sweep: the method's default, ξ's pick among the points, and the oracle's by calibration LDS."""
    good = [r for _, r in numbered(records, name) if r.calibration is not None]
    pick = _closest_to_half(good)
    best = max(good, key=lambda r: r.calibration or 0.0, default=None)
    return Marks(
        default=as_number(default),
        selected=as_number(pick.hyperparameters[name]) if pick else None,
        oracle=as_number(best.hyperparameters[name]) if best else None,
    )


def sweep_curve(records: Sequence[AttributionRecord], name: str, marks: Marks) -> Curve:
    """The curve of a sweep that varies `name` alone.

    Raises:
        InputError: fewer than two points that did not fail.
    """
    found = numbered(records, name)
    n_good = sum(record.lds is not None for _, record in found)
    if n_good < 2:
        raise InputError(f"a curve over {name} needs at least two points that did not fail, there are {n_good}")
    points = {v: Point(v, r.lds, r.reason, r.criteria.get(HEADLINE_SELECTOR) if r.lds else None) for v, r in found}
    marked = {variant: value for variant, value in vars(marks).items() if value is not None}
    axis = make_axis(name, [*points, *marked.values()])
    first = next(record for _, record in found if record.lds)
    placed = {variant: points.get(value, Point(value, None)) for variant, value in marked.items()}
    return Curve(first.task.name, first.title, axis, list(points.values()), placed, {}, first.ceiling)


def draw_curve(records: Sequence[AttributionRecord], name: str, marks: Marks, panels: Sequence[Chart] = ()) -> Chart:
    """LDS with its interval against one hyperparameter, the ceiling, the marks; ξ̄ below where it is known.

    Args:
        records: points of a sweep that differ in `name` alone; failed ones become crosses.
        name: the hyperparameter.
        marks: what to mark; a value that was not run is marked on the axis.
        panels: see `curve_chart`.

    Raises:
        InputError: fewer than two points that did not fail.
    """
    curve = sweep_curve(records, name, marks)
    words = {"default": "default", "selected": "selected (ξ)", "oracle": "oracle"}
    legend = {v: f"{words[v]} = {short(float(point.value or 0.0))}" for v, point in curve.marks.items()}
    heading = f"{curve.attributor} on {curve.task}"
    return curve_chart(curve, label_of(name), legend, SIZE, panels=panels, heading=heading)


def draw_surface(records: Sequence[AttributionRecord], x_name: str, y_name: str) -> Chart:
    """Heat map of LDS over two hyperparameters.

    Failed points are crossed out, the best one is framed, and where one axis is λ and ξ̄ is known, ξ's pick at every
    value of the other has a mark.

    Raises:
        InputError: fewer than two values on either axis, or no point that did not fail.
    """
    placed = [r for _, r in numbered(records, x_name) if as_number(r.hyperparameters.get(y_name)) is not None]
    xs, ys = ([value for value, _ in numbered(placed, name)] for name in (x_name, y_name))
    xs, ys = sorted(set(xs)), sorted(set(ys))
    if len(xs) < 2 or len(ys) < 2:
        raise InputError(f"a surface needs two values of {x_name} and of {y_name}, there are {len(xs)} and {len(ys)}")
    good = [r for r in placed if r.lds]
    if not good:
        raise InputError("a surface needs a point that did not fail")
    run = {(as_number(r.hyperparameters[x_name]), as_number(r.hyperparameters[y_name])) for r in placed}
    missing = [(x, y) for x in xs for y in ys if (x, y) not in run]
    absent = [{"value": short(x), "second": short(y), "state": "not run"} for x, y in missing]
    numbers = len(xs) * len(ys) <= MAX_NUMBERED_CELLS
    levels = [r.lds.mean for r in good if r.lds]
    middle = (min(levels) + max(levels)) / 2
    best = max(good, key=lambda r: r.lds.mean if r.lds else -1.0)
    marked = [("selected (ξ)", r) for r in _picks(good, x_name, y_name)] + [("best", best)]
    kinds = [kind for kind in ("selected (ξ)", "best") if kind in dict(marked)]
    shapes = {"selected (ξ)": "circle", "best": "square"}

    def cell(record: AttributionRecord) -> dict[str, Any]:
        x, y = (float(as_number(record.hyperparameters[name]) or 0.0) for name in (x_name, y_name))
        row: dict[str, Any] = {"value": short(x), "second": short(y)}
        if record.lds is None:
            return row | {"reason": record.reason}
        mean = record.lds.mean
        text = {"text": fixed(mean, 2).replace("0.", ".", 1)} if numbers else {}
        return row | {"lds": mean, "bright": mean > middle} | text

    values = {
        "heading": f"{placed[0].title} on {placed[0].task.name}",
        "width": {"step": 38 if numbers else 24},
        "height": {"step": 28},
        "points": [cell(record) for record in placed],
        "absent": absent,
        "absent_legend": "$not_run" if absent else None,  # the renderer trips over a legend of nothing
        "marks": [{"mark": kind} | cell(record) for kind, record in marked],
        "kinds": kinds,
        "shapes": [shapes[kind] for kind in kinds],
        "mark_area": 480 if numbers else 160,
        "title": label_of(x_name),
        "second_title": label_of(y_name),
        "columns_order": [short(value) for value in xs],
        "rows_order": [short(value) for value in ys][::-1],
        "angle": -60 if max(len(short(value)) for value in xs) > 4 else 0,
        "gradient": min(200, max(90, 30 * len(ys))),
        "bar_side": "right",
        "column_labels": "datum.label",
        "row_labels": "datum.label",
    }
    return filled("surface", values)


def _picks(records: Sequence[AttributionRecord], x_name: str, y_name: str) -> list[AttributionRecord]:
    """Of every value of the other axis, the point whose ξ̄ is closest to one half; none where no axis is λ."""
    if REGULARIZATION not in (x_name, y_name):
        return []
    other = y_name if x_name == REGULARIZATION else x_name
    groups: dict[float | None, list[AttributionRecord]] = {}
    for record in records:
        groups.setdefault(as_number(record.hyperparameters[other]), []).append(record)
    return [pick for group in groups.values() if (pick := _closest_to_half(group)) is not None]


def _closest_to_half(records: Sequence[AttributionRecord]) -> AttributionRecord | None:
    known = [r for r in records if HEADLINE_SELECTOR in r.criteria]
    return min(known, key=lambda r: abs(r.criteria[HEADLINE_SELECTOR] - 0.5), default=None)
