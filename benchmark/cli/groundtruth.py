"""`attriboard groundtruth`: build, inspect, verify, fetch and publish ground truth."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attriboard.base.terminal import note, progress_bar
from attriboard.cli.options import Bundles, Retraining, Sources, TaskArgument, open_workspace
from attriboard.cli.shell import DataDir, Json, command, emit, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attriboard.evaluation.workspace import Workspace
    from attriboard.groundtruth.listing import BundleEntry, BundleRegistry
    from attriboard.groundtruth.verify import RowCheck

Tasks = Annotated[list[str] | None, typer.Argument(metavar="TASK…", help="By default every task that is listed.")]

app = typer.Typer(help="Build, inspect, verify, fetch and publish ground truth.", no_args_is_help=True)


HeldOutMasks = Annotated[
    int | None,
    typer.Option(
        "--held-out",
        help="Instead: this many masks that follow from a secret, in a file that is yours alone; the folder's "
        "registry.json gets its SHA-256.",
        min=3,
        max=999_999,
    ),
]


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
    held_out: HeldOutMasks = None,
    held_out_file: Annotated[
        Path | None,
        typer.Option("--held-out-file", help="That file; by default attriboard-held-out/TASK.safetensors."),
    ] = None,
    retraining: Retraining = Retraining(),
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Retrain on every mask and write the bundle and the checkpoints; goes on where it was interrupted."""
    from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store
    from attriboard.groundtruth.listing import BundleRegistry
    from attriboard.groundtruth.opening import keep_own_truth
    from attriboard.retraining.choosing import describe_training

    workspace = open_workspace(task, Sources(groundtruth=None), retraining=retraining)
    live, registry = workspace.task, BundleRegistry(out)
    if held_out is not None:
        _build_held_out(workspace, registry, held_out, repeats, held_out_file, json)
        return
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
    size = live.card.ground_truth
    keep_own_truth(live.card, truth, masks or size.n_masks, repeats or size.n_repeats)
    _show_bundles(live.card.name, entries, out, json)


def _show_bundles(task: str, entries: "Sequence[BundleEntry]", out: Path, json: bool) -> None:
    if json:
        emit({"task": task, "bundles": [entry.model_dump(mode="json") for entry in entries], "folder": str(out)})
        return
    for entry in entries:
        print(f"{out / entry.file}  {entry.bytes:,} bytes  SHA-256 {entry.sha256}")


def _build_held_out(
    workspace: "Workspace", registry: "BundleRegistry", masks: int, repeats: int | None, file: Path | None, json: bool
) -> None:
    """`groundtruth build --held-out`: the file for its owner, the commitment for the list."""
    from attriboard.groundtruth.held_out import build_held_out

    card = workspace.task.card
    path = file or Path("attriboard-held-out") / f"{card.name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    note(f"keep {path} to yourself: who has it knows the masks")
    with progress_bar(f"held-out ground truth of {card.name}") as progress:
        made = build_held_out(
            workspace.task,
            path,
            n_masks=masks,
            n_repeats=repeats,
            executor=workspace.executor(progress.say),
            progress=progress,
        )
    registry.commit(made)
    if json:
        emit({"held_out": str(path), "list": str(registry.folder / "registry.json"), **made.model_dump(mode="json")})
        return
    print(f"{path}: {made.n_masks} masks × {made.n_repeats} repeats")
    print(f"commitment {made.sha256} in {registry.folder / 'registry.json'}: publish it before anything is scored")


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
        int | None, typer.Option(help="Seed of the choice of rows; by default a new one each time.", min=0)
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


@app.command("list")
@command
def list_bundles(groundtruth: Bundles = None, json: Json = False) -> None:
    """List the bundles that there are: sizes, digests, and whether they are here."""
    from attriboard.groundtruth.listing import BundleRegistry

    registry = BundleRegistry(groundtruth)
    documents = [entry.model_dump(mode="json") | {"where": _where(registry, entry)} for entry in registry.entries]
    if json:
        emit(documents)
        return
    rows = [
        (d["task"], str(d["version"]), d["kind"], f"{d['bytes']:,}", d["sha256"][:16], d["where"], str(len(d["urls"])))
        for d in documents
    ]
    rows += [(c.task, str(c.version), "held-out", "", c.sha256[:16], "its owner", "") for c in registry.held_out]
    headings = ("task", "version", "kind", "bytes", "SHA-256", "where", "URLs")
    show_table(f"Bundles of {registry.folder}", headings, rows, numeric=(1, 3, 6))


@app.command()
@command
def pull(
    tasks: Tasks = None,
    kind: Annotated[
        Literal["groundtruth", "checkpoints", "both"], typer.Option(help="Which bundles of a task.")
    ] = "both",
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--from",
            metavar="PLACE",
            help="Where to ask first: https://…, http://…, file:///…, a folder, or hf://datasets/OWNER/NAME@REVISION; "
            "repeatable. The bundles' file names are added.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder that gets the bundles and their list; by default the cache.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Touch no network: folders and the cache alone.")] = False,
    groundtruth: Bundles = None,
    json: Json = False,
) -> None:
    """Fetch bundles: checked against the SHA-256 and size of the list, resumed where a transfer was torn."""
    from attriboard.groundtruth.listing import BundleRegistry, cached_path, write_listing

    if offline:
        os.environ["ATTRIBOARD_OFFLINE"] = "1"
    registry = BundleRegistry(groundtruth)
    kinds = ("groundtruth", "checkpoints") if kind == "both" else (kind,)
    documents = []
    wanted = [entry for entry in _chosen(registry, tasks) if entry.kind in kinds]
    for entry in wanted:
        here = registry.place(entry)
        target = out / entry.file if out else here or cached_path(entry)
        with progress_bar(entry.file, "bytes") as progress:
            path = registry.pull(entry, target, source or (), progress)
        documents.append(entry.model_dump(mode="json", exclude={"urls"}) | {"path": str(path)})
    if out:
        listed = {(e.task, e.version, e.kind): e for e in (*BundleRegistry(out).entries, *wanted)}
        write_listing(out, listed.values(), (*BundleRegistry(out).held_out, *registry.held_out))
    if json:
        emit(documents)
        return
    for document in documents:
        print(f"{document['path']}  {document['bytes']:,} bytes  SHA-256 {document['sha256']}")


@app.command()
@command
def push_ready(
    tasks: Tasks = None,
    out: Annotated[Path, typer.Option("--out", help="Folder that gets everything to upload.")] = Path(
        "attriboard-upload"
    ),
    url: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PLACE",
            help="Where the folder will be, https://… or hf://datasets/OWNER/NAME@REVISION; repeatable. It is written "
            "into the list.",
        ),
    ] = None,
    groundtruth: Bundles = None,
    json: Json = False,
) -> None:
    """Make a folder to upload to any static server: checked bundles, their list with URLs, and SHA256SUMS."""
    from attriboard.base.errors import FormatError
    from attriboard.base.paths import write_atomically
    from attriboard.checking.files import check_file
    from attriboard.evaluation.catalog import load_task
    from attriboard.groundtruth.listing import BundleRegistry, write_listing

    registry = BundleRegistry(groundtruth)
    ready: list[BundleEntry] = []
    for entry in _chosen(registry, tasks):
        path = registry.locate(load_task(entry.task).card, entry.kind)
        report = check_file(path)
        if not report.ok:
            raise FormatError(report.errors[0].message)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, out / entry.file)
        urls = tuple(dict.fromkeys((*(f"{place.rstrip('/')}/{entry.file}" for place in url or ()), *entry.urls)))
        ready.append(type(entry).model_validate(entry.model_dump() | {"urls": urls}))
    write_listing(out, ready, registry.held_out)
    sums = "".join(f"{entry.sha256}  {entry.file}\n" for entry in ready)
    write_atomically(out / "SHA256SUMS", sums.encode())
    if json:
        emit({"folder": str(out), "bundles": [entry.model_dump(mode="json") for entry in ready]})
        return
    for entry in ready:
        print(f"{out / entry.file}  {entry.bytes:,} bytes  {entry.urls[0] if entry.urls else 'no URL'}")
    print(f"upload the folder {out}; sha256sum -c SHA256SUMS checks a copy of it")


def _chosen(registry: "BundleRegistry", tasks: list[str] | None) -> "list[BundleEntry]":
    """Entries of some tasks, or of all.

    Raises:
        DataError: a task has none.
    """
    from attriboard.base.errors import DataError
    from attriboard.evaluation.catalog import load_task

    if not tasks:
        return list(registry.entries)
    found: list[BundleEntry] = []
    for name in tasks:
        fingerprint = load_task(name).card.fingerprint
        entries = [entry for entry in registry.entries if entry.fingerprint == fingerprint]
        if not entries:
            raise DataError(f"{registry.folder}: lists nothing for {name} (fingerprint {fingerprint[:12]}…)")
        found += entries
    return found


def _where(registry: "BundleRegistry", entry: "BundleEntry") -> str:
    place = registry.place(entry)
    if place is None:
        return "missing"
    return "here" if place.parent == registry.folder else "cache"
