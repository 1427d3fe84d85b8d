"""`attriboard groundtruth build`, `plan` and `epochs`: what is retrained, and what that takes."""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.base.errors import InputError
from attriboard.base.terminal import note, progress_bar
from attriboard.cli.options import Questions, Retraining, Sources, TaskArgument, open_workspace, prepare_folder
from attriboard.cli.shell import DataDir, Json, command, emit, resuming, show_table

if TYPE_CHECKING:
    from attriboard.contracts.question import Question
    from attriboard.evaluation.workspace import Workspace
    from attriboard.groundtruth.listing import BundleEntry, BundleRegistry
    from attriboard.groundtruth.work import Expected
    from attriboard.retraining.store import RetrainStore

N_TRIED = 2
"""Retrains after which the time that was expected is compared with the time that they took."""

Tasks = Annotated[
    list[str], typer.Argument(metavar="TASK…", help="Names of tasks, or paths of .yaml cards or of my_task.py[:name].")
]
Masks = Annotated[int | None, typer.Option(help="Number of subsets; by default the card's.", min=3, max=999_999)]
Repeats = Annotated[int | None, typer.Option(help="Seeds for each; by default the card's.", min=1)]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="Where models are trained: cpu, cuda, cuda:1 …; an estimate is printed first.",
    ),
]
HeldOutMasks = Annotated[
    int | None,
    typer.Option(
        "--held-out",
        help="Build this many secret held-out masks instead. Only you can read their file; registry.json lists its "
        "SHA-256.",
        min=3,
        max=999_999,
    ),
]


@dataclass(frozen=True)
class _Build:
    """One task's bundles, and where they go."""

    workspace: "Workspace"
    registry: "BundleRegistry"
    shards: "RetrainStore"
    asked: "tuple[Question | None, ...]"
    n_masks: int | None
    n_repeats: int | None

    @property
    def name(self) -> str:
        return self.workspace.task.card.name

    def run(self) -> "list[BundleEntry]":
        """The checkpoints first: methods can be run on them while the ground truth is still being trained."""
        models = [self._models()] if None in self.asked else []
        return [*models, *map(self._truth, self.asked)]

    @cached_property
    def expected(self) -> "Expected":
        """What it computes, and how long that should take."""
        from attriboard.groundtruth.work import expected_work

        return expected_work(self.workspace.task, self.asked, self.n_masks, self.n_repeats)

    def try_first(self) -> None:
        """Train the first models, and say what they and all others take; nothing where that is known already."""
        from attriboard.groundtruth.estimate import missing_requests
        from attriboard.retraining.engine import retrain

        live, where = self.workspace.task, self.workspace.executor()
        missing = list(missing_requests(live, self.shards, self.expected.requests).values())
        if len(missing) <= N_TRIED:
            return
        note(f"{self.name}: {self.expected}")
        first = missing[:N_TRIED]
        retrain(live, first, self.shards, where)
        taken = self.shards.seconds([request.digest(live.card.fingerprint) for request in first])
        note(f"{self.name}: {self.expected.after(first, taken, missing[N_TRIED:], where.n_workers)}")

    def _models(self) -> "BundleEntry":
        from attriboard.groundtruth.build import build_checkpoints

        live = self.workspace.task
        with progress_bar(f"checkpoints of {self.name}") as progress:
            path = self.registry.folder / self.registry.file_name(live.card, "checkpoints")
            where = self.workspace.executor(progress.say)
            build_checkpoints(live, path, self.shards, executor=where, progress=progress)
        return self.registry.register(live.card, "checkpoints")

    def _truth(self, question: "Question | None") -> "BundleEntry":
        from attriboard.groundtruth.build import build_ground_truth
        from attriboard.groundtruth.opening import keep_own_truth

        live, size = self.workspace.task, self.workspace.task.card.size_of(question)
        path = self.registry.folder / self.registry.file_name(live.card, "groundtruth", question)
        with progress_bar(f"ground truth of {self.name}" + (f", {question.title}" if question else "")) as progress:
            build_ground_truth(
                live,
                path,
                self.shards,
                question=question,
                n_masks=self.n_masks,
                n_repeats=self.n_repeats,
                executor=self.workspace.executor(progress.say),
                progress=progress,
            )
        entry = self.registry.register(live.card, "groundtruth", question)
        sizes = self.n_masks or size.n_masks, self.n_repeats or size.n_repeats
        keep_own_truth(live.card, path, *sizes, question)
        return entry


@resuming()
def build(
    tasks: Tasks,
    out: Annotated[
        Path, typer.Option("--out", help="Output folder for the bundles, which its registry.json lists.")
    ] = Path("attriboard-groundtruth"),
    masks: Masks = None,
    repeats: Repeats = None,
    question: Questions = None,
    device: Device = None,
    held_out: HeldOutMasks = None,
    held_out_file: Annotated[
        Path | None,
        typer.Option("--held-out-file", help="That file; by default attriboard-held-out/TASK.safetensors."),
    ] = None,
    retraining: Retraining = Retraining(),
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Retrain on every mask and write the bundle and the checkpoints; resumes if interrupted.

    The bundles of other questions than the usual one come without checkpoints, which are the same for all.
    """
    from attriboard.groundtruth.listing import BundleRegistry

    if held_out is None and held_out_file is not None:
        raise InputError(f"--held-out-file {held_out_file}: is for held-out masks; say how many with --held-out")
    _use_device(device, retraining)
    registry = BundleRegistry(out)
    if held_out is not None:
        if masks is not None:
            raise InputError(f"--masks {masks} with --held-out {held_out}: --held-out is the number of masks")
        if len(tasks) > 1:
            raise InputError(f"--held-out with {', '.join(tasks)}: a file of secrets is of one task; name one")
        if question:
            raise InputError(f"--held-out with --question {question[0]}: held-out masks are random halves")
        _build_held_out(_workspace(tasks[0], registry, retraining), registry, held_out, repeats, held_out_file, json)
        return
    # All are opened before anything is trained: a misspelled task is found now.
    builds = [_opened(task, registry, question, retraining, masks, repeats) for task in tasks]
    prepare_folder(out)
    documents = []
    for one in builds:
        if device is not None:
            one.try_first()
        documents.append(_listed(one.name, one.run(), out, json))
    if json:
        emit(documents[0] if len(documents) == 1 else documents)


@command
def plan(
    tasks: Tasks,
    masks: Masks = None,
    repeats: Repeats = None,
    question: Questions = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say what `build` would compute and about how long it would take on accelerators; trains nothing."""
    from attriboard.groundtruth.work import CARDS, expected_work

    found = {}
    for task in tasks:
        live = open_workspace(task, Sources(groundtruth=None)).task
        found[live.card.name] = expected_work(live, live.card.asked(question or ()), masks, repeats)
    if json:
        documents = [{"task": name, **expected.document()} for name, expected in found.items()]
        emit(documents[0] if len(documents) == 1 else documents)
        return
    headings = ("task", "retrains", "TFLOP, all", "memory of one", *(card.name for card in CARDS))
    rows = [(name, *expected.cells()) for name, expected in found.items()]
    title = "What a ground truth takes: one retrain at a time, at a quarter of an accelerator's peak"
    show_table(title, headings, rows, numeric=range(1, len(headings)))


@resuming()
def epochs(
    task: TaskArgument,
    epoch: Annotated[
        list[int],
        typer.Argument(metavar="EPOCH…", help="Epochs after which models are kept; the last one is always among them."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Output folder for the bundles and a registry.json.")],
    sources: Sources = Sources(),
    retraining: Retraining = Retraining(),
    json: Json = False,
) -> None:
    """Train a task's models again and keep them after earlier epochs, next to a copy of its ground truth.

    Commands that take --groundtruth find both in that folder, so a method can be run on any of these epochs:
    attriboard sweep TASK METHOD --grid epoch=1,2,3 --groundtruth DIR
    """
    from attriboard.groundtruth.build import open_store
    from attriboard.groundtruth.listing import BundleRegistry
    from attriboard.groundtruth.other_models import build_epochs

    workspace = open_workspace(task, sources, retraining=retraining)
    prepare_folder(out)
    bundles = workspace.bundles
    bundles.start()
    name = workspace.task.card.name
    with progress_bar(f"models of {name}") as progress:
        entries = build_epochs(
            bundles,
            BundleRegistry(out),
            epoch,
            open_store(workspace.task, retraining.store),
            executor=lambda: workspace.executor(progress.say),
            progress=progress,
        )
    document = _listed(name, entries, out, json)
    if json:
        emit(document)


def _listed(name: str, entries: "list[BundleEntry]", folder: Path, json: bool) -> dict[str, Any]:
    """A task's bundles as a document, and on the terminal where no document is asked for."""
    if not json:
        for entry in entries:
            print(f"{folder / entry.file}  {entry.bytes:,} bytes  SHA-256 {entry.sha256}")
    return {"task": name, "bundles": [entry.model_dump(mode="json") for entry in entries], "folder": str(folder)}


def _use_device(device: str | None, retraining: Retraining) -> None:
    """Let every process that trains on this machine find the device."""
    if device is None:
        return
    if retraining.cluster is not None:
        raise InputError(
            f"--device {device} with --executor: a cluster's workers train; set ATTRIBOARD_DEVICE in their environment"
        )
    from attriboard.retraining.device import VARIABLE, usable_device

    usable_device(device, f"--device {device}")  # what is wrong with it is found now
    os.environ[VARIABLE] = device


def _workspace(task: str, registry: "BundleRegistry", retraining: Retraining) -> "Workspace":
    """The task; weights that its retrains start from may be in the folder that gets its bundles."""
    from attriboard.groundtruth.opening import open_bundles

    workspace = open_workspace(task, Sources(groundtruth=None), retraining=retraining)
    open_bundles(workspace.task, registry.folder, workspace.display).start()
    return workspace


def _opened(
    task: str,
    registry: "BundleRegistry",
    question: Questions,
    retraining: Retraining,
    masks: int | None,
    repeats: int | None,
) -> _Build:
    from attriboard.groundtruth.build import check_question, open_store
    from attriboard.retraining.choosing import describe_training

    workspace = _workspace(task, registry, retraining)
    live = workspace.task
    asked = tuple(live.card.asked(question or ()))
    for one in asked:
        check_question(live, one)
    shards = open_store(live, retraining.store)
    for path in shards.damaged:
        note(f"{path}: damaged shard set aside; its retrains are done again")
    note(f"retrains are kept in {shards.folder}")
    note(f"{live.card.name} {describe_training(live)}")
    return _Build(workspace, registry, shards, asked, masks, repeats)


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
