"""Where files lie, and writing them so that they are whole or not there."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `data` so that `path` either has all of it or does not change, whatever happens. `mode`: permissions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say what it was for
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A place to write a file or a folder at that takes the place of `path` once it is complete; else `path` stays.

    It has the name of `path`, in a folder beside it, so that what is larger than memory or written by a library, which
    goes by endings, can be streamed there. A folder takes the place of none, or of an empty one.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-", ignore_cleanup_errors=True) as folder:
            made = Path(folder, path.name)
            yield made
            for part in (made, *made.rglob("*")):
                if part.is_file():
                    with part.open("rb") as file:
                        os.fsync(file.fileno())
            made.replace(path)
    except OSError as error:  # which names what was written for the time being, if anything
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def cache_folder() -> Path:
    """Where downloads, stores and trained checkpoints are kept: `$ATTRIBOARD_CACHE`, or `~/.cache/attriboard`."""
    named = os.environ.get("ATTRIBOARD_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "attriboard"


def datasets_folder() -> Path:
    """Where downloaded data sets are kept: `$ATTRIBOARD_DATASETS`, or `datasets` in the cache folder.

    It has a name of its own so that an attributor's process can be told of data sets and of nothing beside them.
    """
    named = os.environ.get("ATTRIBOARD_DATASETS")
    return Path(named) if named else cache_folder() / "datasets"


def start_path(name: str, sha256: str) -> Path:
    """Where a file of pretrained weights is kept that was fetched; the digest in its name keeps versions apart.

    It is in the folder of data sets, so that isolated processes see it.
    """
    return datasets_folder() / "pretrained" / f"{sha256[:16]}-{name}"


def store_root() -> Path:
    """Where the retrains of every task are kept, one folder per task: `retrains` in the cache folder."""
    return cache_folder() / "retrains"


def leaderboard_folder() -> Path:
    """The folder of the board: `results`, `entries` and `groundtruth` lie in it.

    In an editable installation it is the checkout's, whose files the package links to: all records and bundles are
    there. A wheel has those of the embedded data set.
    """
    spec = importlib.util.find_spec("attriboard.leaderboard")
    assert spec is not None, "it is part of the package"
    assert spec.origin is not None, "it is a package with an __init__.py"
    return Path(spec.origin).resolve().parent
