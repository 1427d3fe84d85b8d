"""The offline mirror: the directory that the environment variable ATTRIBOARD_DATA names."""

import os
from pathlib import Path

from attriboard.base.errors import DataError


def mirror_directory() -> Path | None:
    """The mirror, or `None` where the variable is not set.

    Raises:
        DataError: ATTRIBOARD_DATA names no directory.
    """
    value = os.environ.get("ATTRIBOARD_DATA")
    if not value:
        return None
    directory = Path(value).expanduser()
    if not directory.is_dir():
        raise DataError(
            f"ATTRIBOARD_DATA = {value!r}: must be an existing directory; correct it, or unset it to use other sources"
        )
    return directory
