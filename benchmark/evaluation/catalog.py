"""What there is: the one module that knows the tables of tasks, attributors and selectors.

The engine works on contracts; the command line and the Python interface come here to turn names into objects.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attriboard.attribution.plugins import PluginSpec, Registry
from attriboard.attributors import ATTRIBUTORS
from attriboard.attributors.selectors import SELECTORS
from attriboard.base.errors import InputError
from attriboard.contracts.attributor import Attributor, Curvature
from attriboard.contracts.selector import GroundTruthSelector, Selector
from attriboard.contracts.task import Task, task_in_file
from attriboard.tasks import TASKS
from attriboard.tasks.own import define_task as define_task

_TASKS: Registry[Callable[[], Task]] = Registry("task", TASKS, "attriboard.tasks")
_ATTRIBUTORS: Registry[type[Attributor]] = Registry("attributor", ATTRIBUTORS, "attriboard.attributors")
_SELECTORS: Registry[type[Selector]] = Registry("selector", SELECTORS, "attriboard.attributors.selectors")


def task_names() -> list[str]:
    """Built-in tasks in their table's order, then those of installed packages."""
    return _TASKS.names()


def attributor_names() -> list[str]:
    """Built-in attributors in their table's order, then those of installed packages."""
    return _ATTRIBUTORS.names()


def load_task(name: str | Path) -> Task:
    """A live task, by name, from a card file, or from a Python file.

    Args:
        name: a registered name, the path of a `.yaml` card, or a `.py` file with a module-level `task` (`my_task.py`,
            or `my_task.py:name` for one of several).

    Raises:
        UnknownNameError: no such name.
        CardError: the card does not validate.
        InputError: the Python file has no such task.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        from attriboard.tasks.catalogue import task_from_file

        return task_from_file(Path(name))
    if match := re.fullmatch(r"(.+\.py)(?::(\w+))?", str(name)):
        return task_in_file(Path(match[1]), match[2] or "")
    return _TASKS.load(str(name))()


def task_template() -> str:
    """A Python file with a task that works, to be changed."""
    from attriboard.tasks.template import TEMPLATE

    return TEMPLATE


def selector_names() -> list[str]:
    """Retraining-free selectors: built-in ones in their table's order, then those of installed packages."""
    return _SELECTORS.names()


def known_names() -> dict[str, str]:
    """Name that a class may have → "attributor" or "selector"; classes in files should leave these alone."""
    kinds = {"selector": selector_names(), "attributor": attributor_names()}
    return {name.replace(":", "-"): kind for kind, names in kinds.items() for name in names}


def attributor_spec(name: str | Path) -> PluginSpec:
    """Where an attributor's code is, by name or from a Python file.

    Args:
        name: a registered name, or the path of a `.py` file that defines one.

    Raises:
        UnknownNameError: no such name.
        InputError: no such file.
    """
    return _spec(_ATTRIBUTORS, ATTRIBUTORS, name)


def selector_spec(name: str | Path) -> PluginSpec:
    """Where a selector's code is, by name or from a Python file; `oracle` is not among them.

    Raises:
        UnknownNameError: no such name.
        InputError: no such file.
    """
    return _spec(_SELECTORS, SELECTORS, name)


def load_oracle() -> GroundTruthSelector:
    """The one selector that may see ground truth."""
    from attriboard.attributors.selectors.oracle import Oracle

    return Oracle()


def spectrum_donors() -> dict[Curvature, PluginSpec]:
    """The attributors whose spectra are the task's, of the Fisher matrix and of the Hessian."""
    return {"fisher": attributor_spec("iffim"), "hessian": attributor_spec("if_cg")}


def _spec(registry: Registry[Any], builtins: dict[str, str], name: str | Path) -> PluginSpec:
    if Path(name).suffix == ".py":
        path = Path(name).resolve()
        if not path.is_file():
            raise InputError(f"{registry.kind} file {path}: no such file")
        return PluginSpec(name=path.stem, origin="file", location=str(path))
    reference = registry.reference(str(name))
    return PluginSpec(name=str(name), origin="builtin" if name in builtins else "entry_point", location=reference)
