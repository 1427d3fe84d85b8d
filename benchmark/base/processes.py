"""Other Python processes, and files that are run for what they define.

A process is started as a command, never forked and never by importing the caller's script, so that a script needs no
`if __name__ == "__main__"`, and a notebook has nothing to import. It finds modules where its parent finds them.

A file that defines a task may also attribute or train at its top level, as the examples of the documents do. Where it
is run for the task, it is run up to there.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from attriboard.base.errors import InputError

_BOOT = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_loading: list[Path] = []


def python_command(module: str, *arguments: str) -> list[str]:
    """The command that runs a module as `python -m` does, with this process's module search path.

    Raises:
        InputError: nobody knows which program this interpreter is.
    """
    if not sys.executable:
        raise InputError("sys.executable is not set, so that no other Python process can be started")
    path = json.dumps([str(Path(entry or ".").absolute()) for entry in sys.path])
    # -P: nothing in the working folder stands before the standard library.
    return [sys.executable, "-P", "-c", _BOOT, path, module, *arguments]


class WorkReachedError(BaseException):
    """A file that is run for what it defines begins work; no `except Exception` in it stops that."""


def begin_work() -> None:
    """Called where retraining and attribution begin; ends the run of a file that is run for what it defines."""
    if _loading:
        raise WorkReachedError


@contextlib.contextmanager
def definitions_only(path: Path) -> Iterator[None]:
    """Run a file up to where it begins work of its own.

    Args:
        path: the file.
    """
    _loading.append(path)
    try:
        with contextlib.suppress(WorkReachedError):
            yield
    finally:
        _loading.pop()
