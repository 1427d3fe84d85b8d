"""The leaderboard of data selection: accuracy after the most helpful examples were removed, default beside selected."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from attriboard.leaderboard import formats
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import MethodStudy, TaskStudy
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Link, Row, Table
from attriboard.records import RemovalPoint, RemovalRecord

__all__ = ["judged", "mean_and_error", "removal_table"]

VARIANTS = ("default", "selected", "oracle")
HINTS = {
    "default": "At the defaults of the method's paper or library",
    "selected": "At the λ that ξ picks without retraining",
    "oracle": "At the λ with the best LDS on calibration points: needs the retrains, never ranks",
}
Pair = tuple[Entry[RemovalRecord], RemovalPoint]
Found = dict[tuple[str, float], Pair]  # (variant, rate) → newest


def removal_table(study: TaskStudy) -> Table | None:
    """The table of a task; none where nothing was removed."""
    by_method = {name: found for name, method in study.methods.items() if (found := _found(method))}
    if not by_method:
        return None
    every = [pair for found in by_method.values() for pair in found.values()]
    rates = sorted({point.rate for _, point in every})
    columns = [column for rate in reversed(rates) for column in _columns(rate, shown=rate == rates[-1])]
    last = rates[-1]

    def order(name: str) -> tuple[float, str]:
        found = by_method[name]
        pair = found.get(("selected", last)) or found.get(("default", last))
        return (fmean(judged(pair[1].measured)) if pair else math.inf, name)

    rows = [*_yardsticks(every, rates), *(_row(study.methods[name], by_method[name], rates) for name in by_method)]
    rows.sort(key=lambda row: (not row.fixed, order(row.name) if row.name in by_method else (0.0, row.name)))
    caption = (
        "Mean over seeds ± its standard error, on scoring points, after the training examples with the largest scores "
        "summed over calibration points were removed and the rest was retrained on. The lower, the better the method "
        "knew what mattered; one above `removed at random` took out what mattered less than average."
        if all("correct" in point.measured for _, point in every)
        else "Perplexity ± its standard error after removal: the higher, the better the method knew what mattered."
    )
    return Table("board", caption, "methods", Column("method", "Attributor", numeric=False), columns, rows)


def judged(measured: Mapping[str, Sequence[float]]) -> list[float]:
    """What retrained models are judged by: accuracy in per cent, or perplexity where there is no right answer."""
    if "correct" in measured:
        return [100 * value for value in measured["correct"]]
    return [math.exp(value) for value in measured["loss"]]


def mean_and_error(values: Sequence[float]) -> str:
    """Mean ± standard error."""
    text = f"{fmean(values):.2f}"
    return f"{text} ± {stdev(values) / math.sqrt(len(values)):.2f}" if len(values) > 1 else text


def _found(method: MethodStudy) -> Found:
    """The newest point of every variant and rate, where the most helpful examples of the whole set were removed."""
    found: Found = {}
    for entry in method.uses:
        record = entry.record
        if isinstance(record, RemovalRecord) and record.variant in VARIANTS:
            if record.direction != "helpful" or record.balanced:
                continue
            for point in record.points:
                found[record.variant, point.rate] = Entry(record, entry.id, entry.path), point
    return found


def _columns(rate: float, *, shown: bool) -> list[Column]:
    share = f"{100 * rate:g} %"
    columns = [
        Column(f"{name}_{100 * rate:g}", f"{name.capitalize()}, {share}", HINTS[name], shown=shown or name != "oracle")
        for name in VARIANTS
    ]
    hint = "Selected minus default, paired over seeds; negative: the selected λ does more damage"
    return [*columns, Column(f"difference_{100 * rate:g}", f"Difference, {share}", hint, shown=shown)]


def _row(method: MethodStudy, found: Found, rates: Sequence[float]) -> Row:
    cells = {}
    for rate in rates:
        for variant in VARIANTS:
            pair = found.get((variant, rate))
            cells[f"{variant}_{100 * rate:g}"] = _cell(pair[1].measured, pair[0].id) if pair else EMPTY
        cells[f"difference_{100 * rate:g}"] = _difference(found.get(("selected", rate)), found.get(("default", rate)))
    info = method.newest.record.attributor if method.newest else None
    heading = Cell(
        method.name,
        method.name,
        note=info.family if info else "",
        link=Link(f"attributors/{method.name}.html"),
        badge="control" if method.control else "",
    )
    return Row(method.name, heading, cells, family=info.family if info else "", fixed=False)


def _yardsticks(every: Sequence[Pair], rates: Sequence[float]) -> list[Row]:
    """Nothing removed, and as many examples removed at random; every record repeats them."""
    entry = max((entry for entry, _ in every), key=lambda entry: entry.age)
    full = {f"default_{100 * rate:g}": _cell(entry.record.full, entry.id) for rate in rates if entry.record.full}
    newest = {point.rate: (found, point) for found, point in sorted(every, key=lambda pair: pair[0].age)}
    random = {f"default_{100 * rate:g}": _cell(point.random, found.id) for rate, (found, point) in newest.items()}
    return [
        Row("nothing removed", Cell("nothing removed", "nothing removed"), full, fixed=True),
        Row("removed at random", Cell("removed at random", "removed at random"), random, fixed=True),
    ]


def _cell(measured: Mapping[str, Sequence[float]], record: str) -> Cell:
    values = judged(measured)
    return Cell(mean_and_error(values), fmean(values), note=f"{len(values)} seeds", link=Link(f"records/{record}.html"))


def _difference(selected: Pair | None, default: Pair | None) -> Cell:
    if selected is None or default is None or selected[0].record.retrain_seeds != default[0].record.retrain_seeds:
        return EMPTY
    differences = [a - b for a, b in zip(judged(selected[1].measured), judged(default[1].measured), strict=True)]
    return Cell(mean_and_error(differences).replace("-", formats.fixed(-1, 0)[0]), fmean(differences))
