"""The head of a method's row, the same on every leaderboard: name, family or badge, and its history."""

from collections.abc import Mapping

from attriboard.leaderboard.history import histories
from attriboard.leaderboard.study import MethodStudy, TaskStudy
from attriboard.leaderboard.tables import Cell, Link, Row


def method_row(study: TaskStudy, method: MethodStudy, cells: Mapping[str, Cell]) -> Row:
    """A row with its heading; a control says so in place of its family, and your own says so as well."""
    title = method.newest.record.title if method.newest else method.name  # the badge says whose it is
    page = f"attributors/{method.name}.html"
    heading = Cell(
        title,
        title,
        note="" if method.control else method.family,
        link=Link(page) if method.newest else None,
        more=Link(f"{page}#history-{study.name}", "history") if histories(study, method.name) else None,
        badge="yours" if method.mine else "control" if method.control else "",
    )
    return Row(
        method.name,
        heading,
        cells,
        family=method.family,
        fixed=method.control,
        mine=method.mine,
        parent=method.parent,
    )
