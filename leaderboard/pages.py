"""Site → pages: for every page its path, its template and what that needs."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from attriboard.leaderboard import formats
from attriboard.leaderboard.badges import badge, badge_text
from attriboard.leaderboard.comparison import comparison
from attriboard.leaderboard.cost_average import NAMES, Average, average_table, cost_average
from attriboard.leaderboard.cost_table import cost_table
from attriboard.leaderboard.curves import Curve, curves
from attriboard.leaderboard.drawings import histogram, lowest
from attriboard.leaderboard.explorer import explorer_script
from attriboard.leaderboard.history import all_histories, histories
from attriboard.leaderboard.markdown import render_markdown
from attriboard.leaderboard.methods import method as introduction
from attriboard.leaderboard.methods import paper_link
from attriboard.leaderboard.metrics import METRICS, Metric, headline_result
from attriboard.leaderboard.plots.curves import curve_figure
from attriboard.leaderboard.plots.questions import questions_figure
from attriboard.leaderboard.plots.selection_cost import average_figure, cost_figure
from attriboard.leaderboard.questions import (
    DEFAULT,
    SELECTED,
    Plane,
    correlation_table,
    matrix_table,
    method_matrix,
    picks_table,
)
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.selector_table import selector_summary, selector_table
from attriboard.leaderboard.site import Site
from attriboard.leaderboard.study import HEADLINE_SELECTOR, MethodStudy, Scalar, TaskStudy, question_of
from attriboard.leaderboard.tables import Table
from attriboard.records.files import AnyRecord
from attriboard.records.model import AttributionRecord
from attriboard.scoring.ceiling import LEAST

TEMPLATES = Path(__file__).parent / "templates"
MAX_FAILURES = 30  # records listed on an attributor's page, per task and reason


Page = Callable[..., tuple[str, str]]
"""Renders a template with what it needs: path, template, context → path, text."""


def render_site(site: Site) -> Iterator[tuple[str, str]]:
    """Path and text of every page, badge and data file, one after the other."""
    environment = _environment(site)

    def page(path: str, template: str, **context: Any) -> tuple[str, str]:
        root = "../" * path.count("/")
        return path, environment.get_template(template).render(root=root, path=path, **context)

    yield from _overviews(site, page)
    for study in site.tasks.values():
        yield from _task_pages(site, study, page)
    for name, by_task in site.attributors.items():
        yield page(f"attributors/{name}.html", "attributor.html", **_attributor(site, name, by_task))
    for document in site.documents.values():
        html = render_markdown(document.text, site.documents, document.pictures)
        yield page(f"docs/{document.name}.html", "document.html", document=document, html=html)
    for entry in site.entries:
        yield page(f"records/{entry.id}.html", "record.html", **_record(site, entry))


def _overviews(site: Site, page: Page) -> Iterator[tuple[str, str]]:
    """Pages over all tasks."""
    studies = site.tasks.values()
    figures = [(study, figure) for study in studies if (figure := _cost_figure(study)) is not None]
    yield page("index.html", "index.html", figures=[(c, curve_figure(c)) for c in site.showcase])
    average = cost_average(studies)
    yield page(
        "selectors.html",
        "selectors.html",
        summary=selector_summary(studies),
        table=selector_table(studies),
        average=average and average_table(average),
        average_figure=average and _average_figure(average),
        costs=cost_table(studies),
        figures=figures,
    )
    yield page("questions.html", "questions.html", planes=[_plane(plane) for plane in site.planes], least=LEAST)
    yield page("explorer.html", "explorer.html")
    yield page("cost.html", "cost.html")
    yield page("compare.html", "compare.html")
    yield "data/comparison.js", f"window.comparison = {json_text(comparison(site.tasks))};\n"
    yield page("downloads.html", "downloads.html")
    yield page("attributors/index.html", "attributors.html", rows=_attributor_rows(site))
    yield page("404.html", "missing.html")


def _plane(plane: Plane) -> dict[str, Any]:
    """What the page of questions shows of one task."""
    return {
        "plane": plane,
        "figure": questions_figure(plane) if len(plane.compared(SELECTED)) > 1 else None,
        "matrices": [matrix_table(plane, variant) for variant in (SELECTED, DEFAULT)],
        "correlations": [t for variant in (SELECTED, DEFAULT) if (t := correlation_table(plane, variant)) is not None],
        "picks": picks_table(plane),
    }


def _task_pages(site: Site, study: TaskStudy, page: Page) -> Iterator[tuple[str, str]]:
    """A task's page, data, leaderboards and badges."""
    name = study.name
    yield page(f"tasks/{name}.html", "task.html", study=study, distributions=_distributions(study),
               costs=cost_table([study]), cost_figure=_cost_figure(study),
               smoothness=site.smoothness.get(study.card.fingerprint) if study.card else None)  # fmt: skip
    yield f"data/{name}.js", explorer_script(study)
    for metric in METRICS:
        if (table := site.tables[name].get(metric.key)) is not None:
            table = replace(table, bibliography=_bibliography(study))
            path = f"leaderboards/{name}-{metric.key}.html"
            yield page(path, "leaderboard.html", study=study, metric=metric, table=table)
    for method in study.run:
        if text := badge_text(name, method):
            yield f"badges/{name}-{method.name}.svg", badge(*text)


def _average_figure(average: Average) -> Markup:
    rules = {NAMES.get(rule, rule): means for rule, means in average.rules.items()}
    return average_figure(average.budgets, rules, average.picks.get(HEADLINE_SELECTOR), average.oracle)


def _cost_figure(study: TaskStudy) -> Markup | None:
    return cost_figure([entry.record for entry in study.costs]) if study.costs else None


def _record(site: Site, entry: Entry[AnyRecord]) -> dict[str, Any]:
    """What the page of a record shows."""
    record, drawing = entry.record, None
    study = site.tasks[record.task.name]
    study = study.questions.get(question_of(record), study)
    if isinstance(record, AttributionRecord) and record.lds and record.lds.per_test:
        drawing = histogram(record.lds.per_test, "LDS of each scoring point", record.ceiling)
    return {
        "entry": entry,
        "record": record,
        "drawing": drawing,
        "command": formats.reproducing_command(record),
        "original": formats.original_command(record),
        "citation": formats.citation(record, entry.id, site.url),
        "superseded": entry.id in site.superseded,
        "history": all_histories(study)[entry.id],
    }


def _environment(site: Site) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": lambda name: breakable(site.titles.get(str(name), str(name))),
        "chosen": formats.chosen_regularization,
        "count": formats.count,
        "fixed": formats.fixed,
        "inline_code": inline_code,
        "judged": formats.judged,
        "json_text": json_text,
        "mean_and_error": formats.mean_and_error,
        "paper_link": paper_link,
        "percent": formats.percent,
        "plain": formats.plain,
        "question": formats.question,
        "seconds": formats.seconds,
        "setting": formats.setting,
        "settings": formats.settings,
        "unbroken": formats.unbroken,
        "zip": zip,
        "size": formats.size,
    }
    environment.globals |= {"site": site, "metrics": METRICS}
    return environment


def breakable(name: str) -> Markup:
    """A name that may break after its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


def inline_code(text: str) -> Markup:
    """Prose in which `words` stand between backticks."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


def json_text(value: Any) -> Markup:
    """JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _distributions(study: TaskStudy) -> list[tuple[MethodStudy, Markup]]:
    """Per-test-point LDS of the three best methods, all on one axis."""
    scored = [
        (method, lds.mean, lds.per_test)
        for method in study.run
        if not method.control and (lds := headline_result(method)) and lds.per_test
    ]
    best = sorted(scored, key=lambda found: (-found[1], found[0].name))[:3]
    low = lowest([value for _, _, values in best for value in values] or [0.0])
    return [
        (method, histogram(values, f"LDS of {method.title} at each scoring point", study.ceiling, low))
        for method, _, values in best
    ]


def _bibliography(study: TaskStudy) -> dict[str, str]:
    found = {}
    for method in study.run:
        paper = method.newest.record.attributor.paper if method.newest else ""
        if bibtex := introduction(method.attributor, paper).bibtex:
            found[method.name] = bibtex
    return found


def _attributor_rows(site: Site) -> list[dict[str, Any]]:
    rows = []
    for name, by_task in site.attributors.items():
        family, paper = site.identity(name)
        one = next(iter(by_task.values()))
        rows.append(
            {
                "name": name,
                "title": introduction(one.attributor, paper).title,
                "family": family,
                "paper": paper,
                "control": one.control,
                "mine": one.mine,
                "parent": one.parent if one.parent in site.attributors else "",
                "tasks": len(by_task),
                "failures": sum(len(method.failures) for method in by_task.values()),
            }
        )
    return sorted(rows, key=lambda row: (row["control"], row["family"], row["parent"] or row["name"], row["name"]))


def _attributor(site: Site, name: str, by_task: dict[str, MethodStudy]) -> dict[str, Any]:
    family, paper = site.identity(name)
    one = next(iter(by_task.values()))
    found = {task: curves(task, method, site.tasks[task].ceiling) for task, method in by_task.items()}
    hyperparameters: dict[str, list[tuple[Curve, Markup]]] = {}
    for task_curves in found.values():
        for curve in task_curves:
            hyperparameters.setdefault(curve.axis.name, []).append((curve, curve_figure(curve)))
    origin = next((m.newest.record.attributor.origin for m in by_task.values() if m.newest), "builtin")
    return {
        "name": name,
        "family": family,
        "paper": paper,
        "origin": origin,
        "intro": introduction(one.attributor, paper),
        "by_task": by_task,
        "questions": [matrix for plane in site.planes if (matrix := method_matrix(plane, name)) is not None],
        "uses": _uses(site, name),
        "mine": one.mine,
        "parent": one.parent,
        "relatives": _relatives(site, one),
        "histories": {task: again for task in by_task if (again := histories(site.tasks[task], name))},
        "commands": _commands(origin, by_task),
        "failures": {task: _failures(method) for task, method in by_task.items() if method.failures},
        "figures": hyperparameters,
        "badges": {task: text for task, method in by_task.items() if (text := badge_text(task, method))},
    }


def _relatives(site: Site, method: MethodStudy) -> list[str]:
    """The row that a method is a version of; of one that is none, its versions."""
    if method.parent:
        return [method.parent] if method.parent in site.attributors else []
    return [name for name, by_task in site.attributors.items() if next(iter(by_task.values())).parent == method.name]


@dataclass(frozen=True)
class Failure:
    """One reason, and the records that failed for it: how each differs from the others, and its id."""

    reason: str
    shared: str
    records: Sequence[tuple[str, str]]
    n_more: int


def _failures(method: MethodStudy) -> list[Failure]:
    """What failed, by reason; each reason is listed once."""
    groups: dict[str, list[tuple[Mapping[str, Scalar], str]]] = {}
    for entry in method.failures:
        groups.setdefault(entry.record.reason or "", []).append((entry.record.hyperparameters, entry.id))
    found = []
    for reason, members in groups.items():
        first = members[0][0]
        shared = {k: v for k, v in first.items() if all(other.get(k, ...) == v for other, _ in members)}
        own = [({k: v for k, v in settings.items() if k not in shared}, identity) for settings, identity in members]
        records = [(formats.settings(what) if what else identity[:10], identity) for what, identity in own]
        found.append(
            Failure(reason, formats.settings(shared), records[:MAX_FAILURES], max(0, len(records) - MAX_FAILURES))
        )
    return found


def _uses(site: Site, name: str) -> list[tuple[Metric, list[str]]]:
    """Leaderboards beside those of LDS that an attributor is on: metric and tasks."""
    found = [
        (metric, [task for task, tables in site.tables.items() if _has_row(tables.get(metric.key), name)])
        for metric in METRICS[1:]
    ]
    return [(metric, tasks) for metric, tasks in found if tasks]


def _has_row(table: Table | None, name: str) -> bool:
    return table is not None and any(row.name == name for row in table.rows)


def _commands(origin: str, by_task: dict[str, MethodStudy]) -> list[str]:
    """What makes an attributor's records again, task by task."""
    commands = []
    for task, method in by_task.items():
        if origin == "scores":
            commands.append(f"attriboard score {task} SCORES.safetensors")
            continue
        kinds = ["run"] * bool(method.attributions) + ["select"] * bool(method.selections)
        kinds += sorted({entry.record.kind for entry in method.uses})
        named = f"./{method.attributor}.py" if origin == "file" else method.attributor
        some = "".join(f" --parameters {shlex.quote(pattern)}" for pattern in method.parameters)
        if method.costs:
            commands.append(f"attriboard report selection-cost {task} --method {named}{some}")
        commands += [
            f"attriboard {kind} {task} {named}{some}{' --selector all' * (kind == 'select')}" for kind in kinds
        ]
    return commands
