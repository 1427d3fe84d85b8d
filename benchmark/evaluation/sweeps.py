"""Sweeps: a grid over hyperparameters, one record per point, nothing computed twice."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attriboard.attribution.job import Described, Job, Selected
from attriboard.attribution.limits import Limits
from attriboard.attribution.runner import Attribution, Outcome, said
from attriboard.base.digests import canonical_json
from attriboard.base.errors import InputError
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import Grader, same_run
from attriboard.evaluation.workspace import Workspace
from attriboard.records.files import AnyRecord, write_record
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord

_MAX_POINTS = 100_000


def parse_grid(text: str) -> tuple[str, tuple[str, ...]]:
    """Read one `--grid`: `NAME=LO:HI:N` (linear), `NAME=LO:HI:Nlog` (logarithmic), `NAME=a,b,c`.

    Returns:
        The name, and the values as texts in the command line's form.

    Raises:
        InputError: none of these forms, or a range that has no points.
    """
    rule = "must be NAME=LO:HI:N, NAME=LO:HI:Nlog or NAME=a,b,c, as in regularization=1e-9:1e3:25log"
    name, equals, body = text.partition("=")
    if not (name and equals and body):
        raise InputError(f"--grid {text}: {rule}")
    if ":" not in body:
        values = tuple(value.strip() for value in body.split(","))
        if not all(values):
            raise InputError(f"--grid {text}: an empty value; {rule}")
        return name, tuple(dict.fromkeys(values))
    parts = body.split(":")
    logarithmic = parts[-1].endswith("log")
    try:
        low, high, count = float(parts[0]), float(parts[1]), int(parts[2].removesuffix("log"))
        if len(parts) != 3:
            raise ValueError
    except (ValueError, IndexError):
        raise InputError(f"--grid {text}: {rule}") from None
    if not (math.isfinite(low) and math.isfinite(high) and 2 <= count <= _MAX_POINTS and low < high):
        raise InputError(f"--grid {text}: needs LO < HI, finite, and 2 ≤ N ≤ {_MAX_POINTS}")
    if logarithmic and low <= 0:
        raise InputError(f"--grid {text}: a logarithmic range needs LO > 0")
    steps = [step / (count - 1) for step in range(count)]
    if logarithmic:
        exponents = [math.log10(low) + step * (math.log10(high) - math.log10(low)) for step in steps]
        return name, tuple(f"{10**exponent:.6g}" for exponent in exponents)
    return name, tuple(f"{low + step * (high - low):.12g}" for step in steps)


def check_names(grids: Sequence[tuple[str, Sequence[Any]]], fixed: Mapping[str, Any]) -> None:
    """Every hyperparameter has one grid or one value.

    Raises:
        InputError: a name given twice, or fixed and swept.
    """
    names = [name for name, _ in grids]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"--grid {name}: given {names.count(name)} times; put all its values into one")
        if name in fixed:
            raise InputError(f"--grid {name}: fixed by --hp {name}={fixed[name]} as well; leave one of them out")


def grid_configurations(grids: Sequence[tuple[str, Sequence[Any]]], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The cartesian product of grids over fixed values; the last grid varies fastest.

    Raises:
        InputError: a name given twice, or fixed and swept.
    """
    check_names(grids, fixed)
    names = [name for name, _ in grids]
    return [dict(fixed) | dict(zip(names, values, strict=True)) for values in itertools.product(*(v for _, v in grids))]


def sweep(
    task: Task,
    grader: Grader,
    attribution: Attribution,
    finished: Iterable[AnyRecord],
    *,
    configurations: Sequence[dict[str, HyperparameterValue]] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    listen: Callable[[Outcome], None] = lambda outcome: None,
) -> Iterator[AttributionRecord]:
    """Grade every configuration of a job that no finished record answers; yields all records, old ones first.

    Args:
        task: the task.
        grader: its ground truth.
        attribution: the job, opened; selectors in it add their criteria to the points, with the swept values of λ as
            candidates.
        finished: records made earlier. One answers a point where code, configuration, seed, checkpoints and ground
            truth are the same; but not where it failed for limits that are wider now.
        configurations: complete ones; by default the job's.
        progress: called with (points done, points).
        listen: given the outcome, with its scores, of every point that was computed now.
    """
    described, job = attribution.described, attribution.job
    asked = described.configurations if configurations is None else configurations
    points = [point for i, point in enumerate(asked) if point not in asked[:i]]
    answers = _answers(described, grader, job, finished, attribution.limits)
    done, missing = 0, []
    for point in points:
        record = answers.get(canonical_json(point))
        if record is None:
            missing.append(point)
        else:
            done += 1
            yield record
    progress(done, len(points))
    if not missing:
        return
    criteria: dict[int, dict[str, float]] = {}
    for event in attribution.run(missing, _swept_regularization(points)):
        if isinstance(event, Selected):
            _note_criteria(criteria, event, missing)
        elif event.index < len(missing):
            listen(event)
            yield grader.record(task, event, job, variant="sweep", criteria=criteria.get(event.index))
            done += 1
            progress(done, len(points))


@dataclass(frozen=True)
class Swept:
    """A finished sweep.

    Attributes:
        records: its points, in the grid's order.
        default: the configuration that it varies.
        names: of the hyperparameters that it varies, as the attributor calls them.
    """

    records: list[AttributionRecord]
    default: dict[str, HyperparameterValue]
    names: list[str]


def sweep_points(
    workspace: Workspace,
    attributor: str | Path,
    grids: Sequence[tuple[str, Sequence[str]]],
    fixed: Mapping[str, str],
    results: Path,
    *,
    title: str,
    listen: Callable[[Outcome], None] = lambda outcome: None,
) -> Swept:
    """Points of a grid, in its order: from the records in a folder, or computed now and recorded there.

    Args:
        workspace: the task.
        attributor: its name or file.
        grids: what is swept, see `parse_grid`.
        fixed: hyperparameters that are not swept.
        results: folder of records.
        title: of the progress bar.
        listen: see `sweep`.
    """
    configurations = [*grid_configurations(grids, fixed), dict(fixed)]
    job = workspace.job(attributor, configurations, selectors=(HEADLINE_SELECTOR,))
    finished = workspace.records(results)
    records = []
    with (
        workspace.display.progress(title) as progress,
        workspace.runner.open(job, said(progress)) as attribution,
    ):
        described = attribution.described
        *points, default = described.configurations
        names = [described.own_name(name) for name, _ in grids]
        for record in sweep(
            workspace.task,
            workspace.grader,
            attribution,
            finished,
            configurations=points,
            progress=progress,
            listen=listen,
        ):
            write_record(record, results)
            records.append(record)
    records.sort(key=lambda record: points.index(record.hyperparameters))  # as asked, not as they came
    return Swept(records, default, names)


def _answers(
    described: Described, grader: Grader, job: Job, finished: Iterable[AnyRecord], limits: Limits
) -> dict[str, AttributionRecord]:
    """Canonical configuration → the record that answers it; of several, one that was scored and has criteria."""
    truth, checkpoints = grader.truth.sha256, job.checkpoints_sha256
    usable = [
        record
        for record in finished
        if isinstance(record, AttributionRecord)
        and same_run(record, job, described.code_sha256)
        and (record.ground_truth.sha256, record.checkpoints_sha256) == (truth, checkpoints)
        and not _may_end_otherwise(record.reason, limits)
    ]
    usable.sort(key=lambda record: (record.status == "ok", len(record.criteria)))
    return {canonical_json(record.hyperparameters): record for record in usable}


def _may_end_otherwise(reason: str | None, limits: Limits) -> bool:
    """Whether a failure was that of a limit, and these are wider, by as much as a reason shows of a limit.

    What only declared that it needs more memory than there was, or more time, is asked again: that costs nothing.
    """
    if match := re.match(r"timeout: not finished after (\S+) s", reason or ""):
        return limits.seconds is None or float(f"{limits.seconds:g}") > float(match[1])
    if match := re.match(r"out_of_memory: .*, the limit is ([\d,]+) MiB", reason or ""):
        return limits.bytes is None or round(limits.bytes / 2**20) > int(match[1].replace(",", ""))
    return (reason or "").startswith(("out_of_memory: needs ", "timeout: needs "))


def _swept_regularization(configurations: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, ...]]:
    """The values of λ in a sweep, as selectors' candidates; without a λ there are none."""
    values = [c.get(REGULARIZATION) for c in configurations]
    found = tuple(float(value) for value in values if isinstance(value, (int, float)))
    return {REGULARIZATION: found} if found else {}


def _note_criteria(
    criteria: dict[int, dict[str, float]], event: Selected, configurations: Sequence[Mapping[str, Any]]
) -> None:
    """Attach what a selector looked at to the points of its fit that lie on its candidates."""
    found = dict(zip(event.candidates, event.criterion or (), strict=False))
    for index in event.configurations:
        value = configurations[index].get(REGULARIZATION)
        if isinstance(value, float) and value in found:
            criteria.setdefault(index, {})[event.selector] = found[value]
