"""The figure of LDS against the number of models that scores are averaged over."""

from collections.abc import Sequence
from typing import Any

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.charts import Chart, filled
from attriboard.leaderboard.plots.looks import looks
from attriboard.leaderboard.plots.uses import Line
from attriboard.records.model import AttributionRecord


def draw_ensembles(records: Sequence[AttributionRecord], title: str, ceiling: float | None = None) -> Chart:
    """A line per method with its 95 % interval as a band.

    Args:
        records: of one task, with `checkpoints` among their hyperparameters.
        title: above.
        ceiling: the task's noise ceiling, named in the title.

    Raises:
        InputError: no record has a score.
    """
    scored = [record for record in records if record.lds]
    if not scored:
        raise InputError("a figure of LDS against models needs a record that did not fail")
    drawn = looks(record.title for record in scored)
    lines = []
    for name, look in drawn.items():
        points = []
        for record in scored:
            if record.title == name and record.lds:
                low, high = record.lds.ci95
                points.append((float(record.hyperparameters["checkpoints"] or 0), record.lds.mean, (high - low) / 2))
        lines.append(Line(name, look.color, look.dashes, "circle", sorted(points)))
    values: dict[str, Any] = {
        "heading": title + ("" if ceiling is None else f", noise ceiling {ceiling:.3f}"),
        "title": "models that scores are averaged over (log)",
        "y_title": "LDS",
        "width": 470,
        "height": 270,
        "columns": 4,
        "points": [row for line in lines for row in line.rows()],
        "names": list(drawn),
        "colors": [line.color for line in lines],
        "dashes": [line.dashes for line in lines],
        "interpolate": "linear",
        "line_scale": {"type": "log", "nice": False, "padding": 10},
        "y_scale": {"zero": False},
    }
    return filled("lines", values)
