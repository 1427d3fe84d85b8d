"""`attriboard demo`: the whole way on the embedded task, from attributors to a page."""

from pathlib import Path
from typing import Annotated

import typer

from attriboard.cli.shell import command, note

__all__ = ["demo"]

TASK = "digits_mlp"


@command
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder that gets records and site.", file_okay=False)] = Path(
        "demo"
    ),
) -> None:
    """Run every attributor on the embedded digits, score them, and build a page: about a minute."""
    from attriboard.catalog import attributor_names, attributor_spec, load_task
    from attriboard.cli.run import show_records
    from attriboard.cli.workbench import open_checkpoints, open_grader
    from attriboard.evaluation import evaluate
    from attriboard.groundtruth.registry import BundleRegistry
    from attriboard.leaderboard.board import build_board
    from attriboard.records import write_record

    registry, task = BundleRegistry(), load_task(TASK)
    grader, checkpoints = open_grader(task, registry), open_checkpoints(task, registry)
    truth = grader.truth.card
    note(f"{TASK}: {truth.n_masks} masks × {truth.n_repeats} repeats of ground truth, nothing to retrain")
    records = []
    for name in attributor_names():
        note(f"running {name} …")
        for record in evaluate(task, grader, attributor_spec(name), [{}], checkpoints, variants=["default"]):
            write_record(record, out / "results")
            records.append(record)
    summary = build_board([out / "results"], out / "site")
    show_records(f"{task.card.title}: LDS at default hyperparameters", records)
    print(f"page: {summary.index.resolve()}")
