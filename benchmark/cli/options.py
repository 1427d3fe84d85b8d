"""Options that several commands share, each written once, and the workspace that they describe."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from attriboard.base.terminal import Terminal
from attriboard.cli.shell import DataDir

if TYPE_CHECKING:
    from attriboard.attribution.limits import Limits
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import Variant
    from attriboard.scoring.removal import Direction

Word = TypeVar("Word", bound=str)

TaskArgument = Annotated[
    str, typer.Argument(metavar="TASK", help="Name of a task, or path of a .yaml card or of my_task.py[:name].")
]
MethodArgument = Annotated[
    str, typer.Argument(metavar="METHOD", help="Name of an attributor, or path of a .py file that defines one.")
]
Methods = Annotated[
    list[str], typer.Argument(metavar="METHOD…", help="Names of attributors, or paths of .py files; any number.")
]
OutDir = Annotated[Path, typer.Option("--out", help="Output folder for the records.", file_okay=False)]
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
Questions = Annotated[
    list[str] | None,
    typer.Option(
        "--question",
        metavar="NAME|all",
        help="What is removed, and under which seeds: 1pct-same, 10pct-fresh, one-same, …; all: every question in the "
        "task's card; repeatable. By default the usual question: random halves, fresh seeds.",
    ),
]
Fixed = Annotated[
    list[str] | None, typer.Option("--hp", metavar="NAME=VALUE", help="A hyperparameter's value; repeatable.")
]
Seed = Annotated[int, typer.Option(help="For the attributor's randomness.", min=0, max=2**53)]
Parameters = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Attribute only parameters whose names fit, such as 'head.*'; repeatable."),
]
Device = Annotated[str, typer.Option(help="Device of the attributor's tensors, such as cpu or cuda.")]
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
    float | None,
    typer.Option(help="Seconds for the attributor's process; exceeding them is recorded as a failure.", min=1),
]
MemoryLimit = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Resident memory of the attributor's process and all that it starts, as in 800M or 4G; exceeding it is "
        "recorded as a failure.",
    ),
]
Log = Annotated[
    Path | None,
    typer.Option("--log", help="Append everything that the attributor prints to this file.", dir_okay=False),
]
SandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox/--no-sandbox",
        help="Run the attributor where it sees no ground truth, results, home, network or other process; needs "
        "bubblewrap or crun.",
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", help="Retrains of every subset.", min=1, max=1000)]
DirectionOption = Annotated[
    str, typer.Option("--direction", metavar="helpful|harmful", help="Which examples are removed.")
]
Balanced = Annotated[bool, typer.Option("--balanced", help="Remove the same share of every class.")]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="default|selected|oracle", help="Repeatable; by default all three."),
]

RESULTS = Path("attriboard-results")  # where records are written unless --out says otherwise
MIN_MEMORY = 256 << 20  # bytes; what a process with PyTorch and a small task takes


def prepare_folder(folder: Path, option: str = "--out") -> None:
    """Make the folder that gets what a command makes, before the work that this comes from is done.

    Args:
        folder: which.
        option: the option that names it.

    Raises:
        InputError: that is not possible, or nothing can be written there.
    """
    from attriboard.base.errors import InputError

    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise InputError(f"{option} {folder}: cannot be made: {error.strerror}") from error
    if not writable:
        raise InputError(f"{option} {folder}: not writable")


def prepare_file(path: Path | None, option: str) -> None:
    """Make the folder of a file, where one was named; see `prepare_folder`.

    Raises:
        InputError: it cannot be made, nothing can be written there, or the file would take a folder's place.
    """
    from attriboard.base.errors import InputError

    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder; name a file in it")
    prepare_folder(path.parent, option)


def prepare_figure(stem: Path | None) -> None:
    """Make the folder of a figure that is named without its ending; see `prepare_folder`."""
    if stem is not None:
        prepare_folder(stem.parent, "--figure")


def chosen_variants(
    given: Sequence[str] | None, known: "tuple[Variant, ...]" = ("default", "selected", "oracle")
) -> "tuple[Variant, ...]":
    """Variants by name, in their usual order; by default all.

    Raises:
        InputError: an unknown one.
    """
    from attriboard.base.errors import InputError

    if unknown := sorted(set(given or ()) - set(known)):
        raise InputError(f"--variant {', '.join(unknown)}: must be among {', '.join(known)}")
    return tuple(variant for variant in known if not given or variant in given)


def one_of(option: str, text: str, words: tuple[Word, ...]) -> Word:
    """The word of an option, as the type of its alternatives.

    Raises:
        InputError: another word.
    """
    from attriboard.base.errors import InputError

    for word in words:
        if text == word:
            return word
    raise InputError(f"{option} {text}: must be {' or '.join(words)}")


def checked_direction(text: str) -> "Direction":
    """`helpful` or `harmful`; see `one_of`."""
    from attriboard.scoring.removal import DIRECTIONS

    return one_of("--direction", text, DIRECTIONS)


def limits(time_limit: float | None, memory_limit: str | None) -> "Limits":
    """The limits of an attributor's process.

    Raises:
        InputError: the memory limit is no size, or so small that no process could start under it.
    """
    import re

    from attriboard.attribution.limits import Limits
    from attriboard.base.errors import InputError

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
    from attriboard.base.errors import InputError

    values: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals and value):
            raise InputError(f"--hp {assignment}: must be NAME=VALUE, as in --hp regularization=1e-3")
        if name in values:
            raise InputError(f"--hp {assignment}: {name} is given twice")
        values[name] = value
    return values


@dataclass(frozen=True)
class Sources:
    """Where ground truth and data come from."""

    groundtruth: Bundles = None
    data_dir: DataDir = None


@dataclass(frozen=True)
class Machine:
    """On what an attributor is run."""

    device: Device = "cpu"
    threads: Threads = None
    time_limit: TimeLimit = None
    memory_limit: MemoryLimit = None
    log: Log = None
    sandbox: SandboxOption = False


@dataclass(frozen=True)
class Untrusted(Machine):
    """On what an attributor is run whose code is other people's."""

    sandbox: SandboxOption = True


@dataclass(frozen=True)
class Process(Machine):
    """How an attributor is run."""

    seed: Seed = 0
    parameters: Parameters = None


@dataclass(frozen=True)
class Retraining:
    """Where models are retrained, and where retrains are kept."""

    store: StoreFolder = None
    workers: Workers = None
    cluster: Cluster = None


def open_workspace(
    task: "str | Path",
    sources: Sources = Sources(),
    process: Process = Process(),
    retraining: Retraining = Retraining(),
    *,
    isolated: bool = True,
) -> "Workspace":
    """A workspace that reports to the terminal; see `Workspace` for `isolated`."""
    from attriboard.evaluation.workspace import Workspace

    return Workspace(
        task,
        sources.groundtruth,
        limits=limits(process.time_limit, process.memory_limit),
        isolated=isolated,
        sandbox=process.sandbox,
        log=process.log,
        seed=process.seed,
        parameters=process.parameters or (),
        device=process.device,
        threads=process.threads,
        workers=retraining.workers,
        cluster=retraining.cluster,
        display=Terminal(),
    )
