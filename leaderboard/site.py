"""The site as a whole: studies, documents and what the overview says of them."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path

from attriboard.leaderboard.curves import Curve, curves
from attriboard.leaderboard.lds_table import headline_result, rank_methods
from attriboard.leaderboard.markdown import Picture, pictures, title_of
from attriboard.leaderboard.metrics import METRICS, Metric
from attriboard.leaderboard.questions import Plane, planes
from attriboard.leaderboard.reading import Bundle, Entry
from attriboard.leaderboard.study import MethodStudy, TaskStudy, facts, studies
from attriboard.leaderboard.tables import Cell, Placed, Row, Table, nested
from attriboard.records.files import AnyRecord
from attriboard.records.metasmoothness import Metasmoothness

MATRIX_ROWS = 20
HEADLINE_ORDER = ("iffim", "trak")
DOCUMENT = re.compile(r"[a-z0-9_-]+")
INDEX = "README.md"  # of the documents: what it links first comes first


@dataclass(frozen=True)
class Document:
    """One Markdown document that becomes a page, and the pictures that it shows, by name."""

    name: str
    title: str
    text: str
    pictures: Mapping[str, Picture]


@dataclass(frozen=True)
class TaskSummary:
    """A task on the overview: the leaders by LDS, and, where nothing has one, those of its first leaderboard."""

    study: TaskStudy
    leaders: Sequence[MethodStudy]
    metrics: Sequence[Metric]
    others: Sequence[tuple[Row, Cell]]


@dataclass(frozen=True)
class MatrixRow(Placed):
    """An attributor over all tasks: task → its study there; `best` names the tasks where it shares rank 1."""

    name: str
    control: bool
    methods: Mapping[str, MethodStudy]
    best: frozenset[str]


@dataclass(frozen=True)
class News:
    """What was measured on one day."""

    date: str
    task: str
    attributors: Sequence[str]


@dataclass(frozen=True, eq=False)
class Site:
    """Everything that pages are made of.

    Attributes:
        entries: all records, superseded ones included.
        bundles: the published bundles.
        documents: by name.
        url: where the site will stand, with a slash at its end; empty where that is unknown.
        smoothness: fingerprint of a task → its metasmoothness.
    """

    entries: Sequence[Entry[AnyRecord]]
    bundles: Sequence[Bundle]
    documents: Mapping[str, Document]
    url: str = ""
    smoothness: Mapping[str, Metasmoothness] = field(default_factory=dict)

    @cached_property
    def tasks(self) -> dict[str, TaskStudy]:
        """One study per task."""
        return studies(self.entries, self.bundles)

    @cached_property
    def planes(self) -> list[Plane]:
        """Tasks with ground truths of several questions."""
        return planes(self.tasks.values())

    @cached_property
    def ids(self) -> frozenset[str]:
        """Ids of all records."""
        return frozenset(entry.id for entry in self.entries)

    @cached_property
    def newest(self) -> str | None:
        """When the last record was made."""
        return max((entry.record.created for entry in self.entries), default=None)

    @cached_property
    def superseded(self) -> frozenset[str]:
        """Ids of records on other versions or ground truths."""
        return frozenset(entry.id for study in self.tasks.values() for entry in study.all_superseded)

    @cached_property
    def attributors(self) -> dict[str, dict[str, MethodStudy]]:
        """Attributor → task → its study there, for attributors with current records."""
        table: dict[str, dict[str, MethodStudy]] = defaultdict(dict)
        for task, study in self.tasks.items():
            for method in study.run:
                table[method.name][task] = method
        return {name: table[name] for name in sorted(table)}

    @cached_property
    def titles(self) -> dict[str, str]:
        """Name of a row → how it is shown."""
        return {name: method.title for name, by_task in self.attributors.items() for method in by_task.values()}

    @cached_property
    def tables(self) -> dict[str, dict[str, Table]]:
        """Task → metric's key → leaderboard, for the metrics that the task has records of."""
        every = {name: {metric.key: metric.table(study) for metric in METRICS} for name, study in self.tasks.items()}
        return {name: {key: t for key, t in tables.items() if t is not None} for name, tables in every.items()}

    @cached_property
    def standings(self) -> dict[str, tuple[int, int]]:
        """Id of a record that ranks → its rank by LDS, and how many rank on its task."""
        found = {}
        for tables in self.tables.values():
            ranked = [row for row in tables["lds"].rows if row.cell("rank").value] if "lds" in tables else []
            for row in ranked:
                found[str(row.cell("record").value)] = (int(row.cell("rank").value or 0), len(ranked))
        return found

    @cached_property
    def summaries(self) -> list[TaskSummary]:
        """Tasks for the overview."""
        return [self._summary(study) for study in self.tasks.values()]

    def _summary(self, study: TaskStudy) -> TaskSummary:
        ranks = rank_methods(study.methods.values(), headline_result)
        leaders = [study.methods[name] for name, rank in ranks.items() if rank == 1]
        leaders.sort(key=lambda m: -(result.mean if (result := headline_result(m)) else -2.0))
        tables = self.tables[study.name]
        metrics = [metric for metric in METRICS if metric.key in tables]
        return TaskSummary(study, leaders, metrics, tables[metrics[0].key].leaders if metrics else [])

    @cached_property
    def graded(self) -> list[str]:
        """Tasks on which something has an LDS."""
        return [summary.study.name for summary in self.summaries if summary.leaders]

    @cached_property
    def matrix(self) -> list[MatrixRow]:
        """The best attributors over all tasks, controls last."""
        best: dict[str, set[str]] = defaultdict(set)
        for summary in self.summaries:
            for leader in summary.leaders:
                best[leader.name].add(summary.study.name)

        def level(name: str) -> float:
            found = [headline_result(method) for method in self.attributors[name].values()]
            return sum(result.mean for result in found if result) / max(len(self.graded), 1)

        one = {name: next(iter(by_task.values())) for name, by_task in self.attributors.items()}
        ordered = sorted(one, key=lambda name: (one[name].control, -level(name), name))
        scored = [name for name in ordered if any(headline_result(m) for m in self.attributors[name].values())]
        methods = [name for name in scored if not one[name].control]
        shown = {*[name for name in methods if not one[name].mine][:MATRIX_ROWS], *(n for n in scored if one[n].mine)}
        shown |= {name for name in scored if one[name].control}
        rows = [
            MatrixRow(
                name,
                one[name].control,
                self.attributors[name],
                frozenset(best[name]),
                mine=one[name].mine,
                parent=one[name].parent,
            )
            for name in scored
            if name in shown
        ]
        return nested(rows)

    @cached_property
    def showcase(self) -> list[Curve]:
        """LDS against λ for the headline attributors, on the task with most of them and then where λ matters most."""
        found: list[tuple[int, float, list[Curve]]] = []
        for study in self.tasks.values():
            methods = [study.methods[name] for name in HEADLINE_ORDER if name in study.methods]
            every = [curve for method in methods for curve in _along(study, method)]
            found.append((len(every), sum(map(_gain, methods)), every))
        return max(found, key=lambda task: task[:2], default=(0, 0.0, []))[2]

    @cached_property
    def news(self) -> list[News]:
        """The last days on which something was measured."""
        current = (e for e in self.entries if e.id not in self.superseded)
        days = sorted({(e.record.created[:10], e.record.task.name, e.title) for e in current})
        groups = [
            News(date, task, [name for _, _, name in group]) for (date, task), group in groupby(days, lambda d: d[:2])
        ]
        return groups[::-1][:6]

    def identity(self, attributor: str) -> tuple[str, str]:
        """Family and paper."""
        return facts(self.attributors[attributor].values())


def _along(study: TaskStudy, method: MethodStudy) -> list[Curve]:
    """The curve over λ, where there is one."""
    every = curves(study.name, method, study.ceiling)
    return [curve for curve in every if curve.axis.name == "regularization"][:1]


def _gain(method: MethodStudy) -> float:
    """LDS of the oracle above the default's: what there is to choose."""
    best, default = method.lds("oracle"), method.lds("default")
    return best.mean - default.mean if best and default else 0.0


def read_documents(folder: Path | None) -> dict[str, Document]:
    """The documents of a folder in the order in which they are offered, its folders' pages, and the architecture."""
    if folder is None:
        return {}
    index = folder / INDEX
    named = re.findall(r"\]\((?:[\w-]+/)*([\w-]+)\.md", index.read_text(encoding="utf-8")) if index.is_file() else []
    order = {name: place for place, name in reversed([*enumerate(["README", *named])])}
    own = sorted(folder.glob("*.md"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    below = [*sorted(folder.glob("tasks/*.md")), *sorted(folder.glob("findings/*.md"))]
    found = {path.stem.lower(): path for path in (*own, *below, *folder.parent.glob("ARCHITECTURE.md"))}
    texts = {name: path.read_text(encoding="utf-8") for name, path in found.items() if DOCUMENT.fullmatch(name)}
    return {name: Document(name, title_of(t), t, pictures(t, found[name].parent)) for name, t in texts.items()}
