"""Named plugins: built-ins and third-party ones enter by the same door.

A registry maps a name to a *reference*, `module:attribute`, which is imported only when asked for. Third parties
add names through an entry-point group, or hand over a Python file.
"""

import difflib
import importlib
import importlib.metadata
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from attriboard.attribution.frames import own_frames
from attriboard.base.digests import digest_file
from attriboard.base.errors import InputError, UnknownNameError
from attriboard.base.modules import module_from_file
from attriboard.base.schema import in_words
from attriboard.contracts.attributor import Attributor, Curvature
from attriboard.contracts.selector import Selector
from attriboard.records.model import FORMER_NAMES, AttributorInfo

T = TypeVar("T")


class Registry(Generic[T]):
    """An ordered table of names.

    Args:
        kind: what the names name, for messages: "attributor".
        builtins: name → reference.
        group: entry-point group in which installed packages may declare more.
    """

    def __init__(self, kind: str, builtins: Mapping[str, str], group: str) -> None:
        self.kind = kind
        self.group = group
        self._builtins = dict(builtins)

    def references(self) -> dict[str, str]:
        """Every known name with its reference: built-ins in their table's order, then entry points by name.

        Raises:
            InputError: an installed package claims the name of a built-in, or of another package's.
        """
        table = dict(self._builtins)
        for entry in sorted(importlib.metadata.entry_points(group=self.group), key=lambda entry: entry.name):
            if table.get(entry.name, entry.value) != entry.value or entry.name in self._builtins:
                holder = "a built-in" if entry.name in self._builtins else table[entry.name]
                raise InputError(
                    f"{self.kind} {entry.name!r}: {entry.value} claims the name of {holder}; "
                    f"rename the entry point in group {self.group}, or uninstall its package"
                )
            table[entry.name] = entry.value
        return table

    def names(self) -> list[str]:
        """All known names."""
        return list(self.references())

    def reference(self, name: str) -> str:
        """Where the code of `name` is, as `module:attribute`.

        Raises:
            UnknownNameError: with the nearest known names.
        """
        table = self.references()
        if name not in table:
            near = difflib.get_close_matches(name, table, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(table)}"
            raise UnknownNameError(f"no {self.kind} named {name!r}; {hint}")
        return table[name]

    def load(self, name: str) -> T:
        """Import what `name` stands for.

        Raises:
            UnknownNameError: with the nearest known names.
            InputError: the reference does not import.
        """
        reference = self.reference(name)
        try:
            loaded: T = resolve_reference(reference)
        except Exception as error:  # it may be other people's module
            raise InputError(
                f"{self.kind} {name!r}: cannot import {reference}: {type(error).__name__}: {error}"
            ) from error
        return loaded


def resolve_reference(reference: str) -> Any:
    """Import `module:attribute`.

    Raises:
        ImportError, AttributeError: it is not there.
    """
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def load_plugin_file(path: Path, base: type[T], kind: str) -> type[T]:
    """Import a Python file and return the one concrete subclass of `base` that it defines.

    Raises:
        InputError: the file is missing, fails to import, or defines none or several.
    """
    path = path.resolve()
    try:
        module = module_from_file(path, kind)
    except InputError:
        raise
    except Exception as error:
        frames = own_frames(error, path)
        where = f"\n{frames}" if frames else ""
        raise InputError(f"{kind} file {path}: importing it raised {type(error).__name__}: {error}{where}") from error
    defined = {
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    }
    missing = {value: sorted(getattr(value, "__abstractmethods__", ())) for value in defined}
    found = sorted((value for value in defined if not missing[value]), key=lambda value: value.__name__)
    if len(found) != 1:
        names = ", ".join(value.__name__ for value in found) or "none"
        lacks = "".join(f"; {value.__name__} lacks {', '.join(missing[value])}" for value in defined if missing[value])
        raise InputError(
            f"{kind} file {path}: must define exactly one {base.__name__} subclass, found {names}" + lacks * (not found)
        )
    return found[0]


def code_sha256(plugin: type) -> str:
    """Digest of the file that defines a plugin."""
    return digest_file(Path(inspect.getfile(plugin)))


class PluginSpec(BaseModel):
    """Where an attributor's or a selector's code is: a reference `module:class`, or a Python file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    origin: Literal["builtin", "entry_point", "file"]
    location: str

    def load_attributor(self) -> type[Attributor]:
        """Import an attributor's class.

        Raises:
            InputError: it does not import, is no attributor, or calls itself what no record can.
        """
        loaded: type[Attributor] = self._load(Attributor, "attributor")
        described: dict[str, Any] = {key: getattr(loaded, key, None) for key in ("name", "paper", "family")}
        try:
            AttributorInfo(origin=self.origin, digest=None, **described)
        except ValidationError as error:
            raise InputError(f"attributor {self.name!r}: {loaded.__name__}.{in_words(error)}") from error
        names = {hp.name for hp in loaded.hyperparameters}
        for former, name in FORMER_NAMES.items():
            if former in names and name not in names:
                what = f"{loaded.__name__}.hyperparameters: {former!r} is called {name!r} here"
                raise InputError(f"attributor {self.name!r}: {what}; rename it, with aliases=({former!r},)")
        if loaded.curvature not in get_args(Curvature):
            what, known = f"{loaded.__name__}.curvature = {loaded.curvature!r}", " or ".join(get_args(Curvature))
            raise InputError(f"attributor {self.name!r}: {what}: must be {known}, the matrix that λ is added to")
        return loaded

    def load_selector(self) -> type[Selector]:
        """Import a selector's class.

        Raises:
            InputError: it does not import or is no selector.
        """
        loaded: type[Selector] = self._load(Selector, "selector")
        return loaded

    def _load(self, base: Any, kind: str) -> Any:
        if self.origin == "file":
            return load_plugin_file(Path(self.location), base, kind)
        try:
            loaded = resolve_reference(self.location)
        except Exception as error:  # it is other people's module
            raise InputError(
                f"{kind} {self.name!r}: cannot import {self.location}: {type(error).__name__}: {error}"
            ) from error
        if not (isinstance(loaded, type) and issubclass(loaded, base)):
            raise InputError(f"{kind} {self.name!r}: {self.location} is no subclass of attriboard's {base.__name__}")
        return loaded
