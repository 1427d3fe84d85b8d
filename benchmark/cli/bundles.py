"""`attriboard groundtruth list`, `pull` and `push-ready`: which bundles there are, and moving them."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attriboard.base.terminal import note, progress_bar
from attriboard.cli.options import Bundles, Questions, prepare_folder
from attriboard.cli.shell import Json, command, emit, resuming, show_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attriboard.groundtruth.listing import BundleEntry, BundleRegistry

Tasks = Annotated[list[str] | None, typer.Argument(metavar="TASK…", help="By default every task that is listed.")]


@command
def list_bundles(groundtruth: Bundles = None, json: Json = False) -> None:
    """List all bundles: size, digest, and whether each is on this machine."""
    from attriboard.groundtruth.listing import BundleRegistry

    registry = BundleRegistry(groundtruth)
    documents = [entry.model_dump(mode="json") | {"where": _where(registry, entry)} for entry in registry.entries]
    documents += [c.model_dump(mode="json") | {"kind": "held-out", "where": "its owner"} for c in registry.held_out]
    if json:
        emit(documents)
        return
    rows = [
        (d["task"], str(d["version"]), d["kind"], d.get("question", ""), f"{d['bytes']:,}" if "bytes" in d else "",
         d["sha256"][:16], d["where"], str(len(d["urls"])) if "urls" in d else "")
        for d in documents
    ]  # fmt: skip
    headings = ("task", "version", "kind", "question", "bytes", "SHA-256", "where", "URLs")
    show_table(f"Bundles of {registry.folder}", headings, rows, numeric=(1, 4, 7))


@resuming()
def pull(
    tasks: Tasks = None,
    kind: Annotated[
        Literal["groundtruth", "checkpoints", "both", "models", "start"],
        typer.Option(
            help="Which bundles of a task; models are more of the last epoch, to average scores over; a start is the "
            "weights that every retrain starts from, which comes with checkpoints and both."
        ),
    ] = "both",
    question: Questions = None,
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
        Path | None, typer.Option("--out", help="Output folder for the bundles and their list; by default the cache.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Touch no network: folders and the cache alone.")] = False,
    groundtruth: Bundles = None,
    json: Json = False,
) -> None:
    """Fetch bundles, checked against the SHA-256 and size of the list; interrupted transfers resume."""
    from attriboard.groundtruth.listing import BundleRegistry, cached_path, changing_list, write_listing

    if offline:
        os.environ["ATTRIBOARD_OFFLINE"] = "1"
    registry = BundleRegistry(groundtruth)
    # Checkpoints may be differences to the start.
    several = {"both": ("groundtruth", "checkpoints", "start"), "checkpoints": ("checkpoints", "start")}
    kinds = several.get(kind, (kind,))
    documents = []
    wanted = [entry for entry in _chosen(registry, tasks, question or [""]) if entry.kind in kinds]
    if not wanted:
        note(f"{registry.folder}: lists no bundle of kind {kind} for {', '.join(tasks or ['any task'])}")
    for entry in wanted:
        here = registry.place(entry)
        target = out / entry.file if out else here or cached_path(entry)
        with progress_bar(entry.file, "bytes") as progress:
            path = registry.pull(entry, target, source or (), progress)
            if entry.kind == "start" and not out:
                path = registry.pull(entry, cached_path(entry), progress=progress)  # where every process looks for it
        documents.append(entry.model_dump(mode="json", exclude={"urls"}) | {"path": str(path)})
    if out:
        with changing_list(out):
            there = BundleRegistry(out)
            listed = {e.key: e for e in (*there.entries, *wanted)}
            write_listing(out, listed.values(), (*there.held_out, *registry.held_out))
    if json:
        emit(documents)
        return
    for document in documents:
        print(f"{document['path']}  {document['bytes']:,} bytes  SHA-256 {document['sha256']}")


@command
def push_ready(
    tasks: Tasks = None,
    out: Annotated[Path, typer.Option("--out", help="Output folder for everything to upload.")] = Path(
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
    from attriboard.base.errors import FormatError, InputError
    from attriboard.base.paths import replacing, write_atomically
    from attriboard.checking.files import check_file
    from attriboard.groundtruth.listing import BundleRegistry, write_listing

    registry = BundleRegistry(groundtruth)
    if out.resolve() == registry.folder.resolve():
        raise InputError(f"--out {out}: is the folder that the bundles come from; name another one")
    chosen = _chosen(registry, tasks)
    if not chosen:
        raise InputError(f"{registry.folder}: lists no bundles, so there is nothing to upload")
    prepare_folder(out)
    ready: list[BundleEntry] = []
    for entry in chosen:
        path = registry.present(entry)
        report = check_file(path)
        if not report.ok:
            raise FormatError(report.errors[0].message)
        with replacing(out / entry.file) as place:
            shutil.copyfile(path, place)
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


def _chosen(
    registry: "BundleRegistry", tasks: list[str] | None, questions: "Sequence[str]" = ("all",)
) -> "list[BundleEntry]":
    """Entries of some tasks, or of all; of ground truths those of some questions.

    Of a task that is known by its name those of its present card, of others all.

    Raises:
        DataError: a task has none, or not of a question that is named.
        InputError: no such question, or no such task, not even in the list.
    """
    from attriboard.base.errors import DataError, UnknownNameError
    from attriboard.evaluation.catalog import load_task

    found: list[BundleEntry] = []
    for name in tasks or sorted({entry.task for entry in registry.entries}):
        try:
            card = load_task(name).card
        except UnknownNameError:
            mine = [entry for entry in registry.entries if entry.task == name]
            if not mine:
                raise
            found += [e for e in mine if e.kind != "groundtruth" or {"all", e.question} & set(questions)]
            continue
        asked = {one.name if one else "" for one in card.asked([text for text in questions if text != "all"])}
        mine = registry.of(card)
        every = "all" in questions
        entries = [e for e in mine if e.kind != "groundtruth" or every or e.question in asked]
        missing = asked - {entry.question for entry in mine} if tasks and not every else set()
        if missing - {""} or (tasks and not entries):
            which = "".join(f" of question {one}" for one in sorted(missing) if one)
            raise DataError(
                f"{registry.folder}: lists nothing{which} for {name} (fingerprint {card.fingerprint[:12]}…)"
            )
        found += [entry for entry in entries if entry not in found]
    return found


def _where(registry: "BundleRegistry", entry: "BundleEntry") -> str:
    place = registry.place(entry)
    if place is None:
        return "missing"
    return "here" if place.parent == registry.folder else "cache"
