"""What `attriboard report questions` prints: the matrix, how alike the questions rank, and what one λ gives away."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attriboard.cli.shell import emit, show_table

if TYPE_CHECKING:
    from attriboard.leaderboard.questions import Plane
    from attriboard.leaderboard.tables import Cell, Table


def show_plane(plane: "Plane", figure: Path | None, *, json: bool) -> None:
    """Print a task's ground truths with what methods get on them, or emit them."""
    from attriboard.leaderboard.questions import DEFAULT, SELECTED, correlation_table, matrix_table, picks_table

    tables = {
        "selected": matrix_table(plane, SELECTED),
        "default": matrix_table(plane, DEFAULT),
        "agreement": correlation_table(plane, SELECTED),
        "agreement of defaults": correlation_table(plane, DEFAULT),
        "regularization": picks_table(plane),
    }
    if json:
        truths = [
            {"question": t.name, "title": t.question.title, "ceiling": t.ceiling, "ranks": t.ranks}
            for t in plane.truths
        ]
        rows = {name: _document(table) for name, table in tables.items() if table}
        where = None if figure is None else str(figure)
        emit({"task": plane.task.name, "questions": truths, "figure": where} | rows)
        return
    for table in tables.values():
        if table is not None:
            headings = (table.heading.title, *(column.title for column in table.columns))
            cells = [
                (row.heading.text, *(_text(row.cell(column.key)) for column in table.columns)) for row in table.rows
            ]
            show_table(table.caption, headings, cells, numeric=range(1, len(headings)))
    for truth in plane.truths:
        if not truth.ranks:
            print(f"{truth.question.title}: the noise ceiling is {truth.ceiling:.3f}; it ranks no method")
    if figure:
        print(f"figure {figure}")


def _text(cell: "Cell") -> str:
    return " ".join(part for part in (cell.text, f"({cell.note})" if cell.note else "") if part)


def _document(table: "Table") -> dict[str, Any]:
    return {
        row.name: {
            column.key: {"value": cell.value, "note": cell.note, "detail": cell.detail}
            for column in table.columns
            if (cell := row.cell(column.key)).value is not None
        }
        for row in table.rows
    }
