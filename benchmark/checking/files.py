"""Validation of what comes from elsewhere: records, score matrices, bundles, cards, plugins, entries."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from attriboard.base.errors import AttriboardError, FormatError, InputError
from attriboard.checking.problems import Problem, Report
from attriboard.records.verifications import SUFFIX, read_verification

KINDS = {
    "attributor": ("attributor",),
    "record": ("record", "verification"),
    "scores": ("score matrix",),
    "bundle": ("ground-truth bundle", "checkpoint bundle", "start bundle"),
    "card": ("card", "method card"),
    "entry": ("entry",),
}
"""What the command line calls a kind → what a report calls it."""


def check_file(path: Path, task: str | None = None) -> Report:
    """Validate a file by what its name and content claim it is.

    Args:
        path: a `.json`, `.safetensors`, `.npy`, `.yaml` or `.py` file, or the folder of an entry.
        task: for a score matrix, which task it must fit.

    Raises:
        InputError: no such file, or an ending that says nothing.
    """
    from attriboard.evaluation.catalog import load_task
    from attriboard.groundtruth import bundle, checkpoints, starts
    from attriboard.groundtruth.sealed import read_sealed
    from attriboard.records.files import read_record
    from attriboard.records.method_card import load_method_card

    try:
        kind = kind_of(path)
    except FormatError as error:
        return Report(f"{path.suffix.lstrip('.')} file", (Problem("file", str(error)),))
    if kind == "attributor":
        return _check_plugin(path)
    if kind == "entry":
        return _check_entry(path)
    if kind == "score matrix":
        return _check_scores(path, task)
    checks: dict[str, Callable[[], object]] = {
        "record": lambda: read_record(path),
        "verification": lambda: read_verification(path),
        "method card": lambda: load_method_card(path),
        "card": lambda: load_task(path),
        "ground-truth bundle": lambda: bundle.read_ground_truth(path),
        "checkpoint bundle": lambda: read_sealed(path, checkpoints.CheckpointCard, checkpoints.FORMAT),
        "start bundle": lambda: starts.read_start(path),
    }
    return _guarded(kind, checks[kind])


def kind_of(path: Path) -> str:
    """What a file is by its name, and where the name leaves it open by its content, which is not validated.

    Raises:
        InputError: no such file, a folder that is no entry, or an ending that says nothing.
        FormatError: the content can be read as nothing.
    """
    from attriboard.checking.entries import CARD

    if path.is_dir():
        if not (path / CARD).exists():
            raise InputError(f"{path}: a folder without {CARD}, so it is no entry; attriboard submit makes one")
        return "entry"
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    named: dict[str, str | Callable[[Path], str]] = {
        ".json": "record",
        SUFFIX: "verification",
        ".yaml": _kind_of_card,
        ".yml": _kind_of_card,
        ".py": "attributor",
        ".safetensors": _kind_of_tensors,
        ".npy": "score matrix",
    }
    if path.suffix not in named:
        known = f"its ending is {path.suffix}" if path.suffix else "it has no ending"
        raise InputError(f"{path}: {known}, which says nothing of what it is; expected {', '.join(named)}")
    kind = named[path.suffix]
    return kind if isinstance(kind, str) else kind(path)


def wrong_kind(path: Path, kind: str) -> Report | None:
    """A report that says which kind a file is where it is none of `KINDS[kind]`.

    Raises:
        InputError: see `kind_of`.
    """
    try:
        found = kind_of(path)
    except FormatError:
        return None  # the check says what is wrong with it
    if found in KINDS[kind]:
        return None
    what, asked = (f"{'an' if word[0] in 'aeiou' else 'a'} {word}" for word in (found, kind))
    return Report(found, (Problem("kind", f"is {what}, not {'scores' if kind == 'scores' else asked}"),))


def _guarded(kind: str, validate: Callable[[], object]) -> Report:
    try:
        validate()
    except AttriboardError as error:
        return Report(kind, (Problem("file", str(error)),))
    return Report(kind, ())


def _check_entry(path: Path) -> Report:
    from attriboard.checking.entry_check import check_entry
    from attriboard.records.published import published_folders

    return check_entry(path, published_folders())


def _check_scores(path: Path, task: str | None) -> Report:
    from attriboard.base.scores import read_matrix
    from attriboard.evaluation.catalog import load_task

    if task is None:
        raise InputError(f"{path}: taken for a score matrix; name the task that it is for with --task")
    shape = load_task(task).score_shape
    return _guarded("score matrix", lambda: read_matrix(path, shape))


def _kind_of_card(path: Path) -> str:
    """A card says what data it has; anything else is taken for a method card."""
    from attriboard.base.documents import parse_yaml, read_bounded
    from attriboard.contracts.card import MAX_BYTES

    try:
        claims = parse_yaml(read_bounded(path, MAX_BYTES, "a card"))
    except (FormatError, ValueError):
        return "card"  # the check says what is wrong with it
    return "method card" if isinstance(claims, dict) and not {"data", "recipe"} & claims.keys() else "card"


def _kind_of_tensors(path: Path) -> str:
    """A bundle carries a card that says its format; anything else is taken for a score matrix."""
    from attriboard.groundtruth import checkpoints, starts

    form = _claimed_format(path)
    if form is None:
        return "score matrix"
    known = {checkpoints.FORMAT: "checkpoint bundle", starts.FORMAT: "start bundle"}
    return known.get(form, "ground-truth bundle")


def _claimed_format(path: Path) -> str | None:
    from attriboard.base.documents import parse_json
    from attriboard.base.tensors import read_header

    try:
        metadata = read_header(path, also=("BF16",)).get("__metadata__", {})
        return str(parse_json(metadata["card"]).get("format", "")) if "card" in metadata else None
    except (ValueError, AttributeError, TypeError) as error:
        raise FormatError(f"{path}: not a readable safetensors file: {error}") from error


def _check_plugin(path: Path) -> Report:
    """Import an attributor file and run the conformance suite, in a process of its own: it is foreign code."""
    with tempfile.TemporaryDirectory(prefix="attriboard-check-") as folder:
        result = Path(folder, "result.json")
        # -P: as in a run, the current folder is not on the path.
        done = subprocess.run(
            [sys.executable, "-P", "-m", "attriboard.checking.conformance", str(path), str(result)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0 and result.is_file():
            found = json.loads(result.read_bytes())
            errors, warnings = (tuple(Problem(**one) for one in found[name]) for name in ("errors", "warnings"))
            return Report("attributor", errors, warnings)
    lines = done.stderr.strip().splitlines()
    message = lines[-1] if lines else "importing or running it ended the process"
    return Report("attributor", (Problem("import", message),))
