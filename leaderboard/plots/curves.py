"""The figure "LDS against a hyperparameter": with its band, the noise ceiling, failures and marks, ξ̄ below.

One description serves the pages' still figures, the explorer, and files.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard.axes import Axis
from attriboard.leaderboard.curves import Curve, Point
from attriboard.leaderboard.formats import fixed, plain
from attriboard.leaderboard.plots.charts import PAGE, PRINT, Chart, axis_values, filled, inline

VARIANTS = {"default": 90, "selected": 110, "oracle": 260}  # areas of their marks
PAGE_SIZE: dict[str, Any] = {"width": 298, "height": 165, "xi_height": 74, "dot": 16}


def curve_figure(curve: Curve) -> Markup:
    """The figure inside a page, in the colors of its theme; readable without scripts. A sentence where all failed."""
    if curve.failure:
        return Markup('<p class="reason">{}.</p>').format(curve.failure)
    names = {name: f"{name} {_score(point)}" for name, point in curve.marks.items()}
    chart = curve_chart(curve, curve.axis.name, names, PAGE_SIZE, PAGE)
    return inline(chart, describe(curve))


def curve_chart(
    curve: Curve,
    title: str,
    legend: Mapping[str, str],
    size: Mapping[str, Any],
    colors: Mapping[str, str] = PRINT,
    panels: Sequence[Chart] = (),
    heading: str = "",
) -> Chart:
    """The figure as a Vega-Lite specification.

    Args:
        curve: what is drawn.
        title: of the axis.
        legend: variant → its text in the legend.
        size: width, height, xi_height and dot, in pixels.
        colors: by name, see `charts.PRINT`.
        panels: more panels, between LDS and ξ̄, with `$panel_x` as their axis.
        heading: above; none by default.
    """
    has_xi = sum(point.xi is not None for point in curve.points) >= 2
    axis = axis_values(curve.axis, title)
    drawn = [variant for variant in VARIANTS if variant in curve.marks]
    values = {
        **size,
        **axis,
        "heading": heading,
        "upper_title": None if has_xi or panels else axis["title"],
        "panel_x": "$x" if has_xi else "$last_x",
        "panels": ["$lds_panel", *panels, *["$xi_panel"] * has_xi],
        "points": [_row(curve.axis, point) for point in curve.points],
        "marks": [{"mark": v, "size": VARIANTS[v]} | _row(curve.axis, curve.marks[v]) for v in drawn],
        "drawn": drawn,
        "name": curve.axis.name,
        "ceiling": [] if curve.ceiling is None else [ceiling(curve.ceiling)],
        "far_text": far_text(curve),
        "one_sided": one_sided(curve),
        "legend": f"({json.dumps(dict(legend), ensure_ascii=False)})[datum.label]",
    }
    return filled("curve", values, colors)


def ceiling(value: float) -> dict[str, Any]:
    """The noise ceiling as a row: where, and its text."""
    return {"lds": value, "text": f"noise ceiling {fixed(value)}"}


def far_text(curve: Curve) -> str:
    """At which end texts stand: the one that is farther from the line of ξ's pick."""
    picked, places = curve.marks.get("selected"), curve.axis.positions
    early = picked is not None and curve.axis.position(picked.value) < (places[0] + places[-1]) / 2
    return "$text_right" if early else "$text_left"


def one_sided(curve: Curve) -> list[dict[str, Any]]:
    """What the pick is where ξ̄ does not cross one half on the grid of λ, as a row in the empty half of its panel."""
    known = sorted(p.xi for p in curve.points if p.xi is not None)
    if curve.axis.name != REGULARIZATION or "selected" not in curve.marks or not known:
        return []
    if known[0] > 0.5:
        return [{"xi": 0.35, "text": "ξ̄ is above ½ everywhere: smallest λ"}]
    return [{"xi": 0.85, "text": "ξ̄ is below ½ everywhere: largest λ"}] if known[-1] < 0.5 else []


def describe(curve: Curve) -> str:
    """The figure in words."""
    scored = [point.lds.mean for point in curve.points if point.lds]
    text = f"{curve.attributor} on {curve.task}: LDS over {curve.axis.name}, {len(curve.points)} values"
    if scored:
        text += f", from {fixed(min(scored))} to {fixed(max(scored))}"
    for variant, point in curve.marks.items():
        text += f"; {variant} at {plain(point.value)}: {_score(point)}"
    return text + (f"; noise ceiling {fixed(curve.ceiling)}" if curve.ceiling is not None else "")


def _score(point: Point) -> str:
    return fixed(point.lds.mean) if point.lds else "failed"


def _row(axis: Axis, point: Point) -> dict[str, Any]:
    row: dict[str, Any] = {"at": round(axis.position(point.value), 4), "label": plain(point.value)}
    if point.lds:
        row |= {"lds": point.lds.mean, "low": point.lds.ci95[0], "high": point.lds.ci95[1]}
    elif point.reason:
        row["reason"] = point.reason
    return row | ({"xi": point.xi} if point.xi is not None else {})
