"""What must not be seen in a folder that a sandbox shows: ground truth, records, the history of a checkout."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from attriboard.base.errors import FormatError, InputError
from attriboard.base.tensors import read_header

MAX_FILES = 20_000
"""More below one folder are no plugin and what it needs."""

_RECORD = re.compile(r"-[0-9a-f]{16}\.(json|verification)$")
PRUNED = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
"""Folders that programs fill; not looked through."""

_REPOSITORIES = {".git", ".hg", ".svn", ".jj"}


def withheld_below(folder: Path) -> Iterator[Path]:
    """Files and folders below a folder that hold results or ground truth, by their names and headers.

    Raises:
        InputError: too many files to look at.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        count += len(files) + len(folders)
        if count > MAX_FILES:
            raise InputError(
                f"--sandbox: more than {MAX_FILES:,} files lie below {folder}, all of which the attributor would see; "
                "move its file to a folder of its own, or take the folder off PYTHONPATH"
            )
        yield from (Path(parent, name) for name in _REPOSITORIES.intersection((*folders, *files)))
        folders[:] = [name for name in folders if name not in PRUNED | _REPOSITORIES]
        yield from (path for name in files if _is_withheld(path := Path(parent, name)))


def _is_withheld(path: Path) -> bool:
    return bool(_RECORD.search(path.name)) or (path.suffix == ".safetensors" and _is_ground_truth(path))


def _is_ground_truth(path: Path) -> bool:
    try:
        card = read_header(path).get("__metadata__", {}).get("card", "")
    except (FormatError, AttributeError):
        return False
    return "attriboard-groundtruth/" in card[:200] or "attriboard-held-out/" in card[:200]
