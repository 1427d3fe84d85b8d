"""Files of what attributions are used for: removal by rate and by hyperparameter, brittleness, mislabel detection."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.charts import PRINT, Chart, filled, numbered
from attriboard.leaderboard.plots.looks import COLORS, colors
from attriboard.leaderboard.plots.sweeps import Marks, draw_curve, sweep_curve
from attriboard.leaderboard.removal_rows import ACCURACY, Quantity, RemovalRow, headline_quantity, scaled
from attriboard.records.model import AttributionRecord
from attriboard.records.uses import BrittlenessRecord, MislabelRecord, QldRecord, RemovalRecord

MUTED = PRINT["soft"]
SHAPES = {  # of variants: dashes and dots, so that lines differ without color
    "default": ([2, 3], "square"),
    "custom": ([2, 3], "triangle-down"),
    "selected": ([1, 0], "diamond"),
    "oracle": ([8, 3], "circle"),
}
Row = dict[str, float | str | bool]
Look = tuple[str, str, Sequence[int], str]  # name, color, dashes and shape of a line


@dataclass(frozen=True)
class Line:
    """One line of a chart: its name, look, and points (x, y, half height of its band)."""

    name: str
    color: str
    dashes: Sequence[int]
    shape: str
    points: Sequence[tuple[float, float, float]]
    dotted: bool = True

    def rows(self) -> list[Row]:
        """Its points as data."""
        last = len(self.points) - 1
        return [
            {"series": self.name, "color": self.color, "shape": self.shape, "x": x, "y": y, "low": y - e, "high": y + e,
             "dot": self.dotted or i == last}
            for i, (x, y, e) in enumerate(self.points)
        ]  # fmt: skip


def draw_removal(rows: Sequence[RemovalRow], title: str) -> Chart:
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
    colored = colors(row.attributor for row in measured if row.attributor)
    lines: list[Line] = []
    drawn: set[tuple[object, ...]] = set()
    for attributor, variant in dict.fromkeys((row.attributor, row.variant) for row in measured):
        mine = [row for row in measured if (row.attributor, row.variant) == (attributor, variant)]
        numbers = (attributor, *(value for row in mine for value in row.measured["loss"]))
        if variant == "full" or numbers in drawn:  # the oracle often picks what was selected
            continue
        drawn.add(numbers)
        points = [(row.rate, *_summary(quantity, row.measured)) for row in (*full, *mine)]
        if attributor is None:
            lines.append(Line("random examples", MUTED, [6, 3], "cross", points))
        else:
            lines.append(Line(f"{attributor}, {variant}", colored[attributor], *SHAPES[variant], points))
    return _chart(title, "share of the training set removed", _axis_title(quantity), lines)


def draw_removal_sweep(
    graded: Sequence[AttributionRecord], removed: Sequence[RemovalRecord], name: str, rate: float, marks: Marks
) -> Chart:
    """LDS, accuracy after removal and ξ̄ against one hyperparameter, one above the other on one axis.

    Args:
        graded: LDS of a sweep that varies `name` alone.
        removed: removal at `rate` over the same sweep.
        name: the hyperparameter.
        rate: the share removed.
        marks: default, ξ's pick and the oracle's.

    Raises:
        InputError: fewer than two points of either.
    """
    axis = sweep_curve(graded, name, marks).axis
    ends = [(value, record) for value, record in numbered(removed, name) if record.points and value in axis.values]
    if len(ends) < 2:
        raise InputError(f"a curve of removal over {name} needs two points, there are {len(ends)}")
    measured = [next(p.measured for p in record.points if p.rate == rate) for _, record in ends]
    quantity = headline_quantity(measured[0])
    rows = [
        {"at": round(axis.position(value), 4), "y": mean, "low": mean - error, "high": mean + error}
        for (value, _), (mean, error) in zip(ends, (_summary(quantity, m) for m in measured), strict=True)
    ]
    height = {"type": "quantitative", "title": [_axis_title(quantity), f"with {100 * rate:g} % removed"]}
    band = {"x": "$panel_x", "y": {"field": "low", **height}, "y2": {"field": "high"}}
    line = {"x": "$panel_x", "y": {"field": "y", **height, "scale": {"zero": False}}}
    dots = {"filled": True, "shape": "triangle-up", "color": COLORS[3]}
    panel = {
        "width": "$width",
        "height": 140,
        "data": {"values": rows},
        "layer": [
            {"mark": {"type": "area", "color": COLORS[3], "opacity": 0.17}, "encoding": band},
            {"mark": {"type": "line", "color": COLORS[3], "strokeWidth": 2, "point": dots}, "encoding": line},
            "$guide",
        ],
    }
    return draw_curve(graded, name, marks, [panel])


def draw_brittleness(records: Sequence[BrittlenessRecord]) -> Chart:
    """Share of the points that are flipped against the number of examples removed.

    Raises:
        InputError: no point was searched.
    """
    searched = [record for record in records if record.points]
    if not searched:
        raise InputError("a figure of brittleness needs a record that did not fail")
    lines = []
    for record, look in _looks(searched):
        found = [point.n_removed for point in record.points]
        shares = [100 * sum(n is not None and n <= size for n in found) / len(found) for size in record.sizes]
        lines.append(Line(*look, [(x, y, 0.0) for x, y in zip(record.sizes, shares, strict=True)], dotted=False))
    return _chart(
        f"{searched[0].task.name}, {len(searched[0].points)} points",
        "training examples removed, by the point's own scores (log)",
        "predictions flipped (%)",
        lines,
        line_scale={"type": "log", "nice": False, "padding": 10},
        y_scale={"domain": [0, 100]},
        interpolate="step-after",
    )


def draw_qld(records: Sequence[QldRecord]) -> Chart:
    """Share of the points whose target drops by at least so much, with random removals as the zero.

    Raises:
        InputError: no point was measured.
    """
    measured = [record for record in records if record.test_points]
    if not measured:
        raise InputError("a figure of query loss differences needs a record that did not fail")
    lines = []
    for record, look in _looks(measured):
        n = len(record.drops)
        points = [(x, 100 * (n - i) / n, 0.0) for i, x in enumerate(sorted(record.drops))]
        lines.append(Line(*look, points, dotted=False))
    first = measured[0]
    return _chart(
        f"{first.task.name}, {len(first.test_points)} points, {first.n_removed:,} examples removed",
        f"drop of the {first.target_in_words} beyond that of random removals",
        "points that drop by at least so much (%)",
        lines,
        y_scale={"domain": [0, 100]},
        interpolate="step-before",
    )


def draw_recall(records: Sequence[MislabelRecord]) -> Chart:
    """Share of the wrong labels found against the share of the training set inspected, with chance.

    Raises:
        InputError: nothing was ranked.
    """
    ranked = [record for record in records if record.recall]
    if not ranked:
        raise InputError("a figure of recall needs a record that did not fail")
    lines = [Line("chance", MUTED, [6, 3], "circle", [(0.0, 0.0, 0.0), (100.0, 100.0, 0.0)], dotted=False)]
    for record, (name, color, dashes, shape) in _looks(ranked):
        x = [0.0, *(100 * share for share in record.inspected), 100.0]
        y = [0.0, *(100 * share for share in record.recall or ()), 100.0]
        points = [(a, b, 0.0) for a, b in zip(x, y, strict=True)]
        lines.append(Line(f"{name}: AUC {record.auc:.3f}", color, dashes, shape, points))
    return _chart(
        f"{ranked[0].task.name}, by {ranked[0].influence}",
        "training set inspected, the most suspicious first (%)",
        "wrong labels found (%)",
        lines,
    )


def _chart(heading: str, title: str, y_title: str, lines: Sequence[Line], **more: Any) -> Chart:
    values: dict[str, Any] = {
        "heading": heading,
        "title": title,
        "y_title": y_title,
        "width": 470,
        "height": 270,
        "columns": 3 if max(len(line.name) for line in lines) < 24 else 2,
        "points": [row for line in lines for row in line.rows()],
        "names": [line.name for line in lines],
        "colors": [line.color for line in lines],
        "dashes": [line.dashes for line in lines],
        "interpolate": "linear",
        "line_scale": {"zero": False, "nice": False, "padding": 10},
        "y_scale": {"zero": False},
    }
    return filled("lines", values | more)


def _looks(records: Sequence[Any]) -> Iterator[tuple[Any, Look]]:
    """Each record with name, color, dashes and shape: the attributor's color; of equal configurations the first."""
    colored = colors(record.title for record in records)
    seen: list[tuple[str, Any]] = []
    for record in records:
        name = record.title
        if (name, record.hyperparameters) not in seen:
            seen.append((name, record.hyperparameters))
            yield record, (f"{name}, {record.variant}", colored[name], *SHAPES[record.variant])


def _summary(quantity: Quantity, measured: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    mean, error = scaled(quantity, measured)
    return mean, error or 0.0


def _axis_title(quantity: Quantity) -> str:
    return "accuracy (%)" if quantity is ACCURACY else quantity.key
