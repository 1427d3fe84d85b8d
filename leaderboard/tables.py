"""Tables as data: columns, rows and cells, which one template draws and one script sorts, filters and exports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

__all__ = ["EMPTY", "Cell", "Column", "Link", "Row", "Table"]


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        key: its name in links and exports.
        title: its heading.
        hint: what it means, as the heading's tooltip.
        numeric: whether its cells hold numbers.
        best_first: "desc" where high values are good, "asc" where low ones are; how a first click sorts.
        shown: whether it is visible until somebody chooses columns.
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
        link: where the text leads.
        drawing: finished markup below.
        badge: draws the text as a badge of this kind: ok, failed, quiet.
        emphasis: whether it is the best of its column.
    """

    text: str = "—"
    value: float | int | str | None = None
    note: str = ""
    link: Link | None = None
    drawing: Markup | None = None
    badge: str = ""
    emphasis: bool = False


EMPTY = Cell()


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
    """

    id: str
    caption: str
    noun: str
    heading: Column
    columns: Sequence[Column]
    rows: Sequence[Row]
    bibliography: Mapping[str, str] = field(default_factory=dict)

    @property
    def families(self) -> list[str]:
        """What rows can be filtered by."""
        return sorted({row.family for row in self.rows if row.family and not row.fixed})
