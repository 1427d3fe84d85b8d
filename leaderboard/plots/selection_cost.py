"""The figure of what choosing costs: regret against the number of retrains, selectors without retrains at 0."""

from collections.abc import Sequence
from typing import Any

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.charts import FONT, PRINT, Chart
from attriboard.records.cost import SelectionCostRecord

CYCLE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195", "#8c564b")
SURROGATE = "surrogate"


def draw_selection_cost(records: Sequence[SelectionCostRecord], title: str) -> Chart:
    """Mean regret against retrains, a line per method with its 90th percentile as a band; ξ's regret at 0.

    Args:
        records: of one task, one per method.
        title: above.

    Raises:
        InputError: no record.
    """
    if not records:
        raise InputError("a figure of what choosing costs needs at least one record")
    rows: list[dict[str, Any]] = []
    for record in records:
        _, rule = record.headline
        name = record.attributor.name
        pick = record.picks.get(SURROGATE)
        if pick is not None and pick.regret is not None:
            rows.append({"method": name, "k": "0 (ξ)", "mean": pick.regret, "p90": pick.regret, "surrogate": True})
        rows += [
            {"method": name, "k": str(k), "mean": mean, "p90": p90, "surrogate": False}
            for k, mean, p90 in zip(record.budgets, rule.mean, rule.p90, strict=True)
        ]
    budgets = sorted({k for record in records for k in record.budgets})
    methods = [record.attributor.name for record in records]
    x = {
        "field": "k", "type": "ordinal", "title": "retrains that choose",
        "sort": ["0 (ξ)", *map(str, budgets)], "axis": {"labelAngle": 0},
    }  # fmt: skip
    color = {
        "field": "method", "type": "nominal", "title": None,
        "scale": {"domain": methods, "range": [CYCLE[i % len(CYCLE)] for i in range(len(methods))]},
    }  # fmt: skip
    paid = [{"filter": "!datum.surrogate"}]
    y = {"field": "mean", "type": "quantitative", "title": "regret (LDS)"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "title": {"text": title, "anchor": "start"},
        "width": 460,
        "height": 280,
        "data": {"values": rows},
        "layer": [
            {"transform": paid, "mark": {"type": "area", "opacity": 0.12},
             "encoding": {"x": x, "y": y, "y2": {"field": "p90"}, "color": color}},
            {"transform": paid, "mark": {"type": "line", "point": True}, "encoding": {"x": x, "y": y, "color": color}},
            {"transform": [{"filter": "datum.surrogate"}],
             "mark": {"type": "point", "shape": "diamond", "filled": True, "size": 90, "opacity": 1},
             "encoding": {"x": x, "y": y, "color": color}},
        ],
        "config": {
            "font": FONT, "background": "white", "axis": {"labelColor": PRINT["soft"], "gridColor": PRINT["line"]},
        },
    }  # fmt: skip
