"""`attriboard brittleness`: the fewest training examples whose removal flips a prediction."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import (
    FigureStem,
    OutDir,
    Process,
    Retraining,
    Sources,
    TaskArgument,
    open_workspace,
    prepare_folder,
)
from attriboard.cli.shell import Json, command, drawn_figure, emit, note, progress_bar, show_table
from attriboard.cli.variant_options import AttributorNames, Variants, chosen_variants, say_work, work_document

if TYPE_CHECKING:
    from attriboard.evaluation.brittleness import BrittlenessBench, Orders
    from attriboard.evaluation.variants import Attributed
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import Variant
    from attriboard.records.uses import BrittlenessRecord


@command
def brittleness(
    task: TaskArgument,
    attributors: AttributorNames,
    points: Annotated[int, typer.Option(help="Scoring points to flip.", min=1)] = 20,
    largest: Annotated[float, typer.Option(help="Largest share of the training set that is removed.")] = 0.5,
    seeds: Annotated[int, typer.Option(help="Retrains of every question of the search; odd.", min=1)] = 5,
    confirm: Annotated[int, typer.Option(help="Fresh retrains at the size that was found.", min=0)] = 10,
    variant: Variants = None,
    out: OutDir = Path("attriboard-results"),
    figure: FigureStem = None,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Search for the fewest training examples whose removal, by a test point's own scores, flips its prediction.

    A prediction is flipped where most retrains get it wrong; every flip is tried again with fresh seeds.
    """
    from attriboard.evaluation.brittleness import BrittlenessBench, BrittlenessPlan
    from attriboard.groundtruth.build import open_store
    from attriboard.leaderboard.plots.uses import draw_brittleness

    plan = BrittlenessPlan(points, largest, seeds, confirm)
    variants = chosen_variants(variant)
    workspace = open_workspace(task, sources, process, retraining)
    bench = BrittlenessBench(
        workspace.task, workspace.grader_if_any, plan, open_store(workspace.task, retraining.store)
    )
    prepare_folder(out)
    records = _records(workspace, bench, list(dict.fromkeys(attributors)), variants, out)
    documents = [_document(record, _default_of(record, records)) for record in records]
    stem = figure or out / workspace.task.card.name / "brittleness"
    drawn = drawn_figure(lambda: draw_brittleness(records), stem)
    if json:
        emit(
            {
                "task": workspace.task.card.name,
                "n_eligible": bench.n_eligible,
                "sizes": list(bench.sizes),
                "rows": documents,
                "retrains": work_document(bench.work),
                "figure": None if drawn is None else str(drawn),
            }
        )
        return
    _show(documents, workspace.task.card.title, bench)
    say_work(bench.work)
    print(f"records in {out}" + (f", figure {drawn}" if drawn else ""))


def _records(
    workspace: "Workspace",
    bench: "BrittlenessBench",
    names: Sequence[str],
    variants: "Sequence[Variant]",
    out: Path,
) -> "list[BrittlenessRecord]":
    """Records of every attributor's variants, in order: from the folder, or made now and written there."""
    from attriboard.evaluation.variants import known_or_made, variant_parts
    from attriboard.records.files import write_record
    from attriboard.records.uses import BrittlenessRecord

    finished = [record for record in workspace.records(out) if isinstance(record, BrittlenessRecord)]
    asked = []
    for position, name in enumerate(names, start=1):
        note(f"[{position}/{len(names)}] {name}")
        asked.append(variant_parts(workspace, name, variants, out))
    with progress_bar(f"full-data models of {workspace.task.card.name}") as progress:
        bench.choose_points(workspace.executor(progress.say), progress)
    found: list[BrittlenessRecord | Attributed[Orders]] = []
    for job, described, parts in asked:
        found += known_or_made(job, described, parts, finished, bench.answers, bench.order, workspace.runner)
    waiting = [item for item in found if not isinstance(item, BrittlenessRecord)]
    with progress_bar(f"points of {workspace.task.card.name}") as progress:
        orders = [item.made for item in waiting if item.made is not None]
        searched = iter(bench.search(orders, workspace.executor(progress.say), progress))
    results = {id(item): next(searched) if item.made is not None else () for item in waiting}
    records = [item if isinstance(item, BrittlenessRecord) else bench.record(item, results[id(item)]) for item in found]
    for record in records:
        write_record(record, out)
    return records


def _default_of(record: "BrittlenessRecord", records: "Sequence[BrittlenessRecord]") -> "BrittlenessRecord | None":
    """The default of the same attributor; `None` for the default itself."""
    if record.variant == "default":
        return None
    return next((r for r in records if r.attributor == record.attributor and r.variant == "default"), None)


def _document(record: "BrittlenessRecord", default: "BrittlenessRecord | None") -> dict[str, Any]:
    """A record as JSON-able data, with its comparison with the default."""
    from attriboard.leaderboard.removal_rows import compare_brittleness
    from attriboard.scoring.brittleness import exact_interval

    flipped = sum(point.n_removed is not None for point in record.points)
    shares = None
    if record.points:
        shares = {"share": record.share_flipped, "ci95": list(exact_interval(flipped, len(record.points)))}
    return {
        "attributor": record.attributor.name,
        "variant": record.variant,
        "hyperparameters": record.hyperparameters,
        "n_points": len(record.points),
        "median_removed": record.median_removed if record.points else None,
        "flipped": shares,
        "confirmed": record.share_confirmed if record.points else None,
        "against_default": compare_brittleness(record, default) if default else None,
        "points": [point.model_dump(mode="json") for point in record.points],
        "status": record.status,
        "reason": record.reason,
    }


def _show(documents: Sequence[dict[str, Any]], title: str, bench: "BrittlenessBench") -> None:
    rows = []
    for d in documents:
        shares, against = d["flipped"], d["against_default"]
        median = "–" if not d["n_points"] else f"> {bench.sizes[-1]}" if d["median_removed"] is None else ""
        rows.append(
            (
                d["attributor"],
                d["variant"],
                median or f"{d['median_removed']:g}",
                f"{shares['share']:.0%} ({shares['ci95'][0]:.0%} … {shares['ci95'][1]:.0%})" if shares else "failed",
                "–" if d["confirmed"] is None else f"{d['confirmed']:.0%}",
                f"fewer {against['fewer']}, more {against['more']}, p = {against['p']:.2g}" if against else "",
                d["reason"] or "",
            )
        )
    headings = ("attributor", "variant", "median removed", f"flipped within {bench.sizes[-1]}", "confirmed",
                "against default", "note")  # fmt: skip
    show_table(f"{title}: fewest removals that flip {len(bench.points)} predictions", headings, rows, numeric=(2, 3, 4))
    print("intervals: Clopper and Pearson, 95 %; confirmed: share of the flips that most fresh retrains repeat")
