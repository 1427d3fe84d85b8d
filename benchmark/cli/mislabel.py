"""`attriboard mislabel`: which training labels are wrong, by an attribution."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import (
    FigureStem,
    OutDir,
    Process,
    Sources,
    TaskArgument,
    open_workspace,
    prepare_folder,
)
from attriboard.cli.run import setting
from attriboard.cli.shell import Json, command, drawn_figure, emit, note, show_table
from attriboard.cli.variant_options import AttributorNames, chosen_variants, one_of

if TYPE_CHECKING:
    from attriboard.records.uses import MislabelRecord


@command
def mislabel(
    task: TaskArgument,
    attributors: AttributorNames,
    by: Annotated[
        str,
        typer.Option(metavar="self|summed", help="self: influence on the example itself; summed: harm to test points."),
    ] = "self",
    variant: Annotated[
        list[str] | None, typer.Option("--variant", metavar="default|selected", help="Repeatable; by default both.")
    ] = None,
    out: OutDir = Path("attriboard-results"),
    figure: FigureStem = None,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Rank training examples by suspicion on a task with wrong labels: AUC and recall. Nothing is retrained."""
    from attriboard.evaluation.mislabel import BY, MislabelBench
    from attriboard.evaluation.variants import attribute_parts, finished_parts, variant_parts
    from attriboard.leaderboard.plots.uses import draw_recall
    from attriboard.records.files import write_record
    from attriboard.records.uses import MislabelRecord

    variants = tuple(v for v in chosen_variants(variant or ["default", "selected"]) if v != "oracle")
    workspace = open_workspace(task, sources, process)
    bench = MislabelBench(workspace.task, workspace.grader_if_any, one_of("--by", by, BY))
    prepare_folder(out)
    names = list(dict.fromkeys(attributors))
    finished = [record for record in workspace.records(out) if isinstance(record, MislabelRecord)]
    records: list[MislabelRecord] = []
    for position, name in enumerate(names, start=1):
        note(f"[{position}/{len(names)}] {name}")
        job, described, parts = variant_parts(workspace, name, variants, out)
        known = finished_parts(job, described, parts, finished, bench.answers)
        missing = [part for part in parts if part.variant not in known]
        for attributed in (
            attribute_parts(bench.question(job), missing, bench.detect, workspace.runner) if missing else ()
        ):
            known[attributed.part.variant] = bench.record(attributed)
            write_record(known[attributed.part.variant], out)
        records += [known[part.variant] for part in parts]
    stem = figure or out / workspace.task.card.name / f"mislabel-{bench.by}"
    drawn = drawn_figure(lambda: draw_recall(records), stem)
    if json:
        emit(
            {
                "task": workspace.task.card.name,
                "by": bench.by,
                "n_mislabelled": int(bench.wrong.sum()),
                "rows": [_document(record) for record in records],
                "figure": None if drawn is None else str(drawn),
            }
        )
        return
    _show(records, workspace.task.card.title)
    print(f"records in {out}" + (f", figure {drawn}" if drawn else ""))


def _document(record: "MislabelRecord") -> dict[str, Any]:
    recall = dict(zip(map(str, record.inspected), record.recall or (), strict=False))
    return {
        "attributor": record.attributor.name,
        "variant": record.variant,
        "hyperparameters": record.hyperparameters,
        "auc": None if record.auc is None or record.ci95 is None else {"mean": record.auc, "ci95": list(record.ci95)},
        "average_precision": record.average_precision,
        "recall": recall,
        "status": record.status,
        "reason": record.reason,
    }


def _show(records: "Sequence[MislabelRecord]", title: str) -> None:
    from attriboard.contracts.selector import regularization_name

    rows = []
    for record in records:
        name = regularization_name(record.hyperparameters)
        recall = dict(zip(record.inspected, record.recall or (), strict=False))
        rows.append(
            (
                record.attributor.name,
                record.variant,
                f"{name} = {setting(record.hyperparameters[name])}" if name else "",
                "failed" if record.auc is None else f"{record.auc:.3f}",
                f"{record.ci95[0]:.3f} … {record.ci95[1]:.3f}" if record.ci95 else "–",
                *(f"{recall[share]:.0%}" if share in recall else "–" for share in (0.1, 0.2)),
                record.reason or "",
            )
        )
    headings = ("attributor", "variant", "λ", "AUC", "95 % interval", "found in 10 %", "found in 20 %", "note")
    first = records[0]
    show_table(f"{title}: {first.n_mislabelled} wrong labels, by {first.influence}", headings, rows,
               numeric=(3, 4, 5, 6))  # fmt: skip
