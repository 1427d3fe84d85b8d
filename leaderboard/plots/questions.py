"""The figure of ranks: methods as lines over the ground truths of a task, each rank with its interval."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.charts import PAGE, PRINT, Chart, filled, inline, transposed
from attriboard.leaderboard.plots.looks import looks
from attriboard.leaderboard.questions import SELECTED, Plane

ROOM = {"padding": {"left": 16, "right": 5, "top": 5, "bottom": 5}}  # for letters wider than the renderer's
SPREAD = 0.5  # of the distance between two ground truths, over which the marks of one are spread


def draw_questions(
    plane: Plane,
    title: str,
    size: tuple[int, int] = (560, 300),
    colors: Mapping[str, str] = PRINT,
    *,
    down: bool = False,
) -> Chart:
    """Rank of every compared method on every ground truth, best at the top; bars are 95 % intervals.

    Ground truths that rank no method are drawn hollow.

    Args:
        plane: a task's ground truths.
        title: above.
        size: width and height, in pixels.
        colors: by name, see `charts.PRINT`.
        down: whether the ground truths follow each other from top to bottom, ranks from left to right.

    Raises:
        InputError: fewer than two methods were graded on all of them.
    """
    names = plane.compared(SELECTED)
    if len(names) < 2:
        raise InputError("a figure of ranks needs at least two methods that every ground truth has graded")
    rankings, titles = plane.rankings, [plane.study_of(name).title for name in names]
    drawn = looks(titles)
    rows = [
        {
            "series": name,
            "color": drawn[name].color,
            "at": k + SPREAD * (m / (len(names) - 1) - 0.5),
            "rank": float(rankings[truth.name].ranks[m]),
            "low": float(rankings[truth.name].low[m]),
            "high": float(rankings[truth.name].high[m]),
            "area": 52 if truth.ranks else 0,
        }
        for k, truth in enumerate(plane.truths)
        for m, name in enumerate(titles)
    ]
    labels = {
        str(k): [*truth.question.short.split(", "), "" if truth.ceiling is None else f"ceiling {truth.ceiling:.2f}"]
        for k, truth in enumerate(plane.truths)
    }
    over, ranked = [-0.5, len(plane.truths) - 0.5], [len(names) + 0.4, 0.6]
    values: dict[str, Any] = {
        "heading": title,
        "width": size[0],
        "height": size[1],
        "columns": 3 if down else 5,
        "offset": -14 if down else 0,  # from the first of three lines to their middle
        "ranked": rows,
        "names": titles,
        "colors": [drawn[title].color for title in titles],
        "dashes": [drawn[title].dashes for title in titles],
        "domain": over[::-1] if down else over,
        "places": list(range(len(plane.truths))),
        "labels": f"({json.dumps(labels, ensure_ascii=False)})[datum.value]",
        "rank_domain": ranked[::-1] if down else ranked,
        "rank_places": list(range(1, len(names) + 1)),
    }
    chart = filled("ranks", values, colors)
    return chart | transposed({key: chart[key] for key in ("layer", "width", "height")}) | ROOM if down else chart


def questions_figure(plane: Plane) -> Markup:
    """The figure inside a page, in the colors of its theme; readable without scripts."""
    phone = draw_questions(plane, "", (62 * len(plane.truths), 215), PAGE, down=True)
    return inline(draw_questions(plane, "", (620, 300), PAGE), _described(plane), phone)


def _described(plane: Plane) -> str:
    """The figure in words."""
    names, said = plane.compared(SELECTED), []
    for truth, found in zip(plane.truths, plane.rankings.values(), strict=True):
        order = sorted(range(len(names)), key=lambda m: found.ranks[m])
        said.append(f"{truth.question.title}: {', '.join(plane.study_of(names[m]).title for m in order)}")
    return f"Methods from the best to the worst on {plane.task.name}; " + "; ".join(said)
