"""Tables as data: columns, rows and cells, which one template draws and one script sorts, filters and exports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from markupsafe import Markup

from attriboard.leaderboard.formats import category


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in links and exports.
        title: its heading.
        hint: what it means, as the heading's tooltip.
        numeric: whether its cells hold numbers.
        best_first: "desc" where high values are good, "asc" where low ones are; how a first click sorts.
        shown: whether it is visible until columns are chosen.
        folded: whether, on a phone, its cells stand below the headings of their rows.
    """

    key: str
    title: str
    hint: str = ""
    numeric: bool = True
    best_first: str = "asc"
    shown: bool = True
    folded: bool = False


@dataclass(frozen=True)
class Link:
    """Where a cell leads: a path below the site's root."""

    path: str
    label: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what is read.
        value: the exact number or text, for sorting and exports; none sorts last.
        note: a second, smaller line.
        detail: a third one.
        link: where the text leads.
        more: a last, smaller line that leads elsewhere.
        drawing: finished markup below.
        badge: draws the text as a badge of this kind (ok, failed, quiet), or sets one after it (control, yours).
        emphasis: whether it is the number that orders its row.
        interval: the ends of the number's 95 % interval, where they alone tell methods apart.
    """

    text: str = "—"
    value: float | int | str | None = None
    note: str = ""
    detail: str = ""
    link: Link | None = None
    more: Link | None = None
    drawing: Markup | None = None
    badge: str = ""
    emphasis: bool = False
    interval: tuple[float, float] | None = None


EMPTY = Cell()


def failed_cell(record: str, reason: str | None) -> Cell:
    """In place of a number that there is none of: a badge with the reason in a word, which leads to the record."""
    return Cell("failed", None, note=category(reason), link=Link(f"records/{record}.html"), badge="failed")


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A row by its place: what it is a version of, and whether it is your own.

    Attributes:
        name: what versions of it name.
        parent: name of the row that it is a version of; empty for none.
        mine: whether it has your own records.
    """

    name: str
    parent: str = ""
    mine: bool = False


PlacedT = TypeVar("PlacedT", bound=Placed)


@dataclass(frozen=True)
class Row(Placed):
    """One row.

    Attributes:
        name: in exports.
        heading: its first cell.
        cells: the others, by column.
        family: what it is filtered by.
        fixed: whether it stays in view whatever is searched for.
    """

    name: str
    heading: Cell
    cells: Mapping[str, Cell]
    family: str = ""
    fixed: bool = False

    @property
    def method(self) -> str:
        """Name of its method; a version's own name goes on with its settings."""
        return self.name.partition(", ")[0]

    def cell(self, key: str) -> Cell:
        """The cell of a column; empty where the row has none."""
        return self.cells.get(key, EMPTY)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        id: of the element, and the prefix of its state in links.
        caption: what it shows and how to read it.
        noun: what a row is, in the plural.
        heading: the first column.
        columns: the others.
        rows: in the order that a visitor first sees.
        bibliography: name of a row → BibTeX entry.
        filtered_by: what the families of the rows are.
    """

    id: str
    caption: str
    noun: str
    heading: Column
    columns: Sequence[Column]
    rows: Sequence[Row]
    bibliography: Mapping[str, str] = field(default_factory=dict)
    filtered_by: str = "Family"

    @property
    def folded(self) -> list[Column]:
        """The columns that a phone has no room for."""
        return [column for column in self.columns if column.folded]

    @property
    def families(self) -> list[str]:
        """What rows can be filtered by."""
        return sorted({row.family for row in self.rows if row.family and not row.fixed})

    @property
    def leaders(self) -> list[tuple[Row, Cell]]:
        """The first method with the number that it is ordered by, and those whose interval overlaps that number's."""
        found = [(row, cell) for row in self.rows if not row.fixed for cell in row.cells.values() if cell.emphasis]
        return [one for one in found if one is found[0] or _overlap(found[0][1], one[1])]


def _overlap(first: Cell, other: Cell) -> bool:
    """Whether the intervals of two numbers have a value in common."""
    if first.interval is None or other.interval is None:
        return False
    return first.interval[0] <= other.interval[1] and other.interval[0] <= first.interval[1]


def in_order(rows: Iterable[Row], keys: Sequence[str], best: str) -> list[Row]:
    """Rows by the first number that they have among some columns, which is emphasized; what has none comes last.

    Args:
        rows: in any order.
        keys: columns, the most important first.
        best: "desc" or "asc", as of columns.
    """

    def marked(row: Row) -> tuple[tuple[float, str], Row]:
        key = next((key for key in keys if isinstance(row.cell(key).value, int | float)), None)
        if key is None:
            return (math.inf, row.name), row
        cell = row.cell(key)
        value = float(cell.value or 0.0)
        emphasised = replace(row, cells={**row.cells, key: replace(cell, emphasis=True)})
        return (-value if best == "desc" else value, row.name), emphasised

    return nested([row for _, row in sorted(map(marked, rows), key=lambda pair: pair[0])])


def nested(rows: Sequence[PlacedT]) -> list[PlacedT]:
    """The rows in their order, but versions right below the row that they are versions of, where it is there."""
    heads = {row.name for row in rows if not row.parent}
    below: dict[str, list[PlacedT]] = {}
    for row in rows:
        if row.parent in heads:
            below.setdefault(row.parent, []).append(row)
    alone = (replace(row, parent="") for row in rows if row.parent not in heads)
    return [placed for row in alone for placed in (row, *below.get(row.name, ()))]
