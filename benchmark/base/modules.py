"""Python files as modules: plugins and tasks that are not installed."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from attriboard.base.errors import InputError
from attriboard.base.processes import definitions_only


def make_importable(folder: Path) -> None:
    """Let modules in a folder be imported; it comes last, so that nothing installed is hidden."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def module_from_file(path: Path, kind: str) -> ModuleType:
    """Import a Python file under a name of its own, up to where it begins work; it can import modules beside it.

    Args:
        path: a `.py` file.
        kind: what it holds, for messages: "task".

    Raises:
        InputError: there is no such file.
        Exception: whatever importing it raises.
    """
    path = path.resolve()
    name = f"attriboard_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or path.suffix != ".py" or spec is None or spec.loader is None:
        raise InputError(f"{kind} file {path}: not a readable .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up here
    make_importable(path.parent)
    with definitions_only(path):
        spec.loader.exec_module(module)
    return module
