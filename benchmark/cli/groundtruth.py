"""`attriboard groundtruth`: build, inspect, verify, fetch and publish ground truth."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli import distribution
from attriboard.cli.options import (
    Retraining,
    Sources,
    TaskArgument,
    open_workspace,
)
from attriboard.cli.shell import DataDir, Json, command, emit, note, progress_bar, show_table

if TYPE_CHECKING:
    from attriboard.groundtruth.verify import RowCheck

app = typer.Typer(help="Build, inspect, verify, fetch and publish ground truth.", no_args_is_help=True)


@app.command()
@command
def build(
    task: TaskArgument,
    out: Annotated[
        Path, typer.Option("--out", help="Folder that gets the bundles and is listed in its registry.json.")
    ] = Path("attriboard-groundtruth"),
    masks: Annotated[
        int | None, typer.Option(help="Number of subsets; by default the card's.", min=3, max=999_999)
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Seeds for each; by default the card's.", min=1)] = None,
    retraining: Retraining = Retraining(),
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Retrain on every mask and write the bundle and the checkpoints; goes on where it was interrupted."""
    from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store
    from attriboard.groundtruth.listing import BundleRegistry
    from attriboard.retraining.engine import describe_training

    workspace = open_workspace(task, Sources(groundtruth=None), retraining=retraining)
    live, registry = workspace.task, BundleRegistry(out)
    shards = open_store(live, retraining.store)
    for path in shards.damaged:
        note(f"{path}: damaged shard set aside; its retrains are done again")
    note(f"retrains are kept in {shards.folder}")
    note(f"{live.card.name} {describe_training(live)}")
    # The checkpoints first: methods can be run on them while the ground truth is still being trained.
    models = out / registry.file_name(live.card, "checkpoints")
    with progress_bar(f"checkpoints of {live.card.name}") as progress:
        where = workspace.executor(progress.say)
        build_checkpoints(live, models, shards, executor=where, progress=progress)
    checkpoints = registry.register(live.card, "checkpoints")
    truth = out / registry.file_name(live.card, "groundtruth")
    with progress_bar(f"ground truth of {live.card.name}") as progress:
        build_ground_truth(
            live,
            truth,
            shards,
            n_masks=masks,
            n_repeats=repeats,
            executor=workspace.executor(progress.say),
            progress=progress,
        )
    entries = [registry.register(live.card, "groundtruth"), checkpoints]
    if json:
        emit(
            {
                "task": live.card.name,
                "bundles": [e.model_dump(mode="json") for e in entries],
                "folder": str(out),
            }
        )
    else:
        for entry in entries:
            print(f"{out / entry.file}  {entry.bytes:,} bytes  SHA-256 {entry.sha256}")


@app.command()
@command
def info(task: TaskArgument, sources: Sources = Sources(), json: Json = False) -> None:
    """Show what a task's ground truth is and where it comes from."""
    grader = open_workspace(task, sources).grader
    truth, card = grader.truth, grader.truth.card
    document: dict[str, Any] = {
        "task": card.task.name,
        "fingerprint": card.fingerprint,
        "sha256": truth.sha256,
        "bytes": truth.path.stat().st_size,
        "n_masks": card.n_masks,
        "n_repeats": card.n_repeats,
        "n_test": card.n_test,
        "ceiling": grader.ceiling.mean,
        "card": card.model_dump(mode="json"),
    }
    if json:
        emit(document)
        return
    ceiling = f"{grader.ceiling.mean:.3f}" if grader.ceiling.mean is not None else grader.ceiling.reason
    origin = card.provenance
    rows = [
        ("file", f"{truth.path}, {document['bytes']:,} bytes"),
        ("SHA-256", truth.sha256),
        ("fingerprint", card.fingerprint),
        ("retrains", f"{card.n_masks} masks × {card.n_repeats} repeats, {card.n_test} test points"),
        ("outputs", ", ".join(sorted(truth.outputs))),
        ("noise ceiling", ceiling),
        (
            "made",
            f"{card.created}, attriboard {origin.attriboard}, torch {origin.packages.get('torch', '?')}",
        ),
        ("on", f"{origin.hardware.cpu}, {origin.hardware.cores} cores"),
    ]
    show_table(f"Ground truth of {card.task.name}", ("what", "value"), rows)


@app.command()
@command
def verify(
    task: TaskArgument,
    rows: Annotated[int, typer.Option(help="How many random rows to retrain.", min=1)] = 4,
    deep: Annotated[
        int | None,
        typer.Option(help="Instead of single rows: this many random masks with every repeat of each.", min=1),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Choice of the rows; by default another one each time.", min=0)
    ] = None,
    retraining: Retraining = Retraining(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Retrain a few random rows of the bundle and compare; exit code 1 where they disagree."""
    from attriboard.groundtruth.build import open_store
    from attriboard.groundtruth.verify import check_plan, choose_masks, choose_rows, verify_rows

    workspace = open_workspace(task, sources, retraining=retraining)
    live, truth = workspace.task, workspace.bundles.truth
    check_plan(truth, live)
    chosen = choose_masks(truth, deep, seed) if deep else choose_rows(truth, rows, seed)
    # A store of its own: what another one holds would be believed, not retrained.
    with (
        tempfile.TemporaryDirectory(prefix="attriboard-verify-") as folder,
        progress_bar(f"verifying {live.card.name}") as progress,
    ):
        store = open_store(live, Path(folder))
        where = workspace.executor(progress.say)
        checks = verify_rows(truth, live, store, chosen, executor=where, progress=progress)
    ok = all(check.ok for check in checks)
    if json:
        emit({"task": live.card.name, "rows": [vars(check) for check in checks], "ok": ok})
    else:
        _show_checks(live.card.name, checks)
        print("ok: every row is nearest to its own mask, within seed noise" if ok else "FAILED")
    if not ok:
        raise typer.Exit(1)


def _show_checks(task: str, checks: "list[RowCheck]") -> None:
    headings = ("mask", "repeat", "bit for bit", "rank correlation", "distance", "max |z|", "")
    cells = [
        (
            str(c.mask),
            str(c.repeat),
            "yes" if c.exact else "no",
            f"{c.rank_correlation:.4f}",
            f"{c.distance:.3f}",
            f"{c.max_abs_z:.2f}",
            "ok" if c.ok else "FAILED",
        )
        for c in checks
    ]
    title = f"Retrained rows of {task} (distances in standard deviations of seed noise)"
    show_table(title, headings, cells, numeric=(0, 1, 3, 4, 5))


app.command("list")(distribution.list_bundles)
app.command("pull")(distribution.pull)
app.command("push-ready")(distribution.push_ready)
app.command("split")(distribution.split)
