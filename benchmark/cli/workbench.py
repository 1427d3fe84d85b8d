"""What commands on a task need before they can start: the task, its ground truth, its checkpoints, a job."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.shell import note, progress_bar

if TYPE_CHECKING:
    from attriboard.attribution.job import Job
    from attriboard.attribution.limits import Limits
    from attriboard.contracts import Task
    from attriboard.evaluation import Grader
    from attriboard.groundtruth.registry import BundleRegistry
    from attriboard.records import AnyRecord
    from attriboard.retraining.executors import Executor

__all__ = [
    "AttributorArgument",
    "AttributorFile",
    "Bundles",
    "Cluster",
    "Device",
    "FigureStem",
    "Fixed",
    "MemoryLimit",
    "OutDir",
    "Seed",
    "StoreFolder",
    "TaskArgument",
    "Threads",
    "TimeLimit",
    "Workbench",
    "Workers",
    "chosen_attributor",
    "executor",
    "limits",
    "open_grader",
    "parse_assignments",
    "prepare_folder",
]

TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="Name of a task, or path of a .yaml card.")]
AttributorArgument = Annotated[str, typer.Argument(metavar="ATTRIBUTOR", help="Name, or path of a .py file.")]
AttributorFile = Annotated[
    Path | None, typer.Option("--attributor", metavar="FILE", help="A .py file with an Attributor subclass.")
]
OutDir = Annotated[Path, typer.Option("--out", help="Folder that gets the records.", file_okay=False)]
FigureStem = Annotated[Path | None, typer.Option(help="Figure without its ending; by default beside the records.")]
Bundles = Annotated[
    Path | None,
    typer.Option(
        "--groundtruth",
        help="Folder of bundles with a registry.json; by default the published ones.",
        exists=True,
        file_okay=False,
    ),
]
Fixed = Annotated[
    list[str] | None, typer.Option("--hp", metavar="NAME=VALUE", help="A hyperparameter's value; repeatable.")
]
Seed = Annotated[int, typer.Option(help="For the attributor's randomness.", min=0, max=2**53)]
Device = Annotated[str, typer.Option(help="Where the attributor's tensors live.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the attributor; by default all cores.", min=1)]
StoreFolder = Annotated[
    Path | None,
    typer.Option(
        "--store",
        help="Folder with the task's retrains; by default its own in ~/.cache/attriboard/retrains, which all share.",
        file_okay=False,
    ),
]
Workers = Annotated[int | None, typer.Option(help="Processes that retrain; by default one for each core.", min=1)]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--executor", metavar="ADDRESS", help="Retrain on the workers of the dask scheduler tcp://host:port instead."
    ),
]
TimeLimit = Annotated[
    float | None, typer.Option(help="Seconds for the attributor's process; more is a failed record.", min=1)
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Resident memory of the attributor's process and all that it starts, as in 800M or 4G; more is a "
        "failed record.",
    ),
]

MIN_MEMORY = 256 << 20  # bytes; what a process with PyTorch and a small task takes


class Workbench:
    """A task with everything that running attributors on it takes; opened before anything slow begins.

    Args:
        task: name or card.
        groundtruth: folder of bundles; the published ones by default.
        graded: whether there must be ground truth; else it is taken where there is some.
        workers: `--workers`, for whatever is retrained.
        cluster: `--executor`, for the same.

    Raises:
        InputError: no such task or ground truth, or see `executor`.
    """

    def __init__(
        self,
        task: str,
        groundtruth: Path | None,
        *,
        graded: bool = True,
        workers: int | None = None,
        cluster: str | None = None,
    ) -> None:
        from attriboard.catalog import load_task
        from attriboard.groundtruth.registry import BundleRegistry

        self.task: Task = load_task(task)
        self._workers, self._cluster = workers, cluster
        self.executor()  # what is wrong with it is told now, not after hours of attributing
        self.registry = BundleRegistry(groundtruth)
        here = graded or self.registry.find(self.task.card, "groundtruth") is not None
        self.grader_if_any: Grader | None = open_grader(self.task, self.registry) if here else None

    @property
    def grader(self) -> "Grader":
        """The task's ground truth, of a bench that has it for certain."""
        assert self.grader_if_any is not None, "opened with graded=False"
        return self.grader_if_any

    def executor(self, heartbeat: Callable[[str], None] = note) -> "Executor":
        """Where this command retrains; see the function."""
        return executor(self._workers, self._cluster, heartbeat)

    def records(self, folder: Path) -> "list[AnyRecord]":
        """Finished records of the task below a folder of results."""
        from attriboard.records import read_records

        return read_records(folder / self.task.card.name) if (folder / self.task.card.name).is_dir() else []

    @cached_property
    def published_records(self) -> "list[AnyRecord]":
        """Records of the task that come with this installation; they are many, and read once."""
        from attriboard.leaderboard.board import published_results

        return self.records(published_results())

    def job(
        self,
        attributor: str,
        configurations: Sequence[dict[str, Any]],
        *,
        selectors: Sequence[str] = (),
        seed: int = 0,
        device: str = "cpu",
        threads: int | None = None,
    ) -> "Job":
        """A job on this task, with its checkpoints: published, cached, or trained now."""
        from attriboard.attribution.job import Job, TaskSpec
        from attriboard.catalog import attributor_spec, selector_spec, spectrum_donors

        return Job(
            task=TaskSpec.of(self.task),
            attributor=attributor_spec(attributor),
            configurations=tuple(configurations),
            checkpoints=self._checkpoints().resolve(),
            device=device,
            seed=seed,
            threads=threads or len(os.sched_getaffinity(0)),
            selectors=tuple(selector_spec(name) for name in selectors),
            donors=spectrum_donors() if selectors else {},
        )

    def _checkpoints(self) -> Path:
        from attriboard.groundtruth.build import ensure_checkpoints

        if self.registry.find(self.task.card, "checkpoints"):
            return ensure_checkpoints(self.task, self.registry, executor=self.executor)
        note(f"no published checkpoints of {self.task.card.name}: using this machine's own, trained where absent")
        with progress_bar(f"checkpoints of {self.task.card.name}") as progress:
            return ensure_checkpoints(
                self.task, self.registry, executor=lambda: self.executor(progress.say), progress=progress
            )


def open_grader(task: "Task", registry: "BundleRegistry") -> "Grader":
    """The task's ground truth, checked, as a grader."""
    from attriboard.evaluation import Grader
    from attriboard.groundtruth.bundle import read_ground_truth

    if (entry := registry.find(task.card, "groundtruth")) and registry.place(entry) is None:
        with progress_bar(f"{entry.file}, bytes") as progress:
            registry.obtain(task.card, "groundtruth", progress)
    return Grader(read_ground_truth(registry.locate(task.card, "groundtruth")))


def executor(
    n_workers: int | None = None, cluster: str | None = None, heartbeat: Callable[[str], None] = note
) -> "Executor":
    """Where retraining runs: local processes with one thread each, or a cluster.

    Args:
        n_workers: `--workers`.
        cluster: `--executor`.
        heartbeat: told how the cluster is.

    Raises:
        InputError: both are given, or the cluster cannot be used: no such address, no scheduler that answers, or
            no dask.distributed.
    """
    from attriboard.errors import InputError

    if cluster is None:
        from attriboard.retraining.executors import LocalProcesses

        return LocalProcesses(n_workers)
    if n_workers is not None:
        raise InputError(f"--workers {n_workers}: with --executor, the cluster says how many workers there are")
    from attriboard.retraining.cluster import DaskCluster

    where = DaskCluster(cluster, heartbeat)
    where.reach()
    return where


def prepare_folder(out: Path) -> None:
    """Make the folder that gets the records, before the work that they come from is done.

    Raises:
        InputError: that is not possible, or nothing can be written there.
    """
    from attriboard.errors import InputError

    try:
        out.mkdir(parents=True, exist_ok=True)
        writable = os.access(out, os.W_OK | os.X_OK)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be made: {error.strerror}") from error
    if not writable:
        raise InputError(f"--out {out}: not writable")


def chosen_attributor(name: str, file: Path | None) -> str:
    """The one attributor that was given, as a name or as a file.

    Raises:
        InputError: none was given, or both.
    """
    from attriboard.errors import InputError

    if bool(name) == bool(file):
        raise InputError("attributor: give one, as a name or as --attributor FILE")
    return name or str(file)


def limits(time_limit: float | None, memory_limit: str | None) -> "Limits":
    """The limits of an attributor's process.

    Raises:
        InputError: the memory limit is no size, or so small that no process could start under it.
    """
    import re

    from attriboard.attribution.limits import Limits
    from attriboard.errors import InputError

    if memory_limit is None:
        return Limits(time_limit)
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([MGT])(?:i?B)?", memory_limit.strip(), re.I | re.A)
    if match is None:
        raise InputError(f"--memory-limit {memory_limit}: must be a size in M, G or T, as in 800M or 4G")
    size = int(float(match[1]) * 2 ** {"M": 20, "G": 30, "T": 40}[match[2].upper()])
    if size < MIN_MEMORY:
        raise InputError(f"--memory-limit {memory_limit}: PyTorch alone takes {MIN_MEMORY >> 20}M; give more")
    return Limits(time_limit, size)


def parse_assignments(assignments: Sequence[str]) -> dict[str, str]:
    """Read `NAME=VALUE` texts.

    Raises:
        InputError: no `=`, or a name given twice.
    """
    from attriboard.errors import InputError

    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals and value):
            raise InputError(f"--hp {assignment}: must be NAME=VALUE, as in --hp regularization=1e-3")
        if name in values:
            raise InputError(f"--hp {assignment}: {name} is given twice")
        values[name] = value
    return values
