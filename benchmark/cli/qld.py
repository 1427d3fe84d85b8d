"""`attriboard qld`: what removing its own top examples does to a test point."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.base.terminal import counted
from attriboard.cli.options import (
    RESULTS,
    FigureStem,
    Methods,
    OutDir,
    Process,
    Retraining,
    Sources,
    TaskArgument,
    chosen_variants,
    open_workspace,
    prepare_figure,
    prepare_folder,
)
from attriboard.cli.shell import Json, drawn_figure, emit, resuming, show_table
from attriboard.cli.uses import say_work

if TYPE_CHECKING:
    from attriboard.records.uses import QldRecord


@resuming()
def qld(
    task: TaskArgument,
    methods: Methods,
    fraction: Annotated[float, typer.Option(help="Share of the training set that each point loses.")] = 0.01,
    points: Annotated[
        int | None,
        typer.Option(
            help="Scoring points, drawn at random. Default: all if that takes about a minute for each row, otherwise "
            "100, or fewer if 100 would take half an hour.",
            min=2,
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(help="Seeds of each point.", min=1, max=1000)] = 1,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant", metavar="default|selected|oracle", help="Repeatable; by default default and selected."
        ),
    ] = None,
    out: OutDir = RESULTS,
    figure: FigureStem = None,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Query loss difference: remove each test point's own top examples, retrain, and compare with random removals.

    Prints the number of retrains first. Resumes if interrupted, and never repeats a retrain; random removals serve all
    methods.
    """
    from attriboard.evaluation.qld import QldBench, QldPlan, qld_records
    from attriboard.groundtruth.build import open_store
    from attriboard.leaderboard.plots.uses import draw_qld

    plan = QldPlan(fraction, points, repeats)
    variants = chosen_variants(variant or ["default", "selected"])
    workspace = open_workspace(task, sources, process, retraining)
    bench = QldBench(workspace.task, workspace.grader_if_any, plan, open_store(workspace.task, retraining.store))
    prepare_folder(out)
    prepare_figure(figure)
    records = qld_records(workspace, bench, list(dict.fromkeys(methods)), variants, out)
    card = workspace.task.card
    drawn = drawn_figure(lambda: draw_qld(records), figure or out / card.name / "qld")
    if json:
        documents = [record.model_dump(mode="json") for record in records]
        emit({"task": card.name, "rows": documents, "retrains": vars(bench.work), "figure": drawn and str(drawn)})
        return
    show_qld(records, card.title)
    say_work(bench.work)
    print(f"records in {out}" + (f", figure {drawn}" if drawn else ""))


def show_qld(records: "Sequence[QldRecord]", title: str) -> None:
    """Print records of one plan, one line each."""
    from attriboard.leaderboard.removal_rows import compare_qld
    from attriboard.scoring.brittleness import exact_interval

    defaults = {record.title: record for record in records if record.variant == "default" and record.drop is not None}
    rows = []
    for record in records:
        cells = ["failed", "–", "–", "–", ""]
        if record.drop is not None and record.ci95 is not None:
            low, high = exact_interval(sum(drop > 0 for drop in record.drops), len(record.drops))
            cells[:4] = [
                f"{record.drop:.3f}",
                f"{record.ci95[0]:.3f} … {record.ci95[1]:.3f}",
                f"{record.share_harmed:.0%} ({low:.0%} … {high:.0%})",
                f"{record.loss_rise:+.3f}",
            ]
            default = defaults.get(record.title)
            against = None if default is None or default is record else compare_qld(record, default)
            if against:
                cells[4] = f"{against.mean:+.3f}, p = {against.p:.2g}"
        left_out = f"{record.n_degenerate} points have NaN" if record.n_degenerate else ""
        rows.append((record.title, record.variant, *cells, record.reason or left_out))
    first = records[0]
    drop = f"drop of {first.target_in_words} ↑"
    headings = ("attributor", "variant", drop, "95 % interval", "harmed", "loss", "against default", "note")
    n_points, removed = max(len(record.test_points) for record in records), counted(first.n_removed, "example")
    heading = f"{title}: query loss difference, {n_points} points, each without its own top {removed}"
    show_table(heading, headings, rows, numeric=(2, 3, 4, 5))
    print("drop: by how much more the target falls than under as many random removals with the same seed; 0 is chance")
