"""Sensitivity curves: LDS along one hyperparameter, the others held where the default has them.

Where too little was run around the default they are held where the selected configuration has them, else the oracle's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attriboard.leaderboard.axes import Axis, make_axis
from attriboard.leaderboard.study import MethodStudy, Scalar, configuration_key
from attriboard.records.model import LdsResult

MIN_POINTS = 3
MARKS = ("default", "selected", "oracle")


@dataclass(frozen=True)
class Point:
    """One value of the hyperparameter: its LDS or the reason for none, and ξ̄ where it is known."""

    value: Scalar
    lds: LdsResult | None
    reason: str | None = None
    xi: float | None = None


@dataclass(frozen=True)
class Curve:
    """One attributor's LDS along one hyperparameter on one task.

    Attributes:
        task, attributor: whose.
        axis: the hyperparameter's.
        points: by position, failed ones included.
        marks: variant → point, of default, selected and oracle; in a sweep the default may lie beside the points.
        fixed: the other hyperparameters.
        ceiling: the task's.
    """

    task: str
    attributor: str
    axis: Axis
    points: Sequence[Point]
    marks: dict[str, Point]
    fixed: dict[str, Scalar]
    ceiling: float | None

    @property
    def failure(self) -> str:
        """What to say in place of a curve where every point failed; empty where one did not."""
        return all_failed([(point.lds, point.reason) for point in self.points])


def all_failed(points: Sequence[tuple[LdsResult | None, str | None]]) -> str:
    """In words that all configurations failed, with the commonest reason; empty where one did not, or there is none.

    Args:
        points: LDS, or the reason for none.
    """
    if not points or any(lds for lds, _ in points):
        return ""
    reason, _ = Counter(reason or "" for _, reason in points).most_common(1)[0]
    return f"All {len(points)} configurations failed: {reason}"


def marked(method: MethodStudy) -> dict[str, Mapping[str, Scalar]]:
    """Default, selected and oracle → configuration; those of a choice beside the defaults where these are unknown."""
    own: dict[str, Mapping[str, Scalar]] = {
        name: e.record.hyperparameters for name, e in method.variants.items() if name in MARKS
    }
    if own or method.elsewhere is None:
        return own
    report = method.elsewhere.record
    graded = {"default": report.default, "selected": report.selected, "oracle": report.oracle}
    return {name: configuration.hyperparameters for name, configuration in graded.items() if configuration}


def swept(method: MethodStudy) -> list[str]:
    """Hyperparameters with several values among the records, the most varied first."""
    values: dict[str, set[str]] = {}
    for entry in method.points:
        for name, value in entry.record.hyperparameters.items():
            values.setdefault(name, set()).add(repr(value))
    return sorted((n for n in values if len(values[n]) > 1), key=lambda n: (-len(values[n]), n))


def curves(task: str, method: MethodStudy, ceiling: float | None) -> list[Curve]:
    """A curve for every hyperparameter with at least three values, the longest first."""
    found = (_curve(task, method, name, ceiling) for name in swept(method))
    return sorted((c for c in found if len(c.points) >= MIN_POINTS), key=lambda c: (-len(c.points), c.axis.name))


def _curve(task: str, method: MethodStudy, name: str, ceiling: float | None) -> Curve:
    groups: Counter[str] = Counter(_others(entry.record.hyperparameters, name) for entry in method.points)
    configurations = marked(method)
    likely = [_others(configurations[mark], name) for mark in MARKS if mark in configurations]
    homes = [home for home in likely if groups[home] >= MIN_POINTS]
    home = homes[0] if homes else max(groups, key=lambda key: (groups[key], key))
    members = [entry for entry in method.points if _others(entry.record.hyperparameters, name) == home]
    axis = make_axis(name, (entry.record.hyperparameters.get(name) for entry in members))
    points = {
        entry.id: Point(
            entry.record.hyperparameters.get(name),
            entry.record.lds,
            entry.record.reason,
            method.surrogates.get(configuration_key(entry.record.hyperparameters)),
        )
        for entry in members
    }
    marks = {
        mark: points[entry.id]
        for mark in MARKS
        for entry in members
        if entry.record.hyperparameters == configurations.get(mark)
    }
    fixed = {key: value for key, value in members[0].record.hyperparameters.items() if key != name}
    ordered = sorted(points.values(), key=lambda point: axis.position(point.value))
    return Curve(task, method.name, axis, ordered, marks, fixed, ceiling)


def _others(hyperparameters: Mapping[str, Scalar], name: str) -> str:
    return configuration_key({key: value for key, value in hyperparameters.items() if key != name})
