"""Other Python processes, and scripts whose classes they need.

A process is started as a command, never forked and never by importing the caller's script, so that a script needs no
`if __name__ == "__main__"`, and a notebook has nothing to import. It finds modules where its parent finds them.

A class that is defined in the script itself is got by running the script under another name, up to where it begins work
of its own, which is always after the class is defined.
"""

import contextlib
import io
import json
import sys
from pathlib import Path
from types import ModuleType

from attriboard.base.errors import InputError

SCRIPT = "__mp_main__"
"""Name under which a script is run for its classes, as `multiprocessing` calls it: not `__main__`."""

_BOOT = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_loading: list[Path] = []


class WorkReachedError(BaseException):
    """A script that is run for its classes begins work; no `except Exception` of the script's stops it."""


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


def begin_work() -> None:
    """Called where retraining and attribution begin; ends a script that is run for its classes only."""
    if _loading:
        raise WorkReachedError


def load_script(path: Path) -> ModuleType:
    """The module that a script is, run once in this process up to where it begins work.

    Raises:
        InputError: the script cannot be read, or raises an error before that.
    """
    known = sys.modules.get(SCRIPT)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    module = ModuleType(SCRIPT)
    module.__file__ = str(path)
    sys.modules[SCRIPT] = module
    _loading.append(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(WorkReachedError):
            exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[SCRIPT]
        raise InputError(f"script {path}: running it for its classes raised {type(error).__name__}: {error}") from error
    finally:
        _loading.pop()
    return module
