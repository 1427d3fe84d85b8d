"""`attriboard sweep … --metric removal`: what removing by an attribution does along its hyperparameters, beside LDS."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attriboard.cli.run import setting
from attriboard.cli.selection import sweep_document, sweep_points
from attriboard.cli.shell import drawn_figure, emit, progress_bar, show_table
from attriboard.cli.uses import say_work, work_document
from attriboard.cli.workbench import Workbench

if TYPE_CHECKING:
    from attriboard.attribution.limits import Limits
    from attriboard.downstream.removal import Ranking, RemovalBench, Work
    from attriboard.records import AttributionRecord, RemovalRecord

__all__ = ["sweep_removal"]


def sweep_removal(
    workbench: Workbench,
    attributor: str,
    grids: Sequence[tuple[str, Sequence[str]]],
    fixed: Mapping[str, str],
    out: Path,
    bench: "RemovalBench",
    *,
    figure: Path | None,
    json: bool,
    **options: Any,
) -> None:
    """Sweep both LDS and removal; every point is a record of either kind, and is not computed again."""
    started = time.perf_counter()
    graded, removed, default, work = _points(workbench, attributor, grids, fixed, out, bench, **options)
    names, (rate,) = [name for name, _ in grids], bench.plan.rates
    name = graded[0].attributor.name
    stem = figure or out / workbench.task.card.name / name / f"sweep-{'-'.join(names)}-removal"
    drawn = _draw(graded, removed, names, rate, default, stem)
    if json:
        emit(
            {
                "task": workbench.task.card.name,
                "attributor": name,
                "metric": "removal",
                "rate": rate,
                "direction": bench.plan.direction,
                "balanced": bench.plan.balanced,
                "points": [
                    sweep_document(record) | {"removal": _document(partner)}
                    for record, partner in zip(graded, removed, strict=True)
                ],
                "retrains": work_document(work),
                "seconds": time.perf_counter() - started,
                "figure": None if drawn is None else str(drawn),
            }
        )
        return
    _show(graded, removed, names, rate)
    say_work(work)
    print(f"records in {out}" + (f", figure {drawn}" if drawn else "; a figure needs one swept number"))


def _points(
    workbench: Workbench,
    attributor: str,
    grids: Sequence[tuple[str, Sequence[str]]],
    fixed: Mapping[str, str],
    out: Path,
    bench: "RemovalBench",
    *,
    bounds: "Limits",
    **options: Any,
) -> "tuple[list[AttributionRecord], list[RemovalRecord], dict[str, Any], Work]":
    """The records of either kind in the grid's order, the default configuration, and what retraining took."""
    from attriboard.attribution.runner import Outcome, describe_attributor
    from attriboard.downstream.parts import Attributed, Part, answering_records, attribute_parts, attributed
    from attriboard.records import RemovalRecord, write_record

    job = workbench.job(attributor, [{}], **options)
    found: list[Attributed[Ranking]] = []

    def listen(outcome: Outcome) -> None:
        """Rank by the scores that LDS is computed from, so that a new sweep fits once."""
        found.append(attributed(Part("sweep", None, outcome.hyperparameters), job, outcome, bench.rank))

    graded, default = sweep_points(
        workbench, attributor, grids, fixed, out, title=f"LDS of {attributor}", bounds=bounds, listen=listen,
        **options,
    )  # fmt: skip
    finished = [r for r in workbench.records(out) if isinstance(r, RemovalRecord) and r.variant == "sweep"]
    described = describe_attributor(job)
    wanted = [Part("sweep", None, record.hyperparameters) for record in graded]
    known = answering_records(job, described, wanted, finished, bench.answers)
    here = [dict(a.part.hyperparameters) for a in found]
    missing = [p for p, k in zip(wanted, known, strict=True) if k is None and dict(p.hyperparameters) not in here]
    if missing:
        found += attribute_parts(job, missing, bench.rank, bounds)
    with progress_bar(f"retrains of {workbench.task.card.name}") as progress:
        rankings = [a.made for a in found if a.made is not None]
        work = bench.retrain(rankings, workbench.executor(progress.say), progress)
    removed = []
    for part, record in zip(wanted, known, strict=True):
        if record is None:
            record = bench.record(next(a for a in found if a.part.hyperparameters == part.hyperparameters))
            write_record(record, out)
        removed.append(record)
    return graded, removed, default, work


def _document(record: "RemovalRecord") -> dict[str, Any]:
    from attriboard.downstream.report import quantities

    measured = quantities(record.points[0].measured if record.points else {})
    return {**measured, "n_seeds": len(record.retrain_seeds), "status": record.status, "reason": record.reason}


def _draw(
    graded: "Sequence[AttributionRecord]",
    removed: "Sequence[RemovalRecord]",
    names: Sequence[str],
    rate: float,
    default: Mapping[str, Any],
    stem: Path,
) -> Path | None:
    from attriboard.figures import marks_of
    from attriboard.removal_figures import draw_removal_sweep

    if len(names) != 1:
        return None
    (name,) = names
    value = default.get(name)
    return drawn_figure(
        lambda: draw_removal_sweep(graded, removed, name, rate, marks_of(graded, name, value)),
        stem,
    )


def _show(
    graded: "Sequence[AttributionRecord]", removed: "Sequence[RemovalRecord]", names: Sequence[str], rate: float
) -> None:
    from attriboard.downstream.report import headline_quantity

    measured = next((r.points[0].measured for r in removed if r.points), {"correct": ()})
    shown = headline_quantity(measured).key
    rows = []
    for record, partner in zip(graded, removed, strict=True):
        lds, xi = record.lds, record.criteria.get("surrogate")
        rows.append(
            (
                *(setting(record.hyperparameters[name]) for name in names),
                f"{lds.mean:.3f}" if lds else "failed",
                "–" if xi is None else f"{xi:.3f}",
                _after(partner),
                record.reason or partner.reason or "",
            )
        )
    title = f"{graded[0].attributor.name} on {graded[0].task.name}"
    headings = (*names, "LDS", "mean ξ", f"{shown} with {100 * rate:g} % removed", "note")
    show_table(title, headings, rows, numeric=range(len(names) + 3))


def _after(record: "RemovalRecord") -> str:
    from attriboard.downstream.report import written

    return written(record.points[0].measured) if record.points else "failed"
