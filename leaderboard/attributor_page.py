"""What an attributor's page shows: its scores, curves and failures on every task, and how to make them again."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from attriboard.leaderboard import formats
from attriboard.leaderboard.badges import badge_text
from attriboard.leaderboard.curves import Curve, curves
from attriboard.leaderboard.history import histories
from attriboard.leaderboard.methods import method as introduction
from attriboard.leaderboard.metrics import METRICS, Metric
from attriboard.leaderboard.plots.curves import curve_figure
from attriboard.leaderboard.questions import method_matrix
from attriboard.leaderboard.site import Site
from attriboard.leaderboard.study import MethodStudy, Scalar
from attriboard.leaderboard.tables import EMPTY, Row, Table

SCORES = ("default", "selected", "oracle", "custom")  # columns of its scores; none that is empty
MAX_FAILURES = 30  # records listed per task and reason


def attributor(site: Site, name: str, by_task: dict[str, MethodStudy]) -> dict[str, Any]:
    """Everything that its template needs."""
    family, paper = site.identity(name)
    one = next(iter(by_task.values()))
    found = {task: curves(task, method, site.tasks[task].ceiling) for task, method in by_task.items()}
    hyperparameters: dict[str, list[tuple[Curve, Markup]]] = {}
    for task_curves in found.values():
        for curve in task_curves:
            hyperparameters.setdefault(curve.axis.name, []).append((curve, curve_figure(curve)))
    scores = _scores(site, name)
    origin = next((m.newest.record.attributor.origin for m in by_task.values() if m.newest), "builtin")
    return {
        "name": name,
        "family": family,
        "paper": paper,
        "origin": origin,
        "intro": introduction(one.attributor, paper),
        "by_task": by_task,
        "scores": scores,
        "variants": [variant for variant in SCORES if any(row.cell(variant) != EMPTY for _, row in scores)],
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


def _scores(site: Site, name: str) -> list[tuple[str, Row]]:
    """What an attributor has on leaderboards by LDS, without drawings: task and row, those of its versions below."""
    found = []
    for task, method in site.attributors[name].items():
        rows = site.tables[task]["lds"].rows if method.attributions else []
        for row in rows:
            if row.method == name:
                cells = {key: replace(row.cell(key), drawing=None) for key in SCORES}
                found.append((task, replace(row, cells=cells)))
    return found


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
