"""Methods side by side over all tasks: what each gets, and paired differences between every two of them."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from attriboard.leaderboard.formats import chosen_regularization
from attriboard.leaderboard.lds_table import absence
from attriboard.leaderboard.study import MethodStudy, TaskStudy
from attriboard.scoring.differences import lds_difference

VARIANTS = ("headline", "default", "selected", "oracle")


def comparison(tasks: Mapping[str, TaskStudy], n_methods: int = 60) -> dict[str, Any]:
    """What the page of comparisons shows.

    Returns:
        `methods`: names; `titles`: of those that are shown as something else; `tasks`: name → `ceiling`, and for each
        variant `scores` (method → LDS, low, high, record, and λ in words), `missing` (method → why it has none) and
        `differences` ("a b" → a − b, low, high), a before b in the order of `methods`.
    """
    graded = {name: study for name, study in tasks.items() if study.ceiling is not None}
    level: dict[str, float] = {}
    titles: dict[str, str] = {}
    for study in graded.values():
        for method in study.run:
            if method.headline and method.headline.record.lds:
                titles[method.name] = method.title
                level[method.name] = level.get(method.name, 0.0) + method.headline.record.lds.mean
    names = sorted(level, key=lambda name: (-level[name], name))[:n_methods]
    return {
        "methods": names,
        "titles": {name: titles[name] for name in names if titles[name] != name},
        "tasks": {
            task: {"ceiling": study.ceiling} | {variant: _of(study, names, variant) for variant in VARIANTS}
            for task, study in graded.items()
        },
    }


def _entry(method: MethodStudy, variant: str) -> Any:
    return method.headline if variant == "headline" else method.variants.get(variant)


def _of(study: TaskStudy, names: list[str], variant: str) -> dict[str, Any]:
    found, missing = {}, {}
    for name in names:
        method = study.methods.get(name, MethodStudy(name))
        entry = _entry(method, variant)
        if entry is not None and entry.record.lds is not None:
            found[name] = entry
        else:
            missing[name] = absence(method, "default" if variant == "headline" else variant)
    scores = {
        name: {
            "lds": round(entry.record.lds.mean, 6),
            "low": round(entry.record.lds.ci95[0], 6),
            "high": round(entry.record.lds.ci95[1], 6),
            "id": entry.id,
            "chosen": chosen_regularization(entry.record.hyperparameters),
        }
        for name, entry in found.items()
    }
    differences = {}
    for a, b in combinations(found, 2):
        between = lds_difference(found[a].record.lds, found[b].record.lds)
        differences[f"{a} {b}"] = [round(value, 6) for value in (between.mean, *between.ci95)]
    return {"scores": scores, "missing": missing, "differences": differences}
