"""The static site: folders of records in, a folder of files out, no network and no torch.

Of the records of one task only those on its current ground truth are compared: the task version, fingerprint
and bundle of its newest record. Per attributor and variant the newest record counts.
"""

import importlib.metadata
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from attriboard.errors import FormatError
from attriboard.leaderboard.ranks import share_ranks
from attriboard.records import AttributionRecord, LdsResult, read_records

__all__ = ["BoardSummary", "build_board", "published_results"]

VARIANTS = ("default", "custom", "selected", "oracle")
CONTROLS = ("random", "input_similarity", "embedding_similarity", "sign_flipped")
TEMPLATES = Path(__file__).parent / "templates"
BAR_WIDTH = 120  # pixels of the interval drawings


@dataclass(frozen=True)
class BoardSummary:
    """What was built: the first page, its tasks, how many records it shows and how many are superseded."""

    index: Path
    tasks: tuple[str, ...]
    n_records: int
    n_superseded: int


@dataclass(frozen=True)
class _Row:
    """One attributor on one task: the newest record of each variant; none for a control that was not run."""

    name: str
    variants: dict[str, AttributionRecord]
    rank: int | None

    @property
    def control(self) -> bool:
        return self.name in CONTROLS

    @property
    def main(self) -> AttributionRecord | None:
        """The record that the row's time, memory and hyperparameters are taken from."""
        return next((self.variants[name] for name in VARIANTS if name in self.variants), None)

    def lds(self, variant: str) -> LdsResult | None:
        record = self.variants.get(variant)
        return record.lds if record else None


@dataclass(frozen=True)
class _TaskBoard:
    """Everything that one task's page shows."""

    newest: AttributionRecord
    rows: tuple[_Row, ...]
    ceiling: float | None
    n_superseded: int
    n_sweep: int

    @property
    def failures(self) -> list[AttributionRecord]:
        return [r for row in self.rows for r in row.variants.values() if r.status == "failed"]

    @property
    def leaders(self) -> list[_Row]:
        return [row for row in self.rows if row.rank == 1]

    @property
    def columns(self) -> list[str]:
        custom = ["custom"] if any("custom" in row.variants for row in self.rows) else []
        return [*custom, "selected", "oracle"]

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Ends of the one scale of all drawings: every default's interval, zero and the ceiling are on it."""
        results = [row.lds("default") for row in self.rows]
        ends = [end for result in results if result for end in result.ci95] + [0.0, self.ceiling or 0.0]
        return min(ends), max(ends)

    def bar(self, lds: LdsResult) -> dict[str, float]:
        """Positions in pixels of the interval, the mean, zero and the ceiling."""
        low, high = self._scale
        span = (high - low) or 1.0
        marks = {"low": lds.ci95[0], "mean": lds.mean, "high": lds.ci95[1], "zero": 0.0}
        if self.ceiling is not None:
            marks["ceiling"] = self.ceiling
        return {name: round(4 + (BAR_WIDTH - 8) * (x - low) / span, 2) for name, x in marks.items()}


def published_results() -> Path:
    """The records that come with this installation."""
    return Path(__file__).parent / "results"


def build_board(results_folders: Sequence[Path], out: Path) -> BoardSummary:
    """Build the site: `index.html`, one page per task, and `assets/`.

    The same records give the same bytes. Files in `out` of other names are left alone.

    Args:
        results_folders: folders of records; a record that lies in several counts once.
        out: the folder to write to, made where it is missing.

    Raises:
        FormatError: a results folder is missing, records do not validate, or the installed itables carries no
            DataTables bundle of the expected form.
    """
    records = {
        record.id: record
        for folder in results_folders
        for record in read_records(folder)
        if isinstance(record, AttributionRecord)
    }
    by_task: dict[str, list[AttributionRecord]] = defaultdict(list)
    for record in records.values():
        by_task[record.task.name].append(record)
    boards = {name: _task_board(by_task[name]) for name in sorted(by_task)}
    newest = max((board.newest.created for board in boards.values()), default=None)

    environment = _environment(newest)
    pages = {"index.html": environment.get_template("index.html").render(boards=boards)}
    for name, board in boards.items():
        pages[f"{name}.html"] = environment.get_template("task.html").render(name=name, board=board)
    for name in ("board.css", "board.js"):
        pages[f"assets/{name}"] = (TEMPLATES / name).read_text(encoding="utf-8")
    pages["assets/datatables.js"] = _datatables()
    for path, text in pages.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")
    n_superseded = sum(board.n_superseded for board in boards.values())
    return BoardSummary(out / "index.html", tuple(boards), len(records) - n_superseded, n_superseded)


def _environment(newest: str | None) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"lds": _signed, "seconds": _seconds, "megabytes": _megabytes, "setting": _setting}
    environment.globals |= {"newest": newest, "bar_width": BAR_WIDTH}
    return environment


def _task_board(records: list[AttributionRecord]) -> _TaskBoard:
    oldest_first = sorted(records, key=lambda record: (record.created, record.id))
    newest = oldest_first[-1]
    current = [record for record in oldest_first if _yardstick(record) == _yardstick(newest)]
    variants: dict[str, dict[str, AttributionRecord]] = defaultdict(dict)
    for record in current:
        if record.variant in VARIANTS:
            variants[record.attributor.name][record.variant] = record
    for control in CONTROLS:
        variants.setdefault(control, {})
    ceilings = [record.ceiling for record in current if record.ceiling is not None]
    return _TaskBoard(
        newest=newest,
        rows=tuple(_ranked(variants)),
        ceiling=ceilings[-1] if ceilings else None,
        n_superseded=len(records) - len(current),
        n_sweep=sum(record.variant == "sweep" for record in current),
    )


def _yardstick(record: AttributionRecord) -> tuple[int, str, str]:
    return record.task.version, record.task.fingerprint, record.ground_truth.sha256


def _ranked(variants: dict[str, dict[str, AttributionRecord]]) -> Iterable[_Row]:
    """Rows by rank and default LDS; then failures, then controls that were not run, by name."""
    scored = {name: r["default"].lds for name, r in variants.items() if "default" in r}
    results = {name: lds for name, lds in sorted(scored.items()) if lds is not None}
    ranks = dict(zip(results, share_ranks(list(results.values())), strict=True))
    order = sorted(
        variants, key=lambda n: (-results[n].mean if n in results else 2.0, not variants[n], n)
    )  # an LDS is at most 1, so that 2 comes after all
    return [_Row(name, variants[name], ranks.get(name)) for name in order]


def _datatables() -> str:
    """The DataTables bundle of the installed itables, as a classic script that sets `window.bundledTables`.

    Browsers refuse to load ES modules from `file://`; the bundle is one, with a single export statement.
    """
    path = Path(str(importlib.metadata.distribution("itables").locate_file("itables/html/dt_bundle.js")))
    try:
        module = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: itables without its offline bundle: {error}") from error
    exports = list(re.finditer(r"\bexport\s*\{([^{}]*)\};?", module))
    if len(exports) != 1:
        raise FormatError(f"{path}: has {len(exports)} export statements, not one: another itables")
    names = re.sub(r"([\w$]+) as ([\w$]+)", r"\2: \1", exports[0][1])
    start, end = exports[0].span()
    body = f"{module[:start]}window.bundledTables = {{{names}}};{module[end:]}"
    return f'(function () {{ "use strict";\n{body}\n}})();\n'


def _signed(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _setting(value: float | str | None) -> str:
    """A hyperparameter's value as one types it on the command line."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _seconds(value: float) -> str:
    if value < 0.005:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _megabytes(value: int) -> str:
    return f"{value / 1e6:,.0f}"
