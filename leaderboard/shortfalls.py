"""Where ξ's λ falls short, for the overview: clearly worse than the default, or far below the oracle."""

from collections.abc import Iterable
from dataclasses import dataclass

from attriboard.leaderboard import formats
from attriboard.leaderboard.lds_table import regret
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import MethodStudy, TaskStudy
from attriboard.leaderboard.tables import Cell, Column, Link, Row, Table
from attriboard.records.model import AttributionRecord
from attriboard.scoring.differences import lds_difference

FAR = 0.05  # regret above which a choice falls far below the oracle


@dataclass(frozen=True)
class Shortfalls:
    """Where the choice falls short.

    Attributes:
        n: pairs of method and task on which ξ chose.
        n_worse: those on which its choice is worse than the default, by the paired difference at 5 %.
        n_far: those on which its regret is above `FAR`.
        table: the pairs counted by either, the largest regret first.
    """

    n: int
    n_worse: int
    n_far: int
    table: Table


def shortfalls(studies: Iterable[TaskStudy]) -> Shortfalls | None:
    """Over published records; none where every choice is as good as the default and near the oracle."""
    pairs = [
        (study, method)
        for study in studies
        for method in study.methods.values()
        if method.lds("selected") and method.lds("default") and not method.mine
    ]
    worse = [_worse(method) for _, method in pairs]
    given = [found[0].mean if (found := regret(method)) else 0.0 for _, method in pairs]
    short = [i for i in range(len(pairs)) if worse[i] or given[i] > FAR]
    if not short:
        return None
    rows = [_row(*pairs[i], given[i]) for i in sorted(short, key=lambda i: (-given[i], pairs[i][0].name))]
    columns = [
        Column("task", "Task", numeric=False),
        Column("default", "Default"),
        Column("selected", "Selected"),
        Column("oracle", "Oracle"),
        Column("regret", "Given away", "LDS of the oracle minus LDS at ξ's λ"),
    ]
    caption = (
        "LDS at the default, at ξ's λ and at the oracle's, which needs the retrains. The largest loss comes first."
    )
    heading = Column("method", "Attributor", numeric=False)
    table = Table("shortfalls", caption, "pairs", heading, columns, rows)
    return Shortfalls(len(pairs), sum(worse), sum(value > FAR for value in given), table)


def _worse(method: MethodStudy) -> bool:
    """Whether the default is better than ξ's choice, beyond chance."""
    default, selected = method.lds("default"), method.lds("selected")
    if default is None or selected is None:
        return False
    found = lds_difference(default, selected)
    return found.significant and found.mean > 0


def _row(study: TaskStudy, method: MethodStudy, given: float) -> Row:
    cells = {"task": Cell(study.name, study.name, link=Link(f"leaderboards/{study.name}-lds.html"))}
    cells |= {name: _score(method.variants[name]) for name in ("default", "selected", "oracle") if method.lds(name)}
    cells["regret"] = Cell(formats.fixed(given), given)
    heading = Cell(method.title, method.name, link=Link(f"attributors/{method.name}.html"))
    return Row(f"{method.name} on {study.name}", heading, cells)


def _score(entry: Entry[AttributionRecord]) -> Cell:
    record = entry.record
    mean = record.lds.mean if record.lds else None
    detail = formats.chosen_regularization(record.hyperparameters)
    return Cell(
        "—" if mean is None else formats.fixed(mean), mean, detail=detail, link=Link(f"records/{entry.id}.html")
    )
