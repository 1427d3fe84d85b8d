"""`attriboard store`: the one store of retrains that every command shares."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.base.terminal import counted
from attriboard.cli.options import StoreFolder, TaskArgument
from attriboard.cli.shell import Json, command, emit, show_table

if TYPE_CHECKING:
    from attriboard.retraining.upkeep import StoreInfo

app = typer.Typer(
    help="Look after the store of retrains that every command shares.\n\n"
    "It is in $ATTRIBOARD_CACHE/retrains, by default ~/.cache/attriboard/retrains, one folder per task.",
    no_args_is_help=True,
)

TaskOption = Annotated[str | None, typer.Argument(metavar="[TASK]", help="Name or card; by default every store.")]


@app.command()
@command
def info(task: TaskOption = None, store: StoreFolder = None, json: Json = False) -> None:
    """Show what is stored; every byte is checked, nothing is changed. Exit code 1 if something is damaged."""
    from attriboard.base.paths import store_root
    from attriboard.retraining.upkeep import inspect_store

    infos = [inspect_store(folder) for folder in _folders(task, store)]
    documents = [_document(found) for found in infos]
    if json:
        emit({"root": str(store_root()), "stores": documents})
    else:
        headings = ("store", "task", "retrains", "with parameters", "shards", "size", "process-seconds", "damaged")
        rows = [
            (
                Path(d["folder"]).name,
                (d["fingerprint"] or "–")[:12],
                f"{d['retrains']:,}",
                f"{d['with_parameters']:,}",
                f"{d['shards']:,}",
                f"{d['bytes'] / 1e6:,.1f} MB",
                f"{d['seconds']:,.0f}",
                str(len(d["damaged"])) if d["damaged"] else "–",
            )
            for d in documents
        ]
        show_table(f"Stores in {store or store_root()}", headings, rows, numeric=range(2, 8))
        for path in (path for d in documents for path in d["damaged"]):
            print(
                f"damaged: {path}; its retrains are done again when they are needed; `attriboard store gc` removes it"
            )
        if not documents:
            print("nothing is stored yet: commands that retrain put their work there")
    if any(d["damaged"] for d in documents):
        raise typer.Exit(1)


@app.command()
@command
def pack(task: TaskArgument, store: StoreFolder = None, json: Json = False) -> None:
    """Turn many shards into as few as possible, to share a store as one file or two; retrains stay as they are."""
    from attriboard.retraining.upkeep import inspect_store, pack_store

    (folder,) = _folders(task, store)
    before, after = pack_store(folder)
    found = inspect_store(folder)
    if json:
        emit({"shards_before": before, "shards_after": after, **_document(found)})
    elif before:
        shards, retrains = counted(before, "shard"), counted(found.n_retrains, "retrain")
        print(f"{folder}: {shards} packed into {after}, {retrains}, {found.n_bytes:,} bytes")
    else:
        print(f"{folder}: nothing is stored yet")


@app.command()
@command
def merge(
    task: TaskArgument,
    source: Annotated[Path, typer.Argument(metavar="FROM", help="Another store's folder, or one shard of it.")],
    store: StoreFolder = None,
    json: Json = False,
) -> None:
    """Import retrains from another store; each shard is checked against its SHA-256 and the task."""
    from attriboard.evaluation.catalog import load_task
    from attriboard.groundtruth.build import default_store
    from attriboard.retraining.upkeep import merge_store

    live = load_task(task)
    folder = store or default_store(live)
    merged = merge_store(folder, source, live.card.fingerprint)
    if json:
        emit(
            {
                "folder": str(folder),
                "added": merged.n_added,
                "known": merged.n_known,
                "differing": merged.n_differing,
                "damaged": [str(path) for path in merged.damaged],
            }
        )
        return
    print(f"{folder}: {counted(merged.n_added, 'retrain')} added, {merged.n_known:,} were there with the same bits")
    if merged.n_differing:
        print(f"{merged.n_differing} were there with other bits, as from another kind of CPU; ours were kept")
    for path in merged.damaged:
        print(f"left out: {path} is damaged")


@app.command()
@command
def gc(
    task: TaskOption = None,
    store: StoreFolder = None,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Also remove the stores of tasks or versions that no longer exist.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    json: Json = False,
) -> None:
    """Remove unused files: damaged shards, leftovers of killed writers, shards that others contain."""
    import shutil

    from attriboard.base.errors import InputError
    from attriboard.retraining.upkeep import collect_garbage, inspect_store

    if orphans and (task or store):
        raise InputError("--orphans: looks at every store; leave TASK and --store out")
    removed: dict[Path, str] = {}
    known = _known_fingerprints() if orphans else set()
    for folder in _folders(task, store):
        removed |= collect_garbage(folder, dry_run=dry_run)
        if orphans and inspect_store(folder).fingerprint not in known:
            removed[folder] = "no registered task has this fingerprint"
            if not dry_run:
                shutil.rmtree(folder)
    if json:
        emit({"removed": {str(path): reason for path, reason in removed.items()}, "dry_run": dry_run})
        return
    for path, reason in removed.items():
        print(f"{'would remove' if dry_run else 'removed'} {path}: {reason}")
    if not removed:
        print("nothing to remove")


def _folders(task: str | None, store: Path | None) -> list[Path]:
    """The stores that a command is about.

    Raises:
        InputError: `--store` is no folder.
    """
    from attriboard.base.errors import InputError
    from attriboard.base.paths import store_root
    from attriboard.retraining.upkeep import list_stores

    if store is not None:
        if not store.is_dir():
            raise InputError(f"--store {store}: no such folder")
        return [store]
    if task is None:
        return list_stores(store_root())
    from attriboard.evaluation.catalog import load_task
    from attriboard.groundtruth.build import default_store

    return [default_store(load_task(task))]


def _known_fingerprints() -> set[str]:
    from attriboard.evaluation.catalog import load_task, task_names

    return {load_task(name).card.fingerprint for name in task_names()}


def _document(info: "StoreInfo") -> dict[str, Any]:
    return {
        "folder": str(info.folder),
        "fingerprint": info.fingerprint,
        "retrains": info.n_retrains,
        "with_parameters": info.n_with_parameters,
        "shards": info.n_shards,
        "bytes": info.n_bytes,
        "seconds": round(info.seconds, 3),
        "damaged": [str(path) for path in info.damaged],
        "leftovers": [str(path) for path in info.leftovers],
    }
