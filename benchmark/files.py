"""Writing files that are whole or not there."""

import os
import tempfile
from pathlib import Path

__all__ = ["cache_folder", "store_root", "write_atomically"]


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` either has all of it or does not change, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say what it was for
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def cache_folder() -> Path:
    """Where downloads, stores and trained checkpoints are kept: `$ATTRIBOARD_CACHE`, or `~/.cache/attriboard`."""
    named = os.environ.get("ATTRIBOARD_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "attriboard"


def store_root() -> Path:
    """Where the retrains of every task are kept, one folder per task: `retrains` in the cache folder."""
    return cache_folder() / "retrains"
