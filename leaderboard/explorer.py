"""What the interactive figures draw: one script file per task, so that it loads from `file://` as well."""

import json
from typing import Any

from attriboard.leaderboard.axes import Axis, make_axis
from attriboard.leaderboard.curves import all_failed, marked, swept
from attriboard.leaderboard.study import MethodStudy, TaskStudy, configuration_key

VARIANTS = ("default", "selected", "oracle", "custom")


def explorer_script(study: TaskStudy) -> str:
    """A call of `receiveTask` with all curves and costs of one task."""
    methods = {method.title: _method(method) for method in study.methods.values() if method.attributions}
    data = {"task": study.name, "ceiling": study.ceiling, "methods": methods}
    return f"receiveTask({json.dumps(data, separators=(',', ':'), sort_keys=True)});\n"


def _method(method: MethodStudy) -> dict[str, Any]:
    names = swept(method)
    axes = {name: make_axis(name, (e.record.hyperparameters.get(name) for e in method.points)) for name in names}
    main = method.main
    default = main.record.hyperparameters if main else {}
    return {
        "control": method.control,
        "family": main.record.attributor.family if main else "",
        "axes": {name: _axis(axis) for name, axis in axes.items()},
        "home": [_index(axes[name], default.get(name)) for name in names],
        "failed": all_failed([(entry.record.lds, entry.record.reason) for entry in method.points]),
        "names": names,
        "points": [_point(method, entry, axes) for entry in method.points] if names else [],
        "costs": _costs(method),
    }


def _index(axis: Axis, value: Any) -> int | None:
    return axis.values.index(value) if value in axis.values else None


def _axis(axis: Axis) -> dict[str, Any]:
    values = ["none" if value is None else value for value in axis.values]
    return {"values": values, "at": axis.positions, "log": axis.log, "ticks": axis.ticks}


def _point(method: MethodStudy, entry: Any, axes: dict[str, Axis]) -> dict[str, Any]:
    record = entry.record
    point: dict[str, Any] = {
        "c": [axis.values.index(record.hyperparameters.get(name)) for name, axis in axes.items()],
        "id": entry.id,
    }
    if record.lds:
        point |= {"lds": record.lds.mean, "low": record.lds.ci95[0], "high": record.lds.ci95[1]}
    else:
        point["reason"] = record.reason
    key = configuration_key(record.hyperparameters)
    if key in method.surrogates:
        point["xi"] = method.surrogates[key]
    marks = [name for name, configuration in marked(method).items() if configuration_key(configuration) == key]
    return point | ({"marks": marks} if marks else {})


def _costs(method: MethodStudy) -> list[dict[str, Any]]:
    """What each variant took: the fit and score, and for a selected one the choice as well."""
    costs = []
    for variant in VARIANTS:
        entry = method.variants.get(variant)
        if entry is None or entry.record.lds is None or entry.record.score_seconds is None:
            continue
        record, lds = entry.record, entry.record.lds
        assert lds is not None
        seconds = (record.fit_seconds or 0.0) + (record.score_seconds or 0.0)
        if variant == "selected" and method.selection:
            seconds = max(seconds, method.selection.record.seconds + (record.score_seconds or 0.0))
        costs.append(
            {
                "variant": variant,
                "seconds": seconds,
                "bytes": record.peak_bytes,
                "threads": record.provenance.threads,
                "cpu": record.provenance.hardware.cpu,
                "lds": lds.mean,
                "low": lds.ci95[0],
                "high": lds.ci95[1],
                "id": entry.id,
            }
        )
    return costs
