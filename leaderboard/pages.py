"""Site → pages: for every page its path, its template and what that needs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from attriboard.leaderboard import formats
from attriboard.leaderboard.attributor_page import attributor
from attriboard.leaderboard.badges import badge, badge_text
from attriboard.leaderboard.citations import citation
from attriboard.leaderboard.comparison import comparison
from attriboard.leaderboard.cost_average import Average, average_table, cost_average
from attriboard.leaderboard.cost_table import DEFINITIONS, cost_table
from attriboard.leaderboard.drawings import histogram, lowest
from attriboard.leaderboard.explorer import explorer_script
from attriboard.leaderboard.history import all_histories
from attriboard.leaderboard.lds_table import headline_result
from attriboard.leaderboard.markdown import render_markdown
from attriboard.leaderboard.methods import catalogue, paper_link
from attriboard.leaderboard.methods import method as introduction
from attriboard.leaderboard.metrics import METRICS
from attriboard.leaderboard.plots.curves import curve_figure
from attriboard.leaderboard.plots.questions import questions_figure
from attriboard.leaderboard.plots.selection_cost import average_figure, cost_figure
from attriboard.leaderboard.questions import (
    DEFAULT,
    SELECTED,
    Plane,
    correlation_table,
    matrix_table,
    picks_table,
)
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.selector_table import selector_summary, selector_table
from attriboard.leaderboard.shortfalls import FAR, shortfalls
from attriboard.leaderboard.site import Site
from attriboard.leaderboard.study import CONTROLS, MethodStudy, TaskStudy, question_of
from attriboard.leaderboard.tables import Table
from attriboard.records.cost import RULES, SelectionCostRecord
from attriboard.records.files import AnyRecord
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord, SelectionRecord
from attriboard.scoring.ceiling import LEAST

TEMPLATES = Path(__file__).parent / "templates"
OFFERED = [name for name in catalogue() if name not in CONTROLS and ":" not in name]
"""Built-in methods; those of other libraries have a colon."""


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
        yield page(f"attributors/{name}.html", "attributor.html", **attributor(site, name, by_task))
    for document in site.documents.values():
        html = render_markdown(document.text, site.documents, document.pictures)
        yield page(f"docs/{document.name}.html", "document.html", document=document, html=html)
    for entry in site.entries:
        yield page(f"records/{entry.id}.html", "record.html", **_record(site, entry))


def _overviews(site: Site, page: Page) -> Iterator[tuple[str, str]]:
    """Pages over all tasks."""
    studies = site.tasks.values()
    figures = [(study, figure) for study in studies if (figure := _cost_figure(study)) is not None]
    drawn = [(curve, curve_figure(curve)) for curve in site.showcase]
    yield page("index.html", "index.html", figures=drawn, short=shortfalls(studies), far=FAR)
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
            table = replace(table, bibliography=_bibliography(study, table))
            path = f"leaderboards/{name}-{metric.key}.html"
            absent = [method for method in OFFERED if method not in {row.method for row in table.rows}]
            context = {"study": study, "metric": metric, "table": table, "absent": absent, "n_offered": len(OFFERED)}
            yield page(path, "leaderboard.html", **context)
    for method in study.run:
        if text := badge_text(name, method):
            yield f"badges/{name}-{method.name}.svg", badge(*text)


def _average_figure(average: Average) -> Markup:
    rules = {RULES.get(rule, rule): means for rule, means in average.rules.items()}
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
        "citation": citation(record, entry.id, site.url),
        "boards": _boards(site, entry),
        "rule_names": RULES,
        "definitions": DEFINITIONS,
        "superseded": entry.id in site.superseded,
        "history": all_histories(study)[entry.id],
    }


def _boards(site: Site, entry: Entry[AnyRecord]) -> list[tuple[str, str]]:
    """Pages on which a record's number stands: path and label."""
    record = entry.record
    if entry.id in site.superseded or question_of(record):
        return []
    kind = "attribution" if isinstance(record, SelectionRecord) else record.kind
    metrics = [metric for metric in METRICS if metric.kind == kind and metric.key in site.tables[record.task.name]]
    found = [(f"leaderboards/{record.task.name}-{m.key}.html", f"{record.task.name}, {m.title}") for m in metrics]
    return found + [("selectors.html", "Selectors")] * isinstance(record, SelectionRecord | SelectionCostRecord)


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
        "counted": formats.counted,
        "fixed": formats.fixed,
        "gap": formats.gap,
        "inline_code": inline_code,
        "judged": formats.judged,
        "json_text": json_text,
        "mean_and_error": formats.mean_and_error,
        "paper_link": paper_link,
        "percent": formats.percent,
        "plain": formats.plain,
        "process_time": formats.process_time,
        "question": formats.question,
        "seconds": formats.seconds,
        "setting": formats.setting,
        "settings": formats.settings,
        "variant": formats.variant,
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


def _bibliography(study: TaskStudy, table: Table) -> dict[str, str]:
    found = {}
    for row in table.rows:
        newest = study.methods[name].newest if (name := row.method) in study.methods else None
        if newest and (bibtex := introduction(newest.record.attributor.name, newest.record.attributor.paper).bibtex):
            found[row.name] = bibtex
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
