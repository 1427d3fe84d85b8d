"""The table of what choosing λ costs: regret by number of retrains, task by task and method by method."""

from collections.abc import Iterable

from attriboard.leaderboard import formats
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import TaskStudy
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Link, Row, Table
from attriboard.records.cost import Pick, SelectionCostRecord
from attriboard.records.model import HEADLINE_SELECTOR

SHOWN = (4, 8, 16)  # numbers of retrains with a column at first sight; others can be switched on
TYPICAL = 8
DEFINITIONS = (
    "ω: what ξ must equal where LDS peaks, measured at ξ's λ with all masks; ξ is right where it is one half. Hidden: "
    "what the grid misses, LDS at the peak of the parabola through the best grid point and its neighbors, above that "
    "point's."
)


def cost_table(studies: Iterable[TaskStudy]) -> Table | None:
    """A row per task and method; none where there is no record."""
    found = [entry for study in studies for entry in study.costs]
    if not found:
        return None
    budgets = sorted({k for entry in found for k in entry.record.budgets})
    columns = [
        Column("task", "Task", numeric=False, folded=True),
        Column("default", "Default", "Regret of the method's default λ", shown=False),
        Column("surrogate", "ξ", "Regret of ξ's λ: no retrain"),
        Column("omega", "ω", "At ξ's λ, from all masks, with a 95 % interval: ξ is right where it is one half"),
        *(
            Column(f"k{k}", formats.counted(k, "retrain"), "Mean and 90th percentile of the regret", shown=k in SHOWN)
            for k in budgets
        ),
        Column("oracle", "Oracle", "Regret of the best λ on the calibration points, by all masks"),
        Column("hidden", "Hidden", "LDS at the peak of the parabola through the best grid point and its neighbors, "
               "above that point's", shown=False),
        Column("largest", "Largest LDS, 8", "Mean regret of the plain rule: the largest LDS against 8 retrains",
               shown=False),
        Column("seconds", "Seconds, 8", "That 8 retrains take on one core"),
    ]  # fmt: skip
    rows = [
        Row(
            entry.row,
            Cell(entry.title, entry.title, link=Link(f"records/{entry.id}.html")),
            _cells(entry),
            family=entry.record.task.name,
        )
        for entry in found
    ]
    caption = (
        "Regret of λ against the number of retrains that choose it, a row per pair of method and task. Below 0: a λ "
        f"between grid points wins. {DEFINITIONS}"
    )
    heading = Column("method", "Attributor", numeric=False)
    return Table("costs", caption, "pairs", heading, columns, rows, filtered_by="Task")


def _cells(entry: Entry[SelectionCostRecord]) -> dict[str, Cell]:
    record = entry.record
    _, rule = record.headline
    cells = {
        f"k{k}": Cell(_number(mean), mean, note=f"90 %: {_number(high)}")
        for k, mean, high in zip(record.budgets, rule.mean, rule.p90, strict=True)
    }
    picks = {"default": "default", "surrogate": HEADLINE_SELECTOR, "oracle": "oracle"}
    cells |= {key: _pick(record.picks.get(name)) for key, name in picks.items()}
    cells["task"] = Cell(record.task.name, record.task.name, link=Link(f"tasks/{record.task.name}.html"))
    if record.omega is not None:
        low, high = record.omega.ci95
        cells["omega"] = Cell(
            formats.fixed(record.omega.value, 2),
            record.omega.value,
            note=f"{formats.fixed(low, 2)} to {formats.fixed(high, 2)}",
        )
    if record.hidden is not None:
        cells["hidden"] = Cell(_number(record.hidden), record.hidden)
    if "best" in record.rules and TYPICAL in record.budgets:
        plain = record.rules["best"].mean[record.budgets.index(TYPICAL)]
        cells["largest"] = Cell(_number(plain), plain)
    seconds = TYPICAL * record.retrain_seconds
    return cells | {"seconds": Cell(formats.seconds(seconds), seconds)}


def _pick(pick: Pick | None) -> Cell:
    return EMPTY if pick is None or pick.regret is None else Cell(_number(pick.regret), pick.regret)


def _number(value: float) -> str:
    return formats.fixed(value, 4)
