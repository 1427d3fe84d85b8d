"""Functions and classes that a task is made of, as names that another process finds: a module's, or a script's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from attriboard.base.errors import InputError
from attriboard.base.processes import definitions_only
from attriboard.base.scripts import PREFIX, definitions


class Part(BaseModel):
    """Where a function or a class is defined.

    Attributes:
        name: its qualified name.
        module: that has it; `None` where a script does.
        script: path of the script.
        package: of the script, where it was started as a module.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    module: str | None = None
    script: str | None = None
    package: str | None = None

    @classmethod
    def of(cls, role: str, value: Any) -> Part:
        """The part that a function or a class is.

        Args:
            role: what it is to the task, for messages: "model".
            value: the function or class.

        Raises:
            InputError: no other process finds it.
        """
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        remedy = "define it by name at the top level of a .py file"
        if not isinstance(module, str) or not isinstance(name, str):
            raise InputError(f"{role} is a {type(value).__name__} without a name: {remedy}")
        if "<" in name:
            kind = (
                "a lambda" if "<lambda>" in name else f"{name.rpartition('.')[2]}, which is defined inside a function"
            )
            raise InputError(f"{role} is {kind}: {remedy}")
        home = sys.modules.get(module)
        if module != "__main__" and not module.startswith(PREFIX):
            if _found(home, name) is not value:
                raise InputError(f"{role}: {module} has no {name}, or another one: {remedy}")
            return cls(name=name, module=module)
        path = getattr(home, "__file__", None)
        if path is None or not Path(path).is_file():
            raise InputError(f"{role} {name} is defined in a notebook or an interactive session: {remedy}")
        return cls(name=name, script=str(Path(path).absolute()), package=getattr(home, "__package__", None) or None)

    @property
    def file(self) -> Path | None:
        """Where its code is; `None` of what is built in."""
        if self.script is not None:
            return Path(self.script)
        path = getattr(sys.modules.get(self.module or ""), "__file__", None)
        return None if path is None else Path(path)

    def load(self) -> Any:
        """The function or class.

        Raises:
            InputError: it is not there.
        """
        if self.script is not None:
            found = _found(definitions(Path(self.script), self.name, package=self.package), self.name)
        else:
            assert self.module is not None, "a part has a module or a script"
            found = _found(_imported(self.module), self.name)
        if found is None:
            raise InputError(f"{self.module or self.script}: has no {self.name} any more")
        return found


def _imported(name: str) -> Any:
    module = None
    try:
        with definitions_only(Path(name)):
            __import__(name)
            module = sys.modules[name]
    except Exception as error:  # other people's code
        raise InputError(f"module {name}: importing it raised {type(error).__name__}: {error}") from error
    if module is None:
        raise InputError(
            f'module {name}: trains or attributes when it is imported; put that under if __name__ == "__main__":'
        )
    return module


def _found(home: Any, name: str) -> Any:
    for part in name.split("."):
        home = getattr(home, part, None)
    return home
