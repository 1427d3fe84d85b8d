"""Synthetic records for the tests of the site and for its measurements."""

import json
import math
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from attriboard.records.cost import SelectionCostRecord
from attriboard.records.model import AttributionRecord, SelectionRecord
from attriboard.records.uses import BrittlenessRecord, MislabelRecord, QldRecord, RemovalRecord

GOLDEN = Path(__file__).parent / "golden" / "record-v1.json"
SMALL, REAL = (60, 40), (400, 200)  # scoring points, masks
LAMBDAS = [10.0**exponent for exponent in range(-6, 3)]


@cache
def _golden() -> str:
    return GOLDEN.read_text(encoding="utf-8")


def make_record(
    attributor: str = "iffim", level: float = 0.4, size: tuple[int, int] = SMALL, **changes: Any
) -> AttributionRecord:
    """A valid record of `attributor` with an LDS near `level`; points and masks vary alike in all.

    Args:
        attributor: its name.
        level: roughly the LDS.
        size: scoring points and masks.
        changes: other fields; `a__b` is field b of part a.
    """
    n_test, n_masks = size
    noise = random.Random(0)
    own = random.Random(attributor)
    shared = [0.15 * noise.gauss(0, 1) for _ in range(n_test)]
    per_test = [max(-1.0, min(1.0, level + s + 0.05 * own.gauss(0, 1))) for s in shared]
    mean = sum(per_test) / n_test
    data = json.loads(_golden())
    data["attributor"]["name"] = attributor
    data["ground_truth"]["n_masks"] = n_masks
    data["lds"] |= {
        "mean": mean,
        "ci95": [mean - 0.05, mean + 0.05],
        "pearson": mean - 0.01,
        "n_scoring": n_test,
        "per_test": per_test,
        "mask_influence": [0.1 * noise.gauss(0, 1) + 0.02 * own.gauss(0, 1) for _ in range(n_masks)],
    }
    _change(data, changes)
    if data["status"] == "failed":
        data |= {"lds": None, "scores_sha256": None}
    return AttributionRecord.model_validate(data)


def make_selection(
    attributor: str = "iffim", selector: str = "surrogate", size: tuple[int, int] = SMALL, **changes: Any
) -> SelectionRecord:
    """A valid report of one selector."""
    data = json.loads(_golden())
    kept = ("schema_version", "created", "task", "ground_truth", "attributor", "seed", "provenance")
    selected: dict[str, Any] = {"hyperparameters": {"regularization": 0.01}, "lds": 0.5}
    data = {key: data[key] for key in kept} | {
        "kind": "selection",
        "selector": selector,
        "hyperparameter": "regularization",
        "status": "ok",
        "reason": None,
        "transferred": False,
        "candidates": LAMBDAS,
        "criterion": [1 / (1 + math.exp(-math.log10(x) - 2)) for x in LAMBDAS],
        "objective": [abs(1 / (1 + math.exp(-math.log10(x) - 2)) - 0.5) for x in LAMBDAS],
        "note": "",
        "default": {"hyperparameters": {"regularization": 0.0}, "lds": 0.2},
        "selected": selected,
        "oracle": {"hyperparameters": {"regularization": 0.1}, "lds": 0.52},
        "regret": {"mean": 0.02, "ci95": [0.01, 0.03]},
        "gap_closed": 0.9375,
        "rank_correlation": 0.8,
        "seconds": 12.5,
        "n_retrains": 1000,
    }
    data["attributor"]["name"] = attributor
    data["ground_truth"]["n_masks"] = size[1]
    _change(data, changes)
    return SelectionRecord.model_validate(data)


def make_removal(attributor: str = "iffim", level: float = 0.9, **changes: Any) -> RemovalRecord:
    """A valid record of data selection with three seeds, whose accuracy falls from `level` by a tenth of the rate."""
    data = json.loads(_golden())
    kept = ("schema_version", "created", "task", "ground_truth", "attributor", "seed", "provenance", "hyperparameters",
            "fit_seconds", "score_seconds", "peak_bytes", "scores_sha256", "checkpoints_sha256")  # fmt: skip

    def measured(accuracy: float) -> dict[str, list[float]]:
        return {"correct": [accuracy - 0.01, accuracy, accuracy + 0.01], "loss": [0.3, 0.2, 0.4]}

    data = {key: data[key] for key in kept} | {
        "kind": "removal",
        "variant": "default",
        "selector": None,
        "status": "ok",
        "reason": None,
        "direction": "helpful",
        "balanced": False,
        "n_calibration": 100,
        "n_degenerate": 0,
        "n_scoring": 400,
        "retrain_seeds": [10**12, 10**12 + 1, 10**12 + 2],
        "retrain_seconds": 1.5,
        "full": measured(0.95),
        "points": [
            {"rate": rate, "n_removed": n, "measured": measured(level - rate / 10), "random": measured(0.94)}
            for rate, n in ((0.1, 130), (0.5, 648))
        ],
    }
    data["attributor"]["name"] = attributor
    _change(data, changes)
    if data["status"] == "failed":
        data |= {"full": None, "points": [], "scores_sha256": None}
    return RemovalRecord.model_validate(data)


def make_use(kind: str, attributor: str = "iffim", **changes: Any) -> BrittlenessRecord | QldRecord | MislabelRecord:
    """A valid record of brittleness, with two points that flip and one that does not, or of another use."""
    data = make_removal(attributor).to_json()
    removal = ("direction", "balanced", "n_calibration", "n_degenerate", "n_scoring", "retrain_seeds",
               "retrain_seconds", "full", "points")  # fmt: skip
    data = {key: value for key, value in data.items() if key not in removal} | {"kind": kind}
    if kind == "brittleness":
        found = [(7, 4, 2, 3, 2), (3, 11, 8, 2, 1), (40, None, 648, 0, 0)]
        keys = ("test_point", "n_removed", "not_enough", "flipped", "confirmed")
        data |= {
            "sizes": [1, 2, 4, 8, 11, 16, 648],
            "n_eligible": 380,
            "n_degenerate": 0,
            "search_seeds": [10**12, 10**12 + 1, 10**12 + 2],
            "confirm_seeds": [10**12 + 1000, 10**12 + 1001],
            "points": [dict(zip(keys, values, strict=True)) for values in found],
        }
    elif kind == "qld":
        data |= {
            "target": "margin",
            "fraction": 0.01,
            "n_removed": 13,
            "removed_by": "weight",
            "n_scoring": 400,
            "n_degenerate": 1,
            "retrain_seeds": [10**12 + s for s in range(5)],
            "n_repeats": 1,
            "n_random": 5,
            "retrain_seconds": 0.132,
            "test_points": [7, 3, 40],
            "removed": {"target": [2.5, 4.0, -1.0], "loss": [0.08, 0.02, 1.3]},
            "random": {"target": [5.5, 4.75, -1.25], "loss": [0.01, 0.01, 1.5]},
            "drop": 3.5 / 3,
            "ci95": [-3.0, 5.0],
        }
    else:
        data |= {
            "by": "self",
            "n_mislabelled": 130,
            "auc": 0.95,
            "ci95": [0.94, 0.96],
            "average_precision": 0.8,
            "inspected": [0.1, 0.2],
            "recall": [0.6, 0.9],
        }
    _change(data, changes)
    models = {"brittleness": BrittlenessRecord, "qld": QldRecord, "mislabel": MislabelRecord}
    return models[kind].model_validate(data)


def make_cost(attributor: str = "iffim", **changes: Any) -> SelectionCostRecord:
    """A valid record of what choosing λ costs."""
    data = json.loads(_golden())
    kept = (
        "schema_version",
        "created",
        "task",
        "ground_truth",
        "attributor",
        "seed",
        "provenance",
        "checkpoints_sha256",
    )
    points = [{"regularization": value, "checkpoints": 1} for value in (0.0, 0.01, 0.1)]
    rule = {
        "mean": [0.04, 0.0123, 0.004],
        "p10": [0.0, -0.001, -0.002],
        "p90": [0.09, 0.0456, 0.01],
        "worst": [0.3] * 3,
    }
    data = {key: data[key] for key in kept} | {
        "kind": "selection_cost",
        "swept": ["regularization"],
        "configurations": points,
        "lds": [0.2, 0.5, 0.45],
        "picks": {
            "default": {"hyperparameters": points[0], "regret": 0.3},
            "surrogate": {"hyperparameters": points[2], "regret": 0.05},
            "oracle": {"hyperparameters": points[1], "regret": 0.0},
            "gcv": {"hyperparameters": None, "regret": None, "note": "not_applicable: no kernel"},
        },
        "budgets": [2, 8, 16],
        "rules": {"best": rule | {"mean": [0.1, 0.0777, 0.02]}, "between": rule},
        "hidden": 0.002,
        "omega": {"value": 0.37, "ci95": [0.33, 0.42]},
        "n_draws": 200,
        "n_failed": 1,
        "retrain_seconds": 2.5,
    }
    data["attributor"]["name"] = attributor
    _change(data, changes)
    return SelectionCostRecord.model_validate(data)


def make_path(attributor: str, **changes: Any) -> list[AttributionRecord]:
    """Sweep points along λ with ξ̄, without vectors, the smallest of which failed."""
    records = []
    for i, value in enumerate(LAMBDAS):
        failed = {"status": "failed", "reason": "nan: 3 of 500 rows"} if i == 0 else {}
        thin = {} if failed else {"lds__per_test": None, "lds__mask_influence": None}
        settings = {"hyperparameters": {"regularization": value, "checkpoints": 1}}
        xi = {"criteria": {"surrogate": 1 / (1 + math.exp(-math.log10(value) - 2))}}
        level = 0.5 - 0.04 * (i - 5) ** 2
        records.append(make_record(attributor, level, variant="sweep", **settings, **xi, **thin, **failed, **changes))
    return records


def make_study(attributor: str, level: float, **changes: Any) -> list[AttributionRecord | SelectionRecord]:
    """Default, selected, oracle, their path, and the selector's report."""
    at = lambda value: {"hyperparameters": {"regularization": value, "checkpoints": 1}}  # noqa: E731
    return [
        make_record(attributor, level - 0.3, **at(0.0), **changes),
        make_record(attributor, level, variant="selected", selector="surrogate", **at(0.01), **changes),
        make_record(attributor, level + 0.02, variant="oracle", selector="oracle", **at(0.1), **changes),
        *make_path(attributor, **changes),
        make_selection(attributor, **changes),
    ]


def many_records(n: int, tasks: int = 3) -> Iterator[AttributionRecord | SelectionRecord]:
    """Exactly n different records: on the first task a thousand attributors, the rest as whole studies."""
    made = 0
    for i in range(min(1000, n // 3)):
        yield make_record(f"method_{i:04d}", 0.6 * random.Random(i).random(), size=REAL, task__name="task_0")
        made += 1
    i = 0
    while made < n:
        attributor, task = f"method_{i // tasks:04d}", f"task_{i % tasks}"
        for record in make_study(
            attributor, 0.35 + 0.3 * random.Random(i).random(), size=REAL, task__name=task, seed=1
        ):
            if made < n:
                yield record
                made += 1
        i += 1


def _change(data: dict[str, Any], changes: dict[str, Any]) -> None:
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = data
        for parent in parents:
            part = part[parent]
        part[last] = value
