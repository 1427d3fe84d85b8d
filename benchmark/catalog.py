"""What there is: the one module that knows the tables of tasks and attributors.

The engine works on contracts; the command line and the Python interface come here to turn names into objects.
"""

from collections.abc import Callable
from pathlib import Path

from attriboard.attribution.job import AttributorSpec
from attriboard.attributors import ATTRIBUTORS
from attriboard.contracts import Attributor, Task
from attriboard.errors import InputError
from attriboard.registry import Registry
from attriboard.tasks import TASKS

__all__ = ["attributor_names", "attributor_spec", "load_task", "task_names"]

_TASKS: Registry[Callable[[], Task]] = Registry("task", TASKS, "attriboard.tasks")
_ATTRIBUTORS: Registry[type[Attributor]] = Registry("attributor", ATTRIBUTORS, "attriboard.attributors")


def task_names() -> list[str]:
    """Built-in tasks in their table's order, then those of installed packages."""
    return _TASKS.names()


def attributor_names() -> list[str]:
    """Built-in attributors in their table's order, then those of installed packages."""
    return _ATTRIBUTORS.names()


def load_task(name: str | Path) -> Task:
    """A live task, by name or from a card file.

    Args:
        name: a registered name, or the path of a `.yaml` card.

    Raises:
        UnknownNameError: no such name.
        CardError: the card does not validate.
    """
    if Path(name).suffix in (".yaml", ".yml"):
        from attriboard.tasks.catalogue import task_from_file

        return task_from_file(Path(name))
    return _TASKS.load(str(name))()


def attributor_spec(name: str | Path) -> AttributorSpec:
    """Where an attributor's code is, by name or from a Python file.

    Args:
        name: a registered name, or the path of a `.py` file that defines one.

    Raises:
        UnknownNameError: no such name.
        InputError: no such file.
    """
    if Path(name).suffix == ".py":
        path = Path(name).resolve()
        if not path.is_file():
            raise InputError(f"attributor file {path}: no such file")
        return AttributorSpec(name=path.stem, origin="file", location=str(path))
    reference = _ATTRIBUTORS.reference(str(name))
    return AttributorSpec(
        name=str(name), origin="builtin" if name in ATTRIBUTORS else "entry_point", location=reference
    )
