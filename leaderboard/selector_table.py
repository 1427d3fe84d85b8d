"""The selectors' board: what each choice is worth, by task and attributor, and on average."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean, median

from attriboard.leaderboard import formats
from attriboard.leaderboard.common import largest_common
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import MethodStudy, TaskStudy
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Link, Row, Table
from attriboard.records.model import HEADLINE_SELECTOR, Difference, GradedConfiguration, SelectionRecord

COLUMNS = (
    Column("task", "Task", numeric=False, folded=True),
    Column("attributor", "Attributor", numeric=False, folded=True),
    Column("chosen", "Chosen", "The hyperparameter that it chose", numeric=False, folded=True),
    Column("lds", "LDS", "At the chosen hyperparameters, on scoring points", best_first="desc"),
    Column("regret", "Regret", "LDS of the oracle minus LDS of the choice, with a paired 95 % interval"),
    Column("gap_closed", "Gap closed", "(selected − default) / (oracle − default)", best_first="desc"),
    Column("rank_correlation", "Rank corr.", "Spearman's correlation of what the selector looks at with the LDS curve",
           best_first="desc"),
    Column("seconds", "Seconds", "Of the fit and the choice"),
    Column("retrains", "Retrains saved", "That choosing by LDS would have taken", shown=False),
    Column("note", "Note", numeric=False, shown=False),
)  # fmt: skip

SUMMARY = (
    Column("n", "Choices", "Task and attributor pairs on which it chose"),
    Column("regret", "Mean regret", "Over its choices"),
    Column(
        "surrogate",
        "ξ̄'s regret there",
        "Mean regret of the surrogate on the same tasks and attributors, for comparison, "
        "because not every selector chose everywhere",
    ),
    Column(
        "common",
        "Mean regret, common",
        "Over one subset for all: the pairs of task and attributor on which every selector with a number here chose",
    ),
    Column("worst", "Worst regret"),
    Column(
        "gap_closed",
        "Median gap closed",
        "Where there is a gap. The median: a mean is ruled by the few choices that are far worse than the default",
        best_first="desc",
    ),
    Column("rank_correlation", "Mean rank corr.", best_first="desc"),
    Column("seconds", "Mean seconds"),
    Column("failed", "Not applicable"),
)


def _all(studies: Iterable[TaskStudy]) -> list[Entry[SelectionRecord]]:
    """Every choice; where the default is better than the oracle's candidates, regret is against the default."""
    return [
        replace(entry, record=_against_the_best(method, entry.record))
        for study in studies
        for method in study.methods.values()
        for _, entry in sorted(method.selections.items())
    ]


def _against_the_best(method: MethodStudy, record: SelectionRecord) -> SelectionRecord:
    """The record with its regret moved to the best known configuration."""
    best = method.variants.get("oracle")
    if best is None or best.record.lds is None or record.regret is None or record.oracle is None:
        return record
    more = best.record.lds.mean - (record.oracle.lds or 0.0) if best.record.variant != "oracle" else 0.0
    if more <= 0:
        return record
    low, high = record.regret.ci95
    moved = Difference(mean=record.regret.mean + more, ci95=(low + more, high + more))
    return record.model_copy(update={"regret": moved, "gap_closed": None})


def selector_table(studies: Iterable[TaskStudy]) -> Table | None:
    """Every choice, best regret first within a task and attributor, refusals last; none where there is none."""
    found = sorted(
        _all(studies),
        key=lambda e: (e.record.regret is None, *_pair(e.record), _regret(e.record), e.record.selector),
    )
    if not found:
        return None
    rows = [
        Row(
            entry.record.selector,
            Cell(entry.record.selector, entry.record.selector, link=Link(f"records/{entry.id}.html")),
            _cells(entry),
            family=entry.record.task.name,
        )
        for entry in found
    ]
    caption = "Every choice with what it is worth. Transferred: the spectrum was another method's on the same models."
    heading = Column("selector", "Selector", numeric=False)
    return Table("choices", caption, "choices", heading, COLUMNS, rows, filtered_by="Task")


def selector_summary(studies: Iterable[TaskStudy]) -> Table | None:
    """One row per selector: means over tasks and attributors."""
    by_selector: dict[str, list[SelectionRecord]] = {}
    every = _all(studies)
    for entry in [entry for entry in every if not entry.mine] or every:
        by_selector.setdefault(entry.record.selector, []).append(entry.record)
    if not by_selector:
        return None
    headline = {_pair(r): r.regret.mean for r in by_selector.get(HEADLINE_SELECTOR, ()) if r.regret}
    chosen = {name: {_pair(r) for r in records if r.regret} for name, records in by_selector.items()}
    compared, common = largest_common(chosen)
    rows = []
    for name, records in by_selector.items():
        regrets = [r.regret.mean for r in records if r.regret]
        there = [headline[_pair(r)] for r in records if r.regret and _pair(r) in headline]
        cells = {
            "n": Cell(str(len(regrets)), len(regrets)),
            "failed": Cell(str(len(records) - len(regrets)), len(records) - len(regrets)),
            "regret": _mean(regrets),
            "surrogate": _mean(there),
            "common": _mean([r.regret.mean for r in records if r.regret and _pair(r) in common])
            if name in compared
            else EMPTY,
            "worst": Cell(formats.fixed(max(regrets)), max(regrets)) if regrets else EMPTY,
            "gap_closed": _median([r.gap_closed for r in records if r.gap_closed is not None]),
            "rank_correlation": _mean([r.rank_correlation for r in records if r.rank_correlation is not None]),
            "seconds": _mean([r.seconds for r in records if r.regret], formats.seconds),
        }
        rows.append(Row(name, Cell(name, name), cells))
    rows.sort(key=lambda row: float(row.cell("regret").value or 0.0) if row.cell("regret").value is not None else 9.0)
    caption = (
        "Averages over each selector's own choices; beside them, for comparison, ξ̄'s regret on the same tasks and "
        f"attributors, and the mean over the {len(common)} pairs of task and attributor on which all of them chose. "
        "A regret of 0 means: as good as choosing with all the retrains."
    )
    return Table("summary", caption, "selectors", Column("selector", "Selector", numeric=False), SUMMARY, rows)


def _pair(record: SelectionRecord) -> tuple[str, str]:
    return record.task.name, record.row


def _mean(values: Sequence[float], write: Callable[[float], str] = formats.fixed) -> Cell:
    return Cell(write(fmean(values)), fmean(values)) if values else EMPTY


def _median(closed: Sequence[float]) -> Cell:
    return Cell(formats.gap(median(closed)), median(closed)) if closed else EMPTY


def _regret(record: SelectionRecord) -> float:
    return record.regret.mean if record.regret else 9.0


def _cells(entry: Entry[SelectionRecord]) -> dict[str, Cell]:
    record = entry.record
    task = record.task.name
    cells = {
        "task": Cell(task, task, link=Link(f"tasks/{task}.html")),
        "attributor": Cell(entry.title, entry.title, link=Link(f"attributors/{entry.row}.html")),
        "chosen": _chosen(record),
        "seconds": Cell(formats.seconds(record.seconds), record.seconds),
        "retrains": Cell(formats.count(record.n_retrains), record.n_retrains),
        "note": Cell(record.note or "—", record.note or None),
    }
    if record.selected and record.selected.lds is not None:
        cells["lds"] = Cell(formats.fixed(record.selected.lds), record.selected.lds)
    if record.regret:
        low, high = map(formats.fixed, record.regret.ci95)
        cells["regret"] = Cell(formats.fixed(record.regret.mean), record.regret.mean, note=f"{low} to {high}")
    if record.gap_closed is not None:
        cells["gap_closed"] = Cell(formats.gap(record.gap_closed), record.gap_closed)
    if record.rank_correlation is not None:
        cells["rank_correlation"] = Cell(formats.fixed(record.rank_correlation, 2), record.rank_correlation)
    return cells


def _chosen(record: SelectionRecord) -> Cell:
    if record.status == "failed" or record.selected is None:
        return Cell(
            formats.category(record.reason) or "nothing",
            None,
            note=(record.reason or "").partition(": ")[2],
            badge="quiet",
        )
    text = formats.settings(_changed(record.default, record.selected))
    return Cell("the default" if text == "none" else text, text, note="transferred" * record.transferred)


def _changed(default: GradedConfiguration, selected: GradedConfiguration) -> dict[str, bool | int | float | str | None]:
    before = default.hyperparameters
    return {name: v for name, v in selected.hyperparameters.items() if name not in before or before[name] != v}
