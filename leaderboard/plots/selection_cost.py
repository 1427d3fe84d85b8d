"""The figure of what choosing costs: regret against the number of retrains, selectors without retrains at 0."""

import json
import math
from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

from markupsafe import Markup

from attriboard.base.errors import InputError
from attriboard.leaderboard.formats import counted, fixed, seconds
from attriboard.leaderboard.plots.charts import PAGE, PRINT, Chart, filled, inline
from attriboard.leaderboard.plots.looks import COLORS, looks
from attriboard.records.cost import SelectionCostRecord
from attriboard.records.model import HEADLINE_SELECTOR

ALL = 1.0  # how far right of the largest budget the oracle stands, in powers of two


def draw_selection_cost(
    records: Sequence[SelectionCostRecord],
    title: str,
    size: tuple[int, int] = (460, 280),
    colors: Mapping[str, str] = PRINT,
) -> Chart:
    """Mean regret against retrains (log), a line per method with a band from the 10th to the 90th percentile.

    ξ's regret is a diamond at 0 retrains; the oracle's, which had all masks, a ring at the right. Below every number of
    retrains stand the seconds that they take on one core.

    Args:
        records: of one task, one per method.
        title: above.
        size: width and height, in pixels.
        colors: by name, see `charts.PRINT`.

    Raises:
        InputError: no record.
    """
    if not records:
        raise InputError("a figure of what choosing costs needs at least one record")
    budgets = sorted({k for record in records for k in record.budgets})
    last = math.log2(budgets[-1]) + ALL
    labels: dict[str, list[str]] = {"0.00": ["0", "ξ"], f"{last:.2f}": ["all", "oracle"]}
    each = records[0].retrain_seconds
    labels |= {f"{math.log2(k):.2f}": [str(k), seconds(k * each)] for k in budgets}
    rows, marks = [], []
    drawn = looks(record.title for record in records)
    for record in records:
        own = {"series": record.title, "color": drawn[record.title].color}
        _, rule = record.headline
        low = rule.p10 or rule.mean
        rows += [
            own | {"at": math.log2(k), "retrains": k, "mean": mean, "low": least, "high": most}
            for k, mean, least, most in zip(record.budgets, rule.mean, low, rule.p90, strict=True)
        ]
        for name, at, shape in ((HEADLINE_SELECTOR, 0.0, "diamond"), ("oracle", last, "circle")):
            pick = record.picks.get(name)
            if pick is not None and pick.regret is not None:
                marks.append(own | {"at": at, "mean": pick.regret, "shape": shape, "who": name})
    values: dict[str, Any] = {
        "heading": title,
        "width": size[0],
        "height": size[1],
        "columns": 4 if len(drawn) <= 4 else 3,
        "paid": rows,
        "marks": marks,
        "names": list(drawn),
        "colors": [look.color for look in drawn.values()],
        "dashes": [look.dashes for look in drawn.values()],
        "domain": [-0.35, last + 0.35],
        "budget_title": "retrains (log), and their seconds on one core",
        "places": [float(place) for place in labels],
        "labels": f"({json.dumps(labels, ensure_ascii=False)})[format(datum.value, '.2f')]",
    }
    return filled("budget", values, colors)


def average_figure(
    budgets: Sequence[int], rules: Mapping[str, Sequence[float]], xi: float | None, oracle: float | None
) -> Markup:
    """Mean regret over tasks and methods inside a page: a line per rule, ξ's as a diamond, the oracle's as a ring.

    Args:
        budgets: numbers of retrains.
        rules: name of a rule → mean regret at each.
        xi: that of ξ.
        oracle: that of the oracle.
    """
    said = "; ".join(
        f"{name} {fixed(means[0])} with {counted(budgets[0], 'retrain')}, {fixed(means[-1])} with {budgets[-1]}"
        for name, means in rules.items()
    )
    without = "" if xi is None else f"ξ {fixed(xi)} without retrains; "
    with_all = "" if oracle is None else f"; the oracle {fixed(oracle)} with all"
    phone = {"\n".join(wrap(name, 36)): means for name, means in rules.items()}
    return inline(
        _average_chart(budgets, rules, xi, oracle, (560, 240)),
        f"Mean regret of λ over tasks and methods: {without}{said}{with_all}",
        phone=_average_chart(budgets, phone, xi, oracle, (270, 220)),
    )


def _average_chart(
    budgets: Sequence[int],
    rules: Mapping[str, Sequence[float]],
    xi: float | None,
    oracle: float | None,
    size: tuple[int, int],
) -> Chart:
    colored = dict(zip(rules, COLORS, strict=False))
    last = math.log2(budgets[-1]) + ALL
    labels = {"0.00": ["0", "ξ"], f"{last:.2f}": ["all", "oracle"]}
    labels |= {f"{math.log2(k):.2f}": [str(k)] for k in budgets}
    rows = [
        {"series": name, "color": colored[name], "at": math.log2(k), "mean": mean, "low": mean, "high": mean}
        for name, means in rules.items()
        for k, mean in zip(budgets, means, strict=True)
    ]
    picks = ((xi, 0.0, "diamond", "selected"), (oracle, last, "circle", "oracle"))
    values: dict[str, Any] = {
        "heading": "",
        "width": size[0],
        "height": size[1],
        "columns": 1,
        "paid": rows,
        "marks": [
            {"at": at, "mean": mean, "shape": shape, "color": PAGE[color]}
            for mean, at, shape, color in picks
            if mean is not None
        ],
        "names": list(rules),
        "colors": list(colored.values()),
        "dashes": [[1, 0]] * len(rules),
        "domain": [-0.35, last + 0.35],
        "places": [float(place) for place in labels],
        "labels": f"({json.dumps(labels, ensure_ascii=False)})[format(datum.value, '.2f')]",
        "budget_title": "retrains (log)",
    }
    return filled("budget", values, PAGE)


def cost_figure(records: Sequence[SelectionCostRecord]) -> Markup:
    """The figure inside a page, in the colors of its theme; readable without scripts."""
    chart = draw_selection_cost(records, "", (300, 190), PAGE)
    return inline(chart, _described(records))


def _described(records: Sequence[SelectionCostRecord]) -> str:
    """The figure in words."""
    said = []
    for record in records:
        _, rule = record.headline
        first, last = record.budgets[0], record.budgets[-1]
        free = record.picks.get(HEADLINE_SELECTOR)
        without = "" if free is None or free.regret is None else f"ξ {fixed(free.regret)}, "
        said.append(
            f"{record.title}: {without}{fixed(rule.mean[0])} with {counted(first, 'retrain')}, "
            f"{fixed(rule.mean[-1])} with {last}"
        )
    return f"Mean regret of λ on {records[0].task.name}; " + "; ".join(said)
