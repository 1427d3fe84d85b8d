"""What choosing λ costs on average: regret by number of retrains, one line per selector, over one common subset."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from attriboard.leaderboard import formats
from attriboard.leaderboard.common import largest_common
from attriboard.leaderboard.study import TaskStudy
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Row, Table
from attriboard.records.cost import RULES, SelectionCostRecord

ALL = "all"


@dataclass(frozen=True)
class Average:
    """Mean regret over tasks and methods.

    Attributes:
        n: how many pairs of task and method.
        n_all: how many have a record.
        budgets: numbers of retrains that all of them have.
        rules: rule → mean regret at each of them.
        picks: selector without single retrains → its mean regret; those that chose on all pairs.
        oracle: that of the oracle, which has all retrains.
    """

    n: int
    n_all: int
    budgets: Sequence[int]
    rules: dict[str, list[float]]
    picks: dict[str, float]
    oracle: float | None


def cost_average(studies: Iterable[TaskStudy]) -> Average | None:
    """The average over published records; none where there are fewer than two."""
    records = {
        (study.name, entry.record.row): entry.record for study in studies for entry in study.costs if not entry.mine
    }
    rules = [rule for rule in RULES if all(rule in record.rules for record in records.values())]
    budgets = sorted(set.intersection(*(set(record.budgets) for record in records.values()))) if records else []
    if len(records) < 2 or not rules or not budgets:
        return None
    chose = {
        name: {pair for pair, record in records.items() if _regret(record, name) is not None}
        for name in sorted({name for record in records.values() for name in record.picks})
    }
    compared, common = largest_common(chose, always=len(rules))
    kept = [record for pair, record in records.items() if pair in common] or list(records.values())
    means = {rule: [fmean(r.rules[rule].mean[r.budgets.index(k)] for r in kept) for k in budgets] for rule in rules}
    picks = {name: fmean(_regret(record, name) or 0.0 for record in kept) for name in sorted(compared)}
    return Average(len(kept), len(records), budgets, means, picks, picks.pop("oracle", None))


def _regret(record: SelectionCostRecord, name: str) -> float | None:
    return record.picks[name].regret if name in record.picks else None


def average_table(average: Average) -> Table:
    """One line per selector: without retrains, with k of them, and the oracle with all."""
    columns = [
        Column("k0", "No retrains", "Mean regret of a selector that looks at no retrain"),
        *(Column(f"k{k}", f"{k}", f"Mean regret with {formats.counted(k, 'retrain')}") for k in average.budgets),
        Column(ALL, "All", "Mean regret of the oracle, which has all retrains and tunes on calibration points"),
    ]
    rows = [
        Row(
            rule,
            Cell(RULES.get(rule, rule), rule),
            {f"k{k}": _cell(mean) for k, mean in zip(average.budgets, means, strict=True)},
        )
        for rule, means in average.rules.items()
    ]
    without = sorted(average.picks.items(), key=lambda pick: pick[1])
    rows += [Row(name, Cell(name, name), {"k0": _cell(value)}) for name, value in without]
    if average.oracle is not None:
        rows.append(Row("oracle", Cell("oracle", "oracle"), {ALL: _cell(average.oracle)}))
    caption = (
        f"Mean regret by number of retrains, over the same {average.n} pairs of method and task for every line: of "
        f"{average.n_all} pairs, those on which every selector here chose. First the rules that choose from retrains, "
        "then the selectors that need none."
    )
    heading = Column("selector", "Selector", numeric=False)
    return Table("average", caption, "selectors", heading, columns, rows)


def _cell(value: float | None) -> Cell:
    return EMPTY if value is None else Cell(formats.fixed(value, 4), value)
