"""`attriboard sweep … --metric removal`: what removing by an attribution does along its hyperparameters, beside LDS."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attriboard.cli.run import setting
from attriboard.cli.shell import drawn_figure, emit, show_table
from attriboard.cli.sweeps import sweep_document
from attriboard.cli.variant_options import say_work, work_document

if TYPE_CHECKING:
    from attriboard.evaluation.removal import RemovalBench
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import AttributionRecord
    from attriboard.records.uses import RemovalRecord


def sweep_removal(
    workspace: "Workspace",
    attributor: str,
    grids: Sequence[tuple[str, Sequence[str]]],
    fixed: Mapping[str, str],
    out: Path,
    bench: "RemovalBench",
    *,
    figure: Path | None,
    json: bool,
) -> None:
    """Sweep both LDS and removal; every point is a record of either kind, and is not computed again."""
    from attriboard.evaluation.removal import removal_points

    started = time.perf_counter()
    graded, removed, default, work = removal_points(workspace, attributor, grids, fixed, out, bench)
    names, (rate,) = [name for name, _ in grids], bench.plan.rates
    name = graded[0].attributor.name
    stem = figure or out / workspace.task.card.name / name / f"sweep-{'-'.join(names)}-removal"
    drawn = _draw(graded, removed, names, rate, default, stem)
    if json:
        emit(
            {
                "task": workspace.task.card.name,
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


def _document(record: "RemovalRecord") -> dict[str, Any]:
    from attriboard.leaderboard.removal_rows import quantities

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
    from attriboard.leaderboard.plots.sweeps import marks_of
    from attriboard.leaderboard.plots.uses import draw_removal_sweep

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
    from attriboard.leaderboard.removal_rows import headline_quantity

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
    from attriboard.leaderboard.removal_rows import written

    return written(record.points[0].measured) if record.points else "failed"
