"""Mermaid flowcharts as inline SVG, so that the site shows the documents' diagrams without a script.

The part of the language that the documents use: boxes `id["text"]`, arrows `a --> b --> c` (with `|text|`), and
`subgraph` … `end` without nesting, whose boxes stand side by side. Code hosts draw the same source with Mermaid itself.
"""

import re
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

from markupsafe import Markup

_BOX = r"(?P<id>[A-Za-z_]\w*)(?:\[\"(?P<text>[^\"]*)\"\]|\[(?P<bare>[^\]\"]*)\])?"
_ARROW = re.compile(r"\s*-->(?:\|(?P<label>[^|]*)\|)?\s*")
_HEIGHT, _GAP, _RISE, _LETTER, _PAD = 34, 14, 38, 6.4, 12  # pixels


class UnknownDiagramError(ValueError):
    """A line that is not of the part of Mermaid that is drawn here."""


@dataclass
class _Group:
    """Boxes side by side: those of a subgraph, or a box of its own."""

    boxes: list[str] = field(default_factory=list)
    framed: bool = False


@dataclass
class _Chart:
    texts: dict[str, str] = field(default_factory=dict)
    groups: dict[str, _Group] = field(default_factory=dict)
    home: dict[str, str] = field(default_factory=dict)  # box → its group
    arrows: list[tuple[str, str, str]] = field(default_factory=list)  # from, to, label

    def place(self, name: str, text: str | None, group: str | None) -> None:
        """Note a box where it is named first."""
        if name in self.groups and text is None:
            return
        if name not in self.home:
            self.home[name] = group or name
            self.groups.setdefault(group or name, _Group()).boxes.append(name)
        if text is not None or name not in self.texts:
            self.texts[name] = text if text is not None else name

    def group_of(self, name: str) -> str:
        """The group that an end of an arrow belongs to."""
        return self.home.get(name, name)


def flowchart(source: str) -> Markup:
    """A Mermaid flowchart as an SVG element, rows from top to bottom in the direction of the arrows.

    Args:
        source: the text of a `mermaid` block.

    Raises:
        UnknownDiagramError: a line is none of boxes, arrows, subgraphs; or the arrows go in a circle.
    """
    chart = _parse(source)
    rows = _rows(chart)
    widths = {name: len(text) * _LETTER + 2 * _PAD for name, text in chart.texts.items()}
    spans = [
        sum(widths[box] for name in row for box in chart.groups[name].boxes)
        + _GAP * (sum(len(chart.groups[name].boxes) for name in row) - 1)
        for row in rows
    ]
    width = max(spans) + 4 * _GAP
    parts: list[str] = []
    edges: dict[str, tuple[float, float, float]] = {}  # box or group → middle, top, bottom
    for number, (row, span) in enumerate(zip(rows, spans, strict=True)):
        x, y = (width - span) / 2, _GAP + number * (_HEIGHT + _RISE)
        for name in row:
            left = x
            for box in chart.groups[name].boxes:
                parts.append(_box(x, y, widths[box], chart.texts[box]))
                edges[box] = (x + widths[box] / 2, y, y + _HEIGHT)
                x += widths[box] + _GAP
            if chart.groups[name].framed:
                parts.insert(0, _frame(left - 7, y - 7, x - _GAP - left + 14))
                edges[name] = ((left + x - _GAP) / 2, y - 7, y + _HEIGHT + 7)
    parts += [_arrow(edges[a], edges[b], label) for a, b, label in chart.arrows]
    height = len(rows) * (_HEIGHT + _RISE) - _RISE + 2 * _GAP
    described = "; ".join(f"{chart.texts.get(a, a)} leads to {chart.texts.get(b, b)}" for a, b, _ in chart.arrows)
    return Markup(
        f'<svg class="flow" role="img" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}">'
        f"<title>{Markup.escape(described)}</title>{''.join(parts)}</svg>"
    )


def _parse(source: str) -> _Chart:
    chart, group = _Chart(), None
    lines = [line.strip() for line in source.splitlines() if line.strip() and not line.strip().startswith("%%")]
    if not lines or not re.fullmatch(r"(flowchart|graph) (TB|TD|LR)", lines[0]):
        raise UnknownDiagramError(f"{lines[0] if lines else ''!r}: must begin with flowchart TB, TD or LR")
    for line in lines[1:]:
        if opened := re.fullmatch(r"subgraph (\w+)(?:\[.*\])?", line):
            group = opened[1]
            chart.groups[group] = _Group(framed=True)
        elif line == "end":
            group = None
        else:
            _statement(chart, line, group)
    return chart


def _statement(chart: _Chart, line: str, group: str | None) -> None:
    """A box, or a chain of boxes with arrows between them."""
    names, labels, rest = [], [], line
    while found := re.match(_BOX, rest):
        text = found["text"] if found["text"] is not None else found["bare"]
        chart.place(found["id"], text, group)
        names.append(found["id"])
        rest = rest[found.end() :]
        if not (arrow := _ARROW.match(rest)):
            break
        labels.append(arrow["label"] or "")
        rest = rest[arrow.end() :]
    if rest.strip() or len(labels) != len(names) - 1:
        raise UnknownDiagramError(f"{line!r}: neither boxes nor arrows")
    chart.arrows += [(a, b, label) for (a, b), label in zip(pairwise(names), labels, strict=True)]


def _rows(chart: _Chart) -> list[list[str]]:
    """Groups by the length of the longest way to them."""
    before: dict[str, set[str]] = {name: set() for name in chart.groups}
    for a, b, _ in chart.arrows:
        start, end = chart.group_of(a), chart.group_of(b)
        if start != end:
            before[end].add(start)
    depth: dict[str, int] = {}
    try:
        for name in TopologicalSorter(before).static_order():
            depth[name] = 1 + max((depth[one] for one in before[name]), default=-1)
    except CycleError as error:
        raise UnknownDiagramError("the arrows go in a circle") from error
    return [[name for name in chart.groups if depth[name] == row] for row in range(max(depth.values()) + 1)]


def _frame(x: float, y: float, width: float) -> str:
    return f'<rect class="frame" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT + 14}"/>'


def _box(x: float, y: float, width: float, text: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_HEIGHT}" rx="4"/>'
        f'<text x="{x + width / 2:.1f}" y="{y + _HEIGHT / 2 + 4:.1f}" text-anchor="middle">{Markup.escape(text)}</text>'
    )


def _arrow(start: tuple[float, float, float], end: tuple[float, float, float], label: str) -> str:
    x1, y1, x2, y2 = start[0], start[2] + 2, end[0], end[1] - 3
    line = (
        f'<path class="arrow" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'
        f'<path class="head" d="M{x2:.1f} {y2:.1f}l-4 -7h8z"/>'
    )
    if not label:
        return line
    return line + (
        f'<text class="label" x="{(x1 + x2) / 2 + 6:.1f}" y="{(y1 + y2) / 2 + 4:.1f}">{Markup.escape(label)}</text>'
    )
