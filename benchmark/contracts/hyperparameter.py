"""Hyperparameters of attributors: their tables, and complete configurations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from attriboard.base.errors import HyperparameterError

MAX_INTEGER = 2**53
"""Every JSON reader holds whole numbers up to here exactly."""

HyperparameterValue = float | int | str | bool | None
Stage = Literal["fit", "score"]


@dataclass(frozen=True)
class Hyperparameter:
    """One knob of an attributor.

    Args:
        name: shared by all methods that have it (`regularization`, `projection_dim`, …).
        default: its value when nobody chooses; `None` only where `optional`.
        source: where the default comes from: a paper or a library with its version.
        stage: `fit` values need a new fit; `score` values are nearly free after one.
        grid: values worth sweeping.
        type: `float`, `int`, `str` or `bool`; taken from the default where that is not `None`.
        optional: whether `None` is a value (it is written `none` on the command line).
        minimum, maximum: inclusive bounds of a number.
        choices: the allowed strings.
        description: one line for listings.
        aliases: other names that it is accepted under: what it was called before, or what its library calls it.
    """

    name: str
    default: HyperparameterValue
    source: str
    stage: Stage = "fit"
    grid: tuple[HyperparameterValue, ...] = ()
    type: type | None = None
    optional: bool = False
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    description: str = ""
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.type is None:
            if self.default is None:
                raise TypeError(f"hyperparameter {self.name!r}: a default of None needs an explicit type")
            object.__setattr__(self, "type", type(self.default))
        if self.default is None:
            object.__setattr__(self, "optional", True)
        for value in (self.default, *self.grid):
            self.validate(value)

    def validate(self, value: Any) -> HyperparameterValue:
        """Return `value` as this hyperparameter's type.

        Raises:
            HyperparameterError: wrong type, out of bounds, or not among the choices.
        """
        if value is None:
            if self.optional:
                return None
            raise HyperparameterError(f"{self.name} = none: must be a value of type {self._type_name}")
        if self.type is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if self.type is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is not self.type:
            raise HyperparameterError(f"{self.name} = {value!r}: must be of type {self._type_name}")
        if isinstance(value, float) and not math.isfinite(value):
            raise HyperparameterError(f"{self.name} = {value}: must be finite")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise HyperparameterError(f"{self.name} = {value}: must be within ±2^53, which records hold exactly")
        if isinstance(value, (int, float)):
            if self.minimum is not None and value < self.minimum:
                raise HyperparameterError(f"{self.name} = {value}: must be at least {self.minimum:g}")
            if self.maximum is not None and value > self.maximum:
                raise HyperparameterError(f"{self.name} = {value}: must be at most {self.maximum:g}")
        if self.choices and value not in self.choices:
            raise HyperparameterError(f"{self.name} = {value!r}: must be one of {', '.join(self.choices)}")
        accepted: Any = value
        return accepted  # type: ignore[no-any-return]  # of self.type, which mypy cannot know

    def parse(self, text: str) -> HyperparameterValue:
        """Read a value from the command line: `1e-3`, `512`, `true`, `none`, `word`.

        Raises:
            HyperparameterError: the text is no value of this hyperparameter.
        """
        if self.optional and text.lower() == "none":
            return None
        try:
            if self.type is bool:
                return self.validate({"true": True, "false": False}[text.lower()])
            if self.type is int:
                return self.validate(float(text))
            if self.type is float:
                return self.validate(float(text))
        except (ValueError, KeyError):
            raise HyperparameterError(f"{self.name} = {text!r}: not of type {self._type_name}") from None
        return self.validate(text)

    @property
    def _type_name(self) -> str:
        assert self.type is not None
        return f"{self.type.__name__} or none" if self.optional else self.type.__name__


def completed(
    method: str, table: Sequence[Hyperparameter], values: Mapping[str, Any]
) -> dict[str, HyperparameterValue]:
    """A complete configuration of a method, in its table's order, from values by name or alias.

    Args:
        method: its name, for messages.
        table: its hyperparameters.
        values: those that differ from the defaults; texts are read as on the command line.

    Raises:
        HyperparameterError: a name that the method does not have or that is given twice, or a value out of range.
    """
    known = {name: hp for hp in table for name in (hp.name, *hp.aliases)}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            has = ", ".join(hp.name for hp in table) or "none"
            raise HyperparameterError(f"{method} has no hyperparameter {name!r}; it has: {has}")
        own = known[name].name
        if own in given:
            raise HyperparameterError(f"{method}: {own} is given twice, {name!r} is another name of it; give one")
        given[own] = value
    return {
        hp.name: hp.parse(value) if isinstance(value := given.get(hp.name, hp.default), str) else hp.validate(value)
        for hp in table
    }
