"""Committed records made again: whole units that supersede what moved, and single configurations that are compared."""

import os
import random
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attriboard.attribution.limits import NO_LIMITS, Limits
from attriboard.evaluation.catalog import load_oracle
from attriboard.evaluation.grader import evaluate
from attriboard.evaluation.rerun import check_task, check_truth, grader_of, method_of, rerun
from attriboard.evaluation.selection import study_selection
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.records.files import AnyRecord, read_named
from attriboard.records.model import AttributionRecord, SelectionRecord, Variant
from attriboard.records.verifications import verify_record
from attriboard.retraining.executors import usable_cores
from bench.code_digest import History
from bench.records_units import (
    SCORES,
    Unit,
    asked,
    lambdas,
    made_with_todays_code,
    paths_of_scores,
    time_limit,
    units,
)

TOLERANCE = 0.005
TOLERANCES = {
    "random": 1e-9,
    "bm25": 1e-9,
    "input_similarity": 1e-4,
    "embedding_similarity": 1e-4,
    "activation_similarity": 1e-4,
    "grad_dot": 1e-4,
    "grad_cos": 1e-4,
    "tracin": 1e-4,
    "iffim": 1e-3,
}
"""What LDS may differ by between machines, by method; `TOLERANCE` for all others.

Machines add in another order. That moves ranks of scores that nearly tie, and where a matrix is nearly singular, or an
iteration has not converged, more than ranks.
"""


def tolerance(method: str) -> float:
    """The largest difference in LDS that counts as none."""
    return TOLERANCES.get(method, TOLERANCE)


def make(unit: Unit, threads: int) -> list[AnyRecord]:
    """Make a unit's records again; they are returned and not written.

    Where other work wants the cores too, the records have no times of fits and scorings.

    Args:
        unit: of scores, or of a use.
        threads: of the attributor, the same for all, so that times can be compared.

    Raises:
        InputError: the method or task is not here.
    """
    first = unit.records[0]
    workspace = _workspace(first, threads, unit.records)
    method = method_of(first, None)
    quiet = load() + threads <= usable_cores() + 0.5
    made = _made(unit, workspace, method)
    return made if quiet else [untimed(record) for record in made]


def load() -> float:
    """Processes that wanted a core, on average over the last minute."""
    return os.getloadavg()[0]


def untimed(record: AnyRecord) -> AnyRecord:
    """A record without the times of a fit and of scoring: on a busy machine they measure the others' work."""
    names = {"fit_seconds", "score_seconds"} & set(type(record).model_fields)
    return record.model_copy(update=dict.fromkeys(names))


def _made(unit: Unit, workspace: Workspace, method: str) -> list[AnyRecord]:
    if unit.kind != SCORES:
        store = open_store(workspace.task, None)
        with tempfile.TemporaryDirectory() as folder:
            for record in unit.records:
                rerun(record, workspace, method, Path(folder), store)
            return [record for _, record in read_named([Path(folder)])]
    made: list[AnyRecord] = []
    for chosen, points in paths_of_scores(unit):
        made += _path(workspace, method, chosen) if chosen else _points(workspace, method, points)
    return made


def _workspace(record: AnyRecord, threads: int, records: Sequence[AnyRecord]) -> Workspace:
    """What once took longer than a limit has that limit again."""
    seconds = [limit for record in records if (limit := time_limit(record))]
    limits = Limits(max(seconds)) if seconds else NO_LIMITS
    return Workspace(record.task.name, limits=limits, seed=record.seed, parameters=record.parameters, threads=threads)


def _path(workspace: Workspace, method: str, chosen: Sequence[SelectionRecord]) -> list[AnyRecord]:
    job = workspace.job(method, selectors=[record.selector for record in chosen])
    start = dict(chosen[0].default.hyperparameters)
    if workspace.runner.describe(job).configurations[0] != start:
        job = job.model_copy(update={"configurations": (start,)})
    candidates = lambdas(chosen[0]) or None
    study = study_selection(
        workspace.task,
        grader_of(chosen[0], workspace),
        job,
        load_oracle(),
        candidates=candidates,
        runner=workspace.runner,
    )
    return study.all_records


def _points(workspace: Workspace, method: str, points: Sequence[AttributionRecord]) -> list[AnyRecord]:
    job = workspace.job(method, [dict(point.hyperparameters) for point in points])
    # What a selector or the oracle chose is a configuration like others where nothing chooses again.
    variants: list[Variant] = ["custom" if p.variant in ("selected", "oracle") else p.variant for p in points]
    return list(evaluate(workspace.task, grader_of(points[0], workspace), job, variants, workspace.runner))


@dataclass(frozen=True)
class Outcome:
    """What came of making a unit again.

    Attributes:
        moved: what came out otherwise, in words; nothing where the records hold.
        news: the records that answer what moved, or what nothing answered before.
        scores_moved: whether scores are among what moved, and not only what some selector chose.
    """

    moved: tuple[str, ...]
    news: tuple[AnyRecord, ...]
    scores_moved: bool


def outcome(unit: Unit, made: Sequence[AnyRecord]) -> Outcome:
    """Compare what was made with a unit's records.

    A use is made again only where its scores moved or its code is not known, and always superseded.
    """
    if unit.kind != SCORES:
        return Outcome(("made again",), tuple(made), True)
    allowed = tolerance(unit.records[0].attributor.name)
    again = {asked(record): record for record in made}
    held, moved, scores_moved = set(), [], False
    for record in unit.records:
        question = asked(record)
        found = list(_differences(record, again.get(question) or _same_configuration(record, made), allowed))
        moved += [f"{record.id}, {_named(record)}: {what}" for what in found]
        scores_moved |= bool(found) and isinstance(record, AttributionRecord)
        if not found:
            held.add(question)
    news = [record for question, record in again.items() if question not in held] if moved else []
    return Outcome(tuple(moved), tuple(news), scores_moved)


def _same_configuration(record: AnyRecord, made: Sequence[AnyRecord]) -> AttributionRecord | None:
    if not isinstance(record, AttributionRecord):
        return None
    attributions = (other for other in made if isinstance(other, AttributionRecord))
    return next((other for other in attributions if other.hyperparameters == record.hyperparameters), None)


def _named(record: AnyRecord) -> str:
    if isinstance(record, SelectionRecord):
        return f"selector {record.selector}"
    return str(getattr(record, "variant", record.kind))


def _differences(record: AnyRecord, again: AnyRecord | None, allowed: float) -> Iterator[str]:
    if again is None:
        # A point that a selector added to a path, and does not add today, is a point of a sweep like any other.
        if getattr(record, "variant", "") != "sweep":
            yield "no longer comes out"
        return
    for name, old, new in zip(_WHAT, _numbers(record), _numbers(again), strict=True):
        if (old is None) != (new is None) or (old is not None and new is not None and abs(old - new) > allowed):
            yield f"{name} {_shown(old)} → {_shown(new)}"


_WHAT = ("LDS", "LDS of the default", "LDS of the selected", "LDS of the oracle")


def _numbers(record: AnyRecord) -> tuple[float | None, ...]:
    """In the order of `_WHAT`; none for what failed or does not apply."""
    if isinstance(record, SelectionRecord):
        parts = (record.default, record.selected, record.oracle)
        return (None, *(part.lds if part else None for part in parts))
    lds = record.lds if isinstance(record, AttributionRecord) else None
    return (lds.mean if lds else None, None, None, None)


def _shown(lds: float | None) -> str:
    return "failed" if lds is None else f"{lds:.4f}"


@dataclass(frozen=True)
class Checked:
    """A record whose configuration was run again.

    Attributes:
        record: it.
        problem: what disagrees; none where it repeats.
        remark: how well it repeats.
    """

    record: AttributionRecord
    problem: str | None
    remark: str


def sample(records: Sequence[AnyRecord], size: int, seed: str, max_seconds: float) -> list[AttributionRecord]:
    """A random sample of records that are cheap to make again, from as many methods and tasks as there can be.

    Args:
        records: current ones.
        size: how many.
        seed: the same seed draws the same records of the same tree.
        max_seconds: what took longer is left out, and what ran into a time limit.
    """
    groups: dict[tuple[str, str], list[AttributionRecord]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.id):
        if not isinstance(record, AttributionRecord) or time_limit(record):
            continue
        if (record.fit_seconds or 0.0) + (record.score_seconds or 0.0) <= max_seconds:
            groups[record.task.name, record.row].append(record)
    dice = random.Random(seed)
    shuffled = [dice.sample(groups[key], len(groups[key])) for key in sorted(groups)]
    dice.shuffle(shuffled)
    ranked = sorted((turn, at) for at, group in enumerate(shuffled) for turn in range(len(group)))
    return [shuffled[at][turn] for turn, at in ranked[:size]]


def check(records: Sequence[AttributionRecord], history: History) -> Iterator[Checked]:
    """Run records again with their seed and threads, and compare.

    Args:
        records: what to run.
        history: the code of the past.
    """
    for record in records:
        workspace = _workspace(record, record.provenance.threads, [record])
        check_task(record, workspace)
        check_truth(record, workspace)
        job = workspace.job(method_of(record, None), [dict(record.hyperparameters)])
        (again,) = evaluate(workspace.task, grader_of(record, workspace), job, ["custom"], workspace.runner)
        (unit,) = units([record], {})
        yield compared(record, again, made_with_todays_code(unit, history))


def compared(record: AttributionRecord, again: AttributionRecord, same_code: bool) -> Checked:
    """Judge a re-run: LDS within the method's tolerance; the same bits on the same CPU, with PyTorch, threads and code.

    Args:
        record: what is published.
        again: its configuration, run now.
        same_code: whether the code that scores and grades come from is known to be the same.
    """
    allowed = tolerance(record.attributor.name)
    verdict = verify_record(record, again, "check", allowed)
    if verdict.status == "failed":
        return Checked(record, f"{verdict.reason} (tolerance {allowed:g})", "")
    if record.lds is None or again.lds is None:
        return Checked(record, None, f"fails as before: {again.reason}")
    if verdict.same_scores:
        return Checked(record, None, "the same bits")
    change = f"LDS moved by {abs(record.lds.mean - again.lds.mean):.1e}"
    others = other_circumstances(record, again, same_code)
    if not others:
        return Checked(record, f"{change}, with other bits, and nothing that could explain them", "")
    return Checked(record, None, f"{change}; other {', '.join(others)}")


def other_circumstances(record: AttributionRecord, again: AttributionRecord, same_code: bool) -> list[str]:
    """What may change the bits of scores, and differs between two runs; see `compared`.

    A CPU without its family and model, as records of earlier versions have it, may be another one.
    """
    old, new = record.provenance, again.provenance
    pairs = {
        "CPU": (old.hardware.cpu, new.hardware.cpu),
        "PyTorch": (old.packages.get("torch"), new.packages.get("torch")),
        "NumPy": (old.packages.get("numpy"), new.packages.get("numpy")),
        "threads": (old.threads, new.threads),
    }
    return [*(name for name, (first, second) in pairs.items() if first != second), *([] if same_code else ["code"])]
