"""Tables as data: columns, rows and cells, which one template draws and one script sorts, filters and exports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup


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
    """

    key: str
    title: str
    hint: str = ""
    numeric: bool = True
    best_first: str = "asc"
    shown: bool = True


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
        drawing: finished markup below.
        badge: draws the text as a badge of this kind: ok, failed, quiet.
        emphasis: whether it is the number that orders its row.
    """

    text: str = "—"
    value: float | int | str | None = None
    note: str = ""
    detail: str = ""
    link: Link | None = None
    drawing: Markup | None = None
    badge: str = ""
    emphasis: bool = False


EMPTY = Cell()


def failed_cell(record: str) -> Cell:
    """In place of a number that there is none of: a badge that leads to the record with the reason."""
    return Cell("failed", None, link=Link(f"records/{record}.html"), badge="failed")


def heading_cell(name: str, title: str, family: str, *, control: bool, linked: bool = True) -> Cell:
    """An attributor at the head of its row; a control says so in place of its family."""
    link = Link(f"attributors/{name}.html") if linked else None
    return Cell(title, title, note="" if control else family, link=link, badge="control" if control else "")


@dataclass(frozen=True)
class Row:
    """One row: its heading, the rest of its cells by column, and what it is filtered by."""

    name: str
    heading: Cell
    cells: Mapping[str, Cell]
    family: str = ""
    fixed: bool = False

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
    def families(self) -> list[str]:
        """What rows can be filtered by."""
        return sorted({row.family for row in self.rows if row.family and not row.fixed})

    @property
    def best(self) -> tuple[Row, Cell] | None:
        """The first row that is a method and has a number that it is ordered by, and that number."""
        found = ((row, cell) for row in self.rows if not row.fixed for cell in row.cells.values() if cell.emphasis)
        return next(found, None)


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

    return [row for _, row in sorted(map(marked, rows), key=lambda pair: pair[0])]
