"""`attriboard sweep` and `attriboard select`: how much hangs on hyperparameters, and how well they can be chosen."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import (
    AttributorArgument,
    AttributorFile,
    FigureStem,
    Fixed,
    OutDir,
    Process,
    Retraining,
    Sources,
    TaskArgument,
    chosen_attributor,
    open_workspace,
    parse_assignments,
    prepare_folder,
)
from attriboard.cli.run import setting
from attriboard.cli.shell import Json, command, drawn_figure, emit, progress_bar, show_table
from attriboard.cli.variant_options import Balanced, DirectionOption, Seeds, checked_direction

if TYPE_CHECKING:
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import AttributionRecord, GradedConfiguration, SelectionRecord

Grid = Annotated[
    list[str] | None,
    typer.Option(
        "--grid",
        metavar="NAME=LO:HI:N|NAME=LO:HI:Nlog|NAME=a,b,c",
        help="Values to try; repeatable, all combinations are run.",
    ),
]


@command
def sweep(
    task: TaskArgument,
    attributor: AttributorArgument = "",
    attributor_file: AttributorFile = None,
    grid: Grid = None,
    hp: Fixed = None,
    out: OutDir = Path("attriboard-results"),
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

    A finished point is a record in --out and is not computed again. With --metric removal every point is also put to
    use, and the figure has both curves; --rate, --seeds, --direction, --balanced, --store, --workers and --executor are
    for it.
    """
    grids = _checked_grids(grid, metric, rate)
    chosen = chosen_attributor(attributor, attributor_file)
    bench = open_workspace(task, sources, process, retraining)
    fixed = parse_assignments(hp or [])
    prepare_folder(out)
    if metric == "lds":
        _sweep_lds(bench, chosen, grids, fixed, out, figure=figure, json=json)
        return
    from attriboard.cli.removal_sweep import sweep_removal
    from attriboard.evaluation.removal import RemovalBench, RemovalPlan
    from attriboard.groundtruth.build import open_store

    plan = RemovalPlan((0.5 if rate is None else rate,), seeds, checked_direction(direction), balanced)
    removing = RemovalBench(bench.task, bench.grader, plan, open_store(bench.task, retraining.store))
    sweep_removal(bench, chosen, grids, fixed, out, removing, figure=figure, json=json)


def _sweep_lds(
    bench: "Workspace",
    attributor: str,
    grids: Sequence[tuple[str, Sequence[str]]],
    fixed: Mapping[str, str],
    out: Path,
    *,
    figure: Path | None,
    json: bool,
) -> None:
    """Sweep LDS alone, and show it."""
    from attriboard.evaluation.sweeps import sweep_points

    started = time.perf_counter()
    title = f"{attributor} on {bench.task.card.name}"
    records, default = sweep_points(bench, attributor, grids, fixed, out, title=title)
    seconds = time.perf_counter() - started
    names = [name for name, _ in grids]
    name = records[0].attributor.name
    stem = figure or out / bench.task.card.name / name / f"sweep-{'-'.join(names)}"
    path = draw_sweep(records, names, stem, default)
    if json:
        emit(
            {
                "task": bench.task.card.name,
                "attributor": name,
                "points": [sweep_document(record) for record in records],
                "seconds": seconds,
                "figure": None if path is None else str(path),
            }
        )
        return
    _show_points(records, names)
    print(f"records in {out}" + (f", figure {path}" if path else "; too few numbers for a figure"))


def _checked_grids(grid: Sequence[str] | None, metric: str, rate: float | None) -> list[tuple[str, tuple[str, ...]]]:
    """What is swept.

    Raises:
        InputError: nothing is, or the metric is unknown or has no rate.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.sweeps import parse_grid

    if metric not in ("lds", "removal") or (metric == "lds" and rate is not None):
        raise InputError(f"--metric {metric}: must be lds or removal, and --rate goes with removal")
    if not grid:
        raise InputError("--grid: give at least one, as in --grid regularization=1e-9:1e3:25log")
    return [parse_grid(text) for text in grid]


@command
def select(
    task: TaskArgument,
    attributor: AttributorArgument = "",
    attributor_file: AttributorFile = None,
    selector: Annotated[
        list[str] | None, typer.Option(help="Name, path of a .py file, or `all`; repeatable. Default: surrogate.")
    ] = None,
    grid: Annotated[
        str | None, typer.Option("--grid", metavar="LO:HI:Nlog|a,b,c", help="Candidates; by default the method's grid.")
    ] = None,
    hp: Fixed = None,
    out: OutDir = Path("attriboard-results"),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Choose the regularization without retraining, and compare it with the default and the oracle."""
    from attriboard.evaluation.catalog import load_oracle, selector_names
    from attriboard.evaluation.selection import study_selection
    from attriboard.evaluation.sweeps import parse_grid
    from attriboard.records.files import write_record

    candidates = parse_grid(f"regularization={grid}")[1] if grid else None
    names = selector or ["surrogate"]
    if "all" in names:
        names = selector_names()
    chosen = chosen_attributor(attributor, attributor_file)
    bench = open_workspace(task, sources, process)
    job = bench.job(chosen, [parse_assignments(hp or [])], selectors=names)
    prepare_folder(out)
    with progress_bar(f"{chosen} on {bench.task.card.name}") as progress:
        study = study_selection(
            bench.task,
            bench.grader,
            job,
            load_oracle(),
            candidates=candidates,
            runner=bench.runner,
            progress=progress,
        )
    for record in study.all_records:
        write_record(record, out)
    if json:
        documents = [_selection(record) for record in study.selections]
        emit(documents[0] if len(documents) == 1 else documents)
    else:
        show_selections(study.selections)
        print(f"records in {out}")


def show_selections(selections: "list[SelectionRecord]") -> None:
    """Print selections as a table."""
    first = selections[0]
    headings = (
        "selector",
        "chosen",
        "default LDS",
        "selected LDS",
        "oracle LDS",
        "regret",
        "95 % interval",
        "gap closed",
    )
    rows = []
    for record in selections:
        regret = record.regret
        rows.append(
            (
                record.selector,
                record.reason or _changes(record) + (" (transferred)" if record.transferred else ""),
                _lds(record.default),
                _lds(record.selected),
                _lds(record.oracle),
                f"{regret.mean:+.3f}" if regret else "–",
                f"{regret.ci95[0]:+.3f} … {regret.ci95[1]:+.3f}" if regret else "–",
                "–" if record.gap_closed is None else f"{record.gap_closed:.0%}",
            )
        )
    oracle = (
        f", oracle at {first.hyperparameter} = {_value(first.oracle, first.hyperparameter)}" if first.oracle else ""
    )
    show_table(f"{first.attributor.name} on {first.task.name}{oracle}", headings, rows, numeric=(2, 3, 4, 5, 6, 7))


def _changes(record: "SelectionRecord") -> str:
    assert record.selected is not None
    chosen, default = record.selected.hyperparameters, record.default.hyperparameters
    changes = [f"{name} = {setting(value)}" for name, value in chosen.items() if default.get(name) != value]
    return ", ".join(changes) or "the default"


def _value(configuration: "GradedConfiguration | None", name: str) -> str:
    return setting(configuration.hyperparameters.get(name)) if configuration else "–"


def _lds(configuration: "GradedConfiguration | None") -> str:
    if configuration is None:
        return "–"
    return "failed" if configuration.lds is None else f"{configuration.lds:.3f}"


def _selection(record: "SelectionRecord") -> dict[str, Any]:
    """A selection as JSON-able data."""
    keys = ("default", "selected", "oracle", "regret")
    parts = {key: part.model_dump(mode="json") if (part := getattr(record, key)) else None for key in keys}
    return {
        "task": record.task.name,
        "attributor": record.attributor.name,
        "selector": record.selector,
        "status": record.status,
        "reason": record.reason,
        "transferred": record.transferred,
        **parts,
        "gap_closed": record.gap_closed,
        "rank_correlation": record.rank_correlation,
        "seconds": record.seconds,
        "n_retrains": record.n_retrains,
    }


def sweep_document(record: "AttributionRecord") -> dict[str, Any]:
    """A point of a sweep as JSON-able data."""
    return {
        "hyperparameters": record.hyperparameters,
        "status": record.status,
        "reason": record.reason,
        "lds": {"mean": record.lds.mean, "ci95": list(record.lds.ci95), "pearson": record.lds.pearson}
        if record.lds
        else None,
        "criteria": record.criteria,
    }


def _show_points(records: "list[AttributionRecord]", names: list[str]) -> None:
    headings = (*names, "LDS", "95 % interval", "mean ξ", "note")
    rows = []
    for record in records:
        lds, xi = record.lds, record.criteria.get("surrogate")
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
