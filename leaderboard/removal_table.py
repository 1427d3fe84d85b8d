"""Data selection: accuracy after the most helpful examples were removed, default beside selected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from attriboard.leaderboard import formats
from attriboard.leaderboard.method_rows import method_row
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import MethodStudy, TaskStudy
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Link, Row, Table, failed_cell, in_order
from attriboard.records.uses import RemovalPoint, RemovalRecord

VARIANTS = ("default", "selected", "oracle")
HINTS = {
    "default": "At the defaults of the method's paper or library",
    "selected": "At the λ that ξ picks without retraining",
    "oracle": "At the λ with the best LDS on calibration points: needs the retrains, never ranks",
}
TUNED_ON_LDS = "The oracle's λ is the one with the best LDS, not the best in this test."
Pair = tuple[Entry[RemovalRecord], RemovalPoint]
Found = dict[tuple[str, float], Pair]  # (variant, rate) → newest


@dataclass(frozen=True)
class Removals:
    """Removal as one column of another table: attributor → its cell."""

    column: Column
    cells: Mapping[str, Cell]


def headline_removals(study: TaskStudy) -> Removals | None:
    """What removing the largest share does, selected where it was tried, else default; none where nothing was."""
    by_method = {name: found for name, method in study.methods.items() if (found := _found(method))}
    if not by_method:
        return None
    rate = max(rate for found in by_method.values() for _, rate in found)
    cells = {}
    for name, found in by_method.items():
        variant = next((v for v in ("selected", "default") if (v, rate) in found), None)
        if variant:
            entry, point = found[variant, rate]
            value = fmean(formats.judged(point.measured))
            cells[name] = Cell(f"{value:.1f}", value, note=variant, link=Link(f"records/{entry.id}.html"))
    measured = next(iter(next(iter(by_method.values())).values()))[1].measured
    hint = f"{_measure(measured)} after the {100 * rate:g} % most helpful training examples were removed"
    order = "asc" if "correct" in measured else "desc"
    return Removals(Column("removal", f"{100 * rate:g}\u00a0% removed", hint, best_first=order), cells)


def removal_table(study: TaskStudy) -> Table | None:
    """The table of a task; none where nothing was removed."""
    by_method = {name: found for name, method in study.methods.items() if (found := _found(method))}
    failed = {name: refused for name, method in study.methods.items() if (refused := _failed(method))}
    if not by_method:
        return None
    every = [pair for found in by_method.values() for pair in found.values()]
    rates = sorted({point.rate for _, point in every})
    seeds = {len(formats.judged(point.measured)) for _, point in every}
    correct = "correct" in every[0][1].measured
    best = "asc" if correct else "desc"
    columns = [column for rate in reversed(rates) for column in _columns(rate, best, shown=rate == rates[-1])]
    rows = [
        _row(study, study.methods[name], by_method.get(name, {}), failed.get(name, {}), rates, noted=len(seeds) > 1)
        for name in sorted({*by_method, *failed})
    ]
    keys = [f"{variant}_{100 * rate:g}" for rate in reversed(rates) for variant in ("selected", "default")]
    caption = (
        f"{_measure(every[0][1].measured)}, mean over {'' if len(seeds) > 1 else f'{min(seeds)} '}seeds ± its "
        "standard error, on scoring points, after the training examples with the largest scores summed over "
        "calibration points were removed and models were retrained on the rest. "
        f"The {'lower' if correct else 'higher'}, the better the method knew what mattered. Removals that hurt less "
        "than random ones took out examples that mattered less than average. Difference: selected minus default, "
        f"paired over seeds. Rows are sorted by the bold number. {TUNED_ON_LDS}"
    )
    heading = Column("method", "Attributor", numeric=False)
    return Table(
        "board", caption, "methods", heading, columns, [*_references(every, rates), *in_order(rows, keys, best)]
    )


def _measure(measured: Mapping[str, Sequence[float]]) -> str:
    return "Accuracy in percent" if "correct" in measured else "Perplexity"


def _found(method: MethodStudy) -> Found:
    """The newest point of every variant and rate, where the most helpful examples of the whole set were removed."""
    found: Found = {}
    for entry in method.uses:
        record = entry.record
        if isinstance(record, RemovalRecord) and _counts(record):
            for point in record.points:
                found[record.variant, point.rate] = entry.holding(record), point
    return found


def _failed(method: MethodStudy) -> dict[str, Cell]:
    """Variant → the cell of the failed record that is its newest."""
    records = ((entry.record, entry.id) for entry in method.newest_uses.values())
    return {
        record.variant: failed_cell(identity, record.reason)
        for record, identity in records
        if isinstance(record, RemovalRecord) and record.status == "failed" and _counts(record)
    }


def _counts(record: RemovalRecord) -> bool:
    """Whether the most helpful examples of the whole set were removed, at one configuration."""
    return record.variant in VARIANTS and record.direction == "helpful" and not record.balanced


def _columns(rate: float, best: str, *, shown: bool) -> list[Column]:
    share = f"{100 * rate:g}\u00a0%"
    columns = [
        Column(f"{name}_{100 * rate:g}", f"{name.capitalize()}, {share}", HINTS[name], best_first=best,
               shown=shown or name != "oracle")
        for name in VARIANTS
    ]  # fmt: skip
    hint = "Selected minus default, paired over seeds, ± the standard error"
    return [*columns, Column(f"difference_{100 * rate:g}", f"Difference, {share}", hint, best_first=best, shown=shown)]


def _row(
    study: TaskStudy,
    method: MethodStudy,
    found: Found,
    failed: Mapping[str, Cell],
    rates: Sequence[float],
    *,
    noted: bool,
) -> Row:
    cells = {}
    for rate in rates:
        for variant in VARIANTS:
            pair, key = found.get((variant, rate)), f"{variant}_{100 * rate:g}"
            if pair:
                chosen = formats.chosen_regularization(pair[0].record.hyperparameters)
                cells[key] = replace(_cell(pair[1].measured, pair[0].id, noted=noted), detail=chosen)
            elif variant in failed:
                cells[key] = failed[variant]
        cells[f"difference_{100 * rate:g}"] = _difference(found.get(("selected", rate)), found.get(("default", rate)))
    return method_row(study, method, cells)


def _references(every: Sequence[Pair], rates: Sequence[float]) -> list[Row]:
    """Nothing removed, and as many examples removed at random; every record repeats them."""
    entry = max((entry for entry, _ in every), key=lambda entry: entry.age)
    full = {f"default_{100 * rate:g}": _cell(entry.record.full, entry.id) for rate in rates if entry.record.full}
    newest = {point.rate: (found, point) for found, point in sorted(every, key=lambda pair: pair[0].age)}
    random = {f"default_{100 * rate:g}": _cell(point.random, found.id) for rate, (found, point) in newest.items()}
    return [
        Row("nothing removed", Cell("nothing removed", "nothing removed"), full, fixed=True),
        Row(
            "random subsets",
            Cell("random subsets", "random subsets", note="drawn for each seed"),
            random,
            fixed=True,
        ),
    ]


def _cell(measured: Mapping[str, Sequence[float]], record: str, *, noted: bool = False) -> Cell:
    values = formats.judged(measured)
    note = f"{len(values)} seeds" if noted else ""
    return Cell(formats.mean_and_error(values), fmean(values), note=note, link=Link(f"records/{record}.html"))


def _difference(selected: Pair | None, default: Pair | None) -> Cell:
    if selected is None or default is None or selected[0].record.retrain_seeds != default[0].record.retrain_seeds:
        return EMPTY
    differences = [
        a - b for a, b in zip(formats.judged(selected[1].measured), formats.judged(default[1].measured), strict=True)
    ]
    return Cell(formats.mean_and_error(differences), fmean(differences))
