"""The figure of ranks: methods as lines over the ground truths of a task, each rank with its interval."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.charts import PAGE, PRINT, Chart, filled, inline, series_colors
from attriboard.leaderboard.questions import SELECTED, Plane

SPREAD = 0.5  # of the distance between two ground truths, over which the marks of one are spread


def draw_questions(
    plane: Plane, title: str, size: tuple[int, int] = (560, 300), colors: Mapping[str, str] = PRINT
) -> Chart:
    """Rank of every compared method on every ground truth, best at the top; bars are 95 % intervals.

    Ground truths that rank no method are drawn hollow.

    Args:
        plane: a task's ground truths.
        title: above.
        size: width and height, in pixels.
        colors: by name, see `charts.PRINT`.

    Raises:
        InputError: fewer than two methods were graded on all of them.
    """
    names = plane.compared(SELECTED)
    if len(names) < 2:
        raise InputError("a figure of ranks needs at least two methods that every ground truth has graded")
    rankings, colored = plane.rankings, series_colors(len(names))
    rows = [
        {
            "series": plane.study_of(name).title,
            "color": colored[m],
            "at": k + SPREAD * (m / (len(names) - 1) - 0.5),
            "rank": float(rankings[truth.name].ranks[m]),
            "low": float(rankings[truth.name].low[m]),
            "high": float(rankings[truth.name].high[m]),
            "area": 52 if truth.ranks else 0,
        }
        for k, truth in enumerate(plane.truths)
        for m, name in enumerate(names)
    ]
    labels = {str(k): [*truth.question.short.split(", ")] for k, truth in enumerate(plane.truths)}
    for k, truth in enumerate(plane.truths):
        ceiling = truth.ceiling
        labels[str(k)].append("" if ceiling is None else f"ceiling {ceiling:.2f}")
    # A second round of colors is dashed, so that no two lines are alike.
    dashes = [[1, 0] if m < len(set(colored)) else [5, 3] for m in range(len(names))]
    values: dict[str, Any] = {
        "heading": title,
        "width": size[0],
        "height": size[1],
        "columns": 5,
        "ranked": rows,
        "names": [plane.study_of(name).title for name in names],
        "colors": colored,
        "dashes": dashes,
        "domain": [-0.5, len(plane.truths) - 0.5],
        "places": list(range(len(plane.truths))),
        "labels": f"({json.dumps(labels, ensure_ascii=False)})[datum.value]",
        "rank_domain": [len(names) + 0.4, 0.6],
        "rank_places": list(range(1, len(names) + 1)),
    }
    return filled("ranks", values, colors)


def questions_figure(plane: Plane) -> Markup:
    """The figure inside a page, in the colors of its theme; readable without scripts."""
    return inline(draw_questions(plane, "", (620, 300), PAGE), _described(plane))


def _described(plane: Plane) -> str:
    """The figure in words."""
    names, said = plane.compared(SELECTED), []
    for truth, found in zip(plane.truths, plane.rankings.values(), strict=True):
        order = sorted(range(len(names)), key=lambda m: found.ranks[m])
        said.append(f"{truth.question.title}: {', '.join(plane.study_of(names[m]).title for m in order)}")
    return f"Methods from the best to the worst on {plane.task.name}; " + "; ".join(said)
