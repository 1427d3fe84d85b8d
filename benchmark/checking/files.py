"""Validation of what comes from elsewhere: records, score matrices, bundles, cards, plugins, entries."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from attriboard.base.errors import AttriboardError, FormatError, InputError
from attriboard.checking.problems import Problem, Report
from attriboard.records.verifications import SUFFIX, read_verification


def check_file(path: Path, task: str | None = None) -> Report:
    """Validate a file by what its name and content claim it is.

    Args:
        path: a `.json`, `.safetensors`, `.npy`, `.yaml` or `.py` file, or the folder of an entry.
        task: for a score matrix, which task it must fit.

    Raises:
        InputError: no such file, or an ending that says nothing.
    """
    if path.is_dir():
        return _check_folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    checks: dict[str, Callable[[], Report]] = {
        ".json": lambda: _guarded("record", lambda: _check_record(path)),
        SUFFIX: lambda: _guarded("verification", lambda: read_verification(path)),
        ".yaml": lambda: _check_card(path),
        ".yml": lambda: _check_card(path),
        ".py": lambda: _check_plugin(path),
        ".safetensors": lambda: _check_tensors(path, task),
        ".npy": lambda: _check_scores(path, task),
    }
    if path.suffix not in checks:
        raise InputError(f"{path}: do not know what {path.suffix or 'no ending'} is; expected {', '.join(checks)}")
    return checks[path.suffix]()


def _guarded(kind: str, validate: Callable[[], object]) -> Report:
    try:
        validate()
    except AttriboardError as error:
        return Report(kind, (Problem("file", str(error)),))
    return Report(kind, ())


def _check_record(path: Path) -> None:
    from attriboard.records.files import read_record

    read_record(path)


def _check_folder(path: Path) -> Report:
    from attriboard.checking.entries import CARD
    from attriboard.checking.entry_check import check_entry
    from attriboard.records.published import published_folders

    if not (path / CARD).exists():
        raise InputError(f"{path}: a folder without {CARD}, so it is no entry; attriboard submit makes one")
    return check_entry(path, published_folders())


def _check_card(path: Path) -> Report:
    """A task card says what data it has; anything else is taken for a method card."""
    from attriboard.base.documents import parse_yaml, read_bounded
    from attriboard.contracts.card import MAX_BYTES
    from attriboard.evaluation.catalog import load_task
    from attriboard.records.method_card import load_method_card

    try:
        claims = parse_yaml(read_bounded(path, MAX_BYTES, "a card"))
    except (FormatError, ValueError) as error:
        return Report("card", (Problem("file", f"{path}: {error}"),))
    if isinstance(claims, dict) and not {"data", "recipe"} & claims.keys():
        return _guarded("method card", lambda: load_method_card(path))
    return _guarded("card", lambda: load_task(path))


def _check_tensors(path: Path, task: str | None) -> Report:
    """A bundle carries a card that says its format; anything else is taken for a score matrix."""
    from attriboard.groundtruth import bundle, checkpoints
    from attriboard.groundtruth.sealed import read_sealed

    try:
        form = _claimed_format(path)
    except FormatError as error:
        return Report("safetensors file", (Problem("file", str(error)),))
    if form is None:
        return _check_scores(path, task)
    if form == checkpoints.FORMAT:
        return _guarded("checkpoint bundle", lambda: read_sealed(path, checkpoints.CheckpointCard, form))
    return _guarded("ground-truth bundle", lambda: bundle.read_ground_truth(path))


def _check_scores(path: Path, task: str | None) -> Report:
    from attriboard.base.scores import read_matrix
    from attriboard.evaluation.catalog import load_task

    if task is None:
        raise InputError(f"{path}: taken for a score matrix; name the task that it is for with --task")
    live = load_task(task)
    return _guarded("score matrix", lambda: read_matrix(path, live.score_shape))


def _claimed_format(path: Path) -> str | None:
    from attriboard.base.documents import parse_json
    from attriboard.base.tensors import read_header

    try:
        metadata = read_header(path).get("__metadata__", {})
        return str(parse_json(metadata["card"]).get("format", "")) if "card" in metadata else None
    except (ValueError, AttributeError, TypeError) as error:
        raise FormatError(f"{path}: not a readable safetensors file: {error}") from error


def _check_plugin(path: Path) -> Report:
    """Import an attributor file and run the conformance suite, in a process of its own: it is somebody else's code."""
    # -P: as in a run, the current folder is not on the path.
    done = subprocess.run(
        [sys.executable, "-P", "-m", "attriboard.checking.conformance", str(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    printed = done.stdout.strip().splitlines()
    if done.returncode == 0 and printed and printed[-1].startswith("["):
        return Report("attributor", tuple(Problem(**failure) for failure in json.loads(printed[-1])))
    lines = done.stderr.strip().splitlines()
    message = re.sub(r"^attriboard\.errors\.\w+: ", "", lines[-1]) if lines else "importing it ended the process"
    return Report("attributor", (Problem("import", message),))
