"""The leaderboard by LDS: default beside selected and oracle, ranks, and why there is none."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard import formats
from attriboard.leaderboard.drawings import interval_bar
from attriboard.leaderboard.method_rows import method_row
from attriboard.leaderboard.ranks import share_ranks
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.removal_table import headline_removals
from attriboard.leaderboard.study import SIGN_FLIPPED, MethodStudy, TaskStudy, doubt
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Link, Row, Table, failed_cell, nested
from attriboard.records.model import AttributionRecord, Difference, LdsResult, SelectionRecord
from attriboard.scoring.differences import PairedDifference, lds_difference

LDS_COLUMNS = (
    Column("rank", "Rank", "Of the selected hyperparameters if there are any to select, otherwise of the defaults. "
           "Methods whose paired difference is not significant share a rank"),
    Column("rank_default", "Rank, default", "Of the default hyperparameters alone", shown=False),
    Column("default", "Default", "LDS at the defaults of the method's paper or library", best_first="desc"),
    Column("selected", "Selected", "LDS at the λ that ξ picks without retraining", best_first="desc"),
    Column("oracle", "Oracle", "LDS at the λ that is best on calibration points: needs the retrains, never ranks",
           best_first="desc"),
    Column("regret", "Regret", "LDS of the oracle minus LDS of the selected hyperparameters"),
    Column("gap_closed", "Gap closed", "(selected − default) / (oracle − default)", best_first="desc"),
    Column("pearson", "Pearson", "Pearson's correlation instead of Spearman's, same hyperparameters as the rank",
           best_first="desc", shown=False),
    Column("seconds", "Seconds", "Fit and score, default hyperparameters"),
    Column("memory", "Peak MB", "Largest resident memory, default hyperparameters"),
    Column("status", "Status", numeric=False),
    Column("settings", "Default hyperparameters", numeric=False, shown=False),
    Column("chosen", "Selected hyperparameters", numeric=False, shown=False),
    Column("record", "Record", "Permanent link to the number behind the rank", numeric=False, shown=False),
)  # fmt: skip


CUSTOM = Column("custom", "Custom", "LDS at hyperparameters chosen by hand, or of a score matrix; never ranks",
                best_first="desc")  # fmt: skip

NO_LAMBDA = "no λ"
SEEN_ELSEWHERE = {"measured", "failed", "not run", "derived"}
"""What a row's numbers and the list of failures already say: a column with nothing else is hidden at first."""


def rank_methods(methods: Iterable[MethodStudy], results: Callable[[MethodStudy], LdsResult | None]) -> dict[str, int]:
    """Rank of every method that has a result; what cannot be told apart shares one."""
    scored = {method.name: result for method in methods if (result := results(method)) is not None}
    return dict(zip(scored, share_ranks(list(scored.values())), strict=True))


def headline_result(method: MethodStudy) -> LdsResult | None:
    """What a method gets without retraining."""
    return method.headline.record.lds if method.headline else None


def lds_table(study: TaskStudy) -> Table | None:
    """The leaderboard by LDS."""
    if not any(method.attributions or method.selections for method in study.methods.values()):
        return None
    methods = list(study.methods.values())
    ranks = rank_methods(methods, headline_result)
    default_ranks = rank_methods(methods, lambda method: method.lds("default"))
    shown = [lds for m in methods for name in ("default", "selected", "oracle", "custom") if (lds := m.lds(name))]
    shown += [negative(study.negated[1].record.lds)] if study.negated and study.negated[1].record.lds else []
    ends = [end for lds in shown for end in lds.ci95] + [0.0, study.ceiling or 0.0]
    scale = (min(ends), max(ends))

    def order(method: MethodStudy) -> tuple[float, bool, str]:
        result = headline_result(method) or method.lds("custom")
        return (-result.mean if result else 2.0, not method.attributions, method.name)  # an LDS is at most 1

    columns = [*LDS_COLUMNS]
    by_hand = [
        method for method in methods if "custom" in method.variants and method.variants["custom"] != start(method)
    ]
    if by_hand:
        alone = any(headline_result(method) is None for method in by_hand)  # else it is beside what ranks
        after = next(i for i, column in enumerate(columns) if column.key == "memory")
        columns.insert(after + 1, replace(CUSTOM, shown=alone))
    if {status(method.main).text for method in methods} <= SEEN_ELSEWHERE:
        columns = [replace(column, shown=column.shown and column.key != "status") for column in columns]
    removals = headline_removals(study)
    if removals:
        at = next(i for i, column in enumerate(columns) if column.key == "seconds")
        columns.insert(at, removals.column)
    rows = [
        method_row(
            study,
            method,
            _cells(study, method, scale, ranks.get(method.name), default_ranks.get(method.name))
            | (_negated(study, scale) if method.name == SIGN_FLIPPED else {})
            | {"removal": removals.cells.get(method.name, EMPTY) if removals else EMPTY},
        )
        for method in sorted(methods, key=order)
        if not _only_elsewhere(method)
    ]
    versions = [version for method in sorted(methods, key=order) if (version := _version(study, method, scale))]
    caption = (
        "LDS with 95 % intervals on the scoring points. In the drawings: the bar ends at the LDS, the block is its "
        "interval, the dashed line is the noise ceiling. Bold: the number that is ranked. Controls stay "
        "visible in every search."
    )
    if versions:
        named = versions[0].heading.text
        caption += f" A row that names a setting, as in “{named}”: ξ chose λ beside that setting; never ranks."
    return Table(
        "board", caption, "methods", Column("method", "Attributor", numeric=False), columns, nested([*rows, *versions])
    )


def _cells(
    study: TaskStudy, method: MethodStudy, scale: tuple[float, float], rank: int | None, default_rank: int | None
) -> dict[str, Cell]:
    cells = {
        "rank": _rank(rank),
        "rank_default": _rank(default_rank),
        **{name: _score(method, name, scale, study.ceiling) for name in ("default", "selected", "oracle", "custom")},
        **_worth(method),
        "status": status(method.main),
    }
    main, headline = method.main, method.headline
    if headline and headline.record.lds:
        pearson = headline.record.lds.pearson
        cells["pearson"] = Cell(formats.fixed(pearson), pearson)
    if main:
        cells |= _cost(main.record)
        cells["settings"] = _settings(main.record.hyperparameters)
    if "selected" in method.variants:
        cells["chosen"] = _settings(method.variants["selected"].record.hyperparameters)
    if entry := headline or main:
        cells["record"] = Cell(entry.id[:10], entry.id, link=Link(f"records/{entry.id}.html"))
    return cells


def negative(lds: LdsResult) -> LdsResult:
    """The result of the negated scores, without the vectors."""
    low, high = lds.ci95
    vectors = {"per_test": None, "mask_influence": None}
    return lds.model_copy(update={"mean": -lds.mean, "pearson": -lds.pearson, "ci95": (-high, -low)} | vectors)


def _negated(study: TaskStudy, scale: tuple[float, float]) -> dict[str, Cell]:
    """The control `sign_flipped` where it was not run: minus the LDS of the best method."""
    if study.negated is None or (lds := study.negated[1].record.lds) is None:
        return {}
    name, entry = study.negated
    flipped = negative(lds)
    cell = lds_cell(flipped, entry.id, scale, study.ceiling)
    note = f"negates {name}, without a run"
    return {
        "default": cell,
        "pearson": Cell(formats.fixed(flipped.pearson), flipped.pearson),
        "status": Cell("derived", "derived", note=note, badge="quiet"),
        "record": Cell(entry.id[:10], entry.id, link=cell.link),
    }


def _rank(rank: int | None) -> Cell:
    return Cell(str(rank), rank) if rank else EMPTY


def _score(method: MethodStudy, variant: str, scale: tuple[float, float], ceiling: float | None) -> Cell:
    entry = method.variants.get(variant)
    if entry is None or (variant == "custom" and entry is start(method)):
        if variant == "selected":
            return _unselected(method)
        return EMPTY if method.variants or variant != "default" else Cell(note="not run")
    lds = entry.record.lds
    if lds is None:
        return failed_cell(entry.id, entry.record.reason)
    if doubt(entry):
        return replace(failed_cell(entry.id, None), text="implausible")
    detail = formats.configuration(method.beside(entry.record.hyperparameters), entry.record.hyperparameters)
    if variant == "oracle" and entry.record.variant != "oracle":
        detail += f", as {entry.record.variant}"
    cell = replace(lds_cell(lds, entry.id, scale, ceiling), emphasis=entry is method.headline, detail=detail)
    return replace(cell, drawing=None) if variant == "custom" else cell  # the last column: it must not stretch rows


def lds_cell(lds: LdsResult, record: str, scale: tuple[float, float], ceiling: float | None) -> Cell:
    """An LDS with its interval and their drawing; leads to a record."""
    low, high = map(formats.fixed, lds.ci95)
    return Cell(
        formats.fixed(lds.mean),
        lds.mean,
        note=f"{low} to {high}",
        link=Link(f"records/{record}.html"),
        drawing=interval_bar(lds, scale, ceiling),
    )


def _worth(method: MethodStudy) -> dict[str, Cell]:
    """What the λ that ξ picks is worth; nothing beside an empty cell."""
    if (selection := method.selection) is None or method.lds("selected") is None:
        return {}
    found = {"regret": _difference(*given_away)} if (given_away := regret(method)) else {}
    return found | ({} if _overtaken(method) else _gap(selection.record))


def _gap(record: SelectionRecord) -> dict[str, Cell]:
    closed = record.gap_closed
    return {} if closed is None else {"gap_closed": Cell(formats.gap(closed), closed)}


def regret(method: MethodStudy) -> tuple[Difference | PairedDifference, str] | None:
    """LDS of the oracle minus LDS of the selected hyperparameters, and the record it is from."""
    oracle, selected = method.variants.get("oracle"), method.variants.get("selected")
    if _overtaken(method) and oracle and selected and oracle.record.lds and selected.record.lds:
        return lds_difference(oracle.record.lds, selected.record.lds), oracle.id
    selection = method.selection
    return (selection.record.regret, selection.id) if selection and selection.record.regret is not None else None


def _overtaken(method: MethodStudy) -> bool:
    """Whether the default or the selected configuration is better than all that the oracle of the record considered."""
    oracle = method.variants.get("oracle")
    return oracle is not None and oracle.record.variant != "oracle"


def _difference(found: Difference | PairedDifference, record: str) -> Cell:
    low, high = map(formats.fixed, found.ci95)
    return Cell(formats.fixed(found.mean), found.mean, note=f"{low} to {high}", link=Link(f"records/{record}.html"))


def _unselected(method: MethodStudy) -> Cell:
    """In place of an LDS at ξ's λ: why there is none."""
    report = method.selection
    return Cell(note=why_not_selected(method), link=Link(f"records/{report.id}.html") if report else None)


def why_not_selected(method: MethodStudy) -> str:
    """Why ξ picked no λ: the method has none, something failed, or nobody asked."""
    default, report = method.variants.get("default"), method.selection
    known = method.defaults or (method.main.record.hyperparameters if method.main else {})
    if method.newest and method.newest.record.attributor.origin == "scores":
        return "scores only"
    if REGULARIZATION not in known:
        return NO_LAMBDA
    if default and default.record.status == "failed":
        return f"default failed: {formats.category(default.record.reason)}"
    if report is None:
        return "ξ not run"
    reason = formats.category(report.record.reason)
    return "λ, but no spectrum" if reason == "not applicable" else reason


def absence(method: MethodStudy, variant: str) -> str:
    """In words why a method has no LDS of a variant."""
    entry = method.variants.get(variant)
    if entry is not None:
        return "implausible" if doubt(entry) else f"failed: {formats.category(entry.record.reason)}"
    why = why_not_selected(method) if method.variants and variant in ("selected", "oracle") else ""
    return why if variant == "selected" and why else NO_LAMBDA if why == NO_LAMBDA else "not run"


def start(method: MethodStudy) -> Entry[AttributionRecord] | None:
    """The record at which a choice beside other settings than the defaults starts, where there is one."""
    if (report := method.elsewhere) is None:
        return None
    settings = report.record.default.hyperparameters
    return next((entry for entry in method.points if entry.record.hyperparameters == settings), None)


def _only_elsewhere(method: MethodStudy) -> bool:
    """Whether all that is known of a method is on the row of its version."""
    return bool(method.variants) and all(entry is start(method) for entry in method.variants.values())


def _version(study: TaskStudy, method: MethodStudy, scale: tuple[float, float]) -> Row | None:
    """The row of a choice beside other settings than the defaults; none where there was no such choice."""
    if (report := method.elsewhere) is None:
        return None
    record, link = report.record, Link(f"records/{report.id}.html")
    if record.selected is None or record.oracle is None:
        return None
    begun, cells = start(method), {"status": status(start(method))}
    if begun:
        cells |= _cost(begun.record) | {"settings": _settings(begun.record.hyperparameters)}
    for name, graded in (("default", record.default), ("selected", record.selected), ("oracle", record.oracle)):
        if graded.lds is not None:
            detail = formats.chosen_regularization(graded.hyperparameters)
            cells[name] = Cell(formats.fixed(graded.lds), graded.lds, detail=detail, link=link)
    if begun and begun.record.lds:
        cells["default"] = replace(
            lds_cell(begun.record.lds, begun.id, scale, study.ceiling), detail=cells["default"].detail
        )
    cells["chosen"] = _settings(record.selected.hyperparameters)
    cells |= {"regret": _difference(record.regret, report.id)} if record.regret else {}
    cells |= _gap(record)
    row = method_row(study, method, cells)
    title = f"{row.heading.text}, {formats.settings(method.beside(record.default.hyperparameters))}"
    heading = replace(row.heading, text=title, value=title)
    return replace(row, name=title, heading=heading, parent=row.name)


def _cost(record: AttributionRecord) -> dict[str, Cell]:
    cells: dict[str, Cell] = {}
    if record.score_seconds is not None:
        total = (record.fit_seconds or 0.0) + record.score_seconds
        threads = record.provenance.threads
        note = "1 thread" if threads == 1 else f"{threads} threads"
        cells["seconds"] = Cell(formats.seconds(total), total, note=note)
    elif record.status != "failed":
        cells["seconds"] = Cell(note="not timed")
    if record.peak_bytes is not None:
        cells["memory"] = Cell(formats.megabytes(record.peak_bytes), record.peak_bytes)
    return cells


def _settings(hyperparameters: Mapping[str, bool | int | float | str | None]) -> Cell:
    text = formats.settings(hyperparameters)
    return Cell(text, text)


def status(entry: Entry[AttributionRecord] | None) -> Cell:
    """The badge of a row: failed with its reason, self-reported, measured, or verified by a run elsewhere."""
    if entry is None:
        return Cell("not run", "not run", badge="quiet")
    record = entry.record
    if record.status == "failed":
        return Cell("failed", "failed", note=formats.category(record.reason), badge="failed")
    if reason := doubt(entry):
        return Cell("implausible", "implausible", note=reason, badge="failed")
    if verification := entry.verification:
        who = f"by {verification.by}, {verification.created[:10]}"
        if verification.status == "failed":
            return Cell("not reproduced", "not reproduced", note=who, badge="failed")
        return Cell("verified", "verified", note=who, badge="ok")
    degenerate = record.lds.n_degenerate if record.lds else 0
    note = f"{degenerate} of {record.lds.n_scoring} points degenerate" if degenerate and record.lds else ""
    if record.negates:
        return Cell("measured", "measured", note=f"negates {record.negates.attributor}", badge="ok")
    if record.attributor.origin == "scores":
        return Cell("self-reported", "self-reported", note=note, badge="quiet")
    return Cell("measured", "measured", note=note, badge="ok")
