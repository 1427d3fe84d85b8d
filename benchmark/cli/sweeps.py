"""`attriboard sweep`: how much depends on hyperparameters."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import (
    RESULTS,
    Balanced,
    DirectionOption,
    FigureStem,
    Fixed,
    MethodArgument,
    OutDir,
    Process,
    Retraining,
    Seeds,
    Sources,
    TaskArgument,
    checked_direction,
    one_of,
    open_workspace,
    parse_assignments,
    prepare_figure,
    prepare_folder,
)
from attriboard.cli.shell import Json, drawn_figure, emit, resuming, setting, show_table
from attriboard.cli.uses import say_work

if TYPE_CHECKING:
    from attriboard.evaluation.removal import RemovalBench
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import AttributionRecord
    from attriboard.records.uses import RemovalRecord

Grids = Sequence[tuple[str, Sequence[str]]]


@resuming()
def sweep(
    task: TaskArgument,
    method: MethodArgument,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="NAME=LO:HI:N|NAME=LO:HI:Nlog|NAME=a,b,c",
            help="Values to try; repeatable, all combinations are run.",
        ),
    ] = None,
    hp: Fixed = None,
    out: OutDir = RESULTS,
    figure: FigureStem = None,
    metric: Annotated[
        str,
        typer.Option(metavar="lds|removal", help="removal: also retrain without what each point calls most helpful."),
    ] = "lds",
    rate: Annotated[float | None, typer.Option(help="Share that is removed; by default 0.5.")] = None,
    seeds: Seeds = 10,
    direction: DirectionOption = "helpful",
    balanced: Balanced = False,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Score an attributor over a grid: a sensitivity curve or surface, as records and a figure.

    A finished point is a record in --out and is not computed again. With --metric removal, each point is also tested by
    removal, and the figure shows both curves; --rate, --seeds, --direction, --balanced, --store, --workers and
    --executor apply only then.
    """
    grids = _checked_grids(grid, metric, rate)
    workspace = open_workspace(task, sources, process, retraining)
    fixed = parse_assignments(hp or [])
    prepare_folder(out)
    prepare_figure(figure)
    if metric == "lds":
        _sweep_lds(workspace, method, grids, fixed, out, figure, json)
        return
    from attriboard.evaluation.removal import RemovalBench, RemovalPlan
    from attriboard.groundtruth.build import open_store

    plan = RemovalPlan((0.5 if rate is None else rate,), seeds, checked_direction(direction), balanced)
    bench = RemovalBench(workspace.task, workspace.grader, plan, open_store(workspace.task, retraining.store))
    _sweep_removal(workspace, method, grids, fixed, out, bench, figure, json)


def _checked_grids(grid: Sequence[str] | None, metric: str, rate: float | None) -> list[tuple[str, tuple[str, ...]]]:
    """What is swept.

    Raises:
        InputError: nothing is, or the metric is unknown or has no rate.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.sweeps import parse_grid

    if one_of("--metric", metric, ("lds", "removal")) == "lds" and rate is not None:
        raise InputError(f"--rate {rate:g}: goes with --metric removal; add that, or leave --rate out")
    if not grid:
        raise InputError("--grid: give at least one, as in --grid regularization=1e-9:1e3:25log")
    return [parse_grid(text) for text in grid]


def _sweep_lds(
    workspace: "Workspace",
    method: str,
    grids: Grids,
    fixed: Mapping[str, str],
    out: Path,
    figure: Path | None,
    json: bool,
) -> None:
    """Sweep LDS alone, and show it."""
    from attriboard.evaluation.sweeps import sweep_points

    started = time.perf_counter()
    task = workspace.task.card.name
    swept = sweep_points(workspace, method, grids, fixed, out, title=f"{method} on {task}")
    records, default, names = swept.records, swept.default, swept.names
    attributor = records[0].attributor.name
    drawn = draw_sweep(records, names, figure or out / task / attributor / f"sweep-{'-'.join(names)}", default)
    if json:
        points = [record.model_dump(mode="json") for record in records]
        more = {"seconds": time.perf_counter() - started, "figure": drawn and str(drawn)}
        emit({"task": task, "attributor": attributor, "points": points, **more})
        return
    _show_points(records, names)
    print(f"records in {out}" + (f", figure {drawn}" if drawn else "; too few numbers for a figure"))


def _show_points(records: "list[AttributionRecord]", names: list[str]) -> None:
    from attriboard.records.model import HEADLINE_SELECTOR

    headings = (*names, "LDS", "95 % interval", "mean ξ", "note")
    rows = []
    for record in records:
        lds, xi = record.lds, record.criteria.get(HEADLINE_SELECTOR)
        rows.append(
            (
                *(setting(record.hyperparameters[name]) for name in names),
                f"{lds.mean:.3f}" if lds else "failed",
                f"{lds.ci95[0]:.3f} … {lds.ci95[1]:.3f}" if lds else "–",
                "–" if xi is None else f"{xi:.3f}",
                record.reason or "",
            )
        )
    title = f"{records[0].attributor.name} on {records[0].task.name}, ceiling {records[0].ceiling or float('nan'):.3f}"
    show_table(title, headings, rows, numeric=range(len(names) + 3))


def draw_sweep(
    records: "list[AttributionRecord]", names: list[str], stem: Path, default: Mapping[str, Any] | None = None
) -> Path | None:
    """Draw the figure that fits the number of swept hyperparameters; `None` where there is too little to draw.

    Args:
        records: the sweep.
        names: what was swept.
        stem: where the figure goes, without its ending.
        default: the configuration without the sweep, whose value is marked.
    """
    from attriboard.leaderboard.plots.sweeps import draw_curve, draw_surface, marks_of

    if len(names) == 1:
        value = (default or {}).get(names[0])
        return drawn_figure(lambda: draw_curve(records, names[0], marks_of(records, names[0], value)), stem)
    if len(names) == 2:
        return drawn_figure(lambda: draw_surface(records, *names), stem)
    return None


def _sweep_removal(
    workspace: "Workspace",
    method: str,
    grids: Grids,
    fixed: Mapping[str, str],
    out: Path,
    bench: "RemovalBench",
    figure: Path | None,
    json: bool,
) -> None:
    """Sweep both LDS and removal, and show them; every point is a record of either kind, and is not computed again."""
    from attriboard.evaluation.removal import removal_points
    from attriboard.leaderboard.plots.sweeps import marks_of
    from attriboard.leaderboard.plots.uses import draw_removal_sweep

    started = time.perf_counter()
    swept, removed, work = removal_points(workspace, method, grids, fixed, out, bench)
    graded, default, names = swept.records, swept.default, swept.names
    (rate,) = bench.plan.rates
    task, attributor, (first, *others) = workspace.task.card.name, graded[0].attributor.name, names
    stem, drawn = figure or out / task / attributor / f"sweep-{'-'.join(names)}-removal", None
    if not others:
        marks = marks_of(graded, first, default.get(first))
        drawn = drawn_figure(lambda: draw_removal_sweep(graded, removed, first, rate, marks), stem)
    if json:
        points = [
            record.model_dump(mode="json") | {"removal": partner.model_dump(mode="json")}
            for record, partner in zip(graded, removed, strict=True)
        ]
        more = {"seconds": time.perf_counter() - started, "retrains": vars(work), "figure": drawn and str(drawn)}
        emit({"task": task, "attributor": attributor, "points": points, **more})
        return
    _show_removal_points(graded, removed, names, rate)
    say_work(work)
    print(f"records in {out}" + (f", figure {drawn}" if drawn else "; a figure needs one swept number"))


def _show_removal_points(
    graded: "Sequence[AttributionRecord]", removed: "Sequence[RemovalRecord]", names: Sequence[str], rate: float
) -> None:
    from attriboard.leaderboard.removal_rows import headline_quantity, written
    from attriboard.records.model import HEADLINE_SELECTOR

    measured = next((r.points[0].measured for r in removed if r.points), {"correct": ()})
    rows = []
    for record, partner in zip(graded, removed, strict=True):
        lds, xi = record.lds, record.criteria.get(HEADLINE_SELECTOR)
        rows.append(
            (
                *(setting(record.hyperparameters[name]) for name in names),
                f"{lds.mean:.3f}" if lds else "failed",
                "–" if xi is None else f"{xi:.3f}",
                written(partner.points[0].measured) if partner.points else "failed",
                record.reason or partner.reason or "",
            )
        )
    title = f"{graded[0].attributor.name} on {graded[0].task.name}"
    headings = (*names, "LDS", "mean ξ", f"{headline_quantity(measured).key} with {100 * rate:g} % removed", "note")
    show_table(title, headings, rows, numeric=range(len(names) + 3))
