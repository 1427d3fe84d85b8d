"""A card's open fields: names that refer to a table, and options that belong to what the name refers to."""

import difflib
import pkgutil
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from attriboard.base.errors import CardError
from attriboard.base.schema import problems


def lookup(field: str, name: str, table: Mapping[str, str]) -> str:
    """The reference, `module:attribute`, of a name in a card; imports nothing.

    Args:
        field: where the name is in the card, for messages: "data.dataset".
        name: the name.
        table: name → reference.

    Raises:
        CardError: the table has no such name.
    """
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(table)}"
        raise CardError(f"{field} = {name!r}: no such name; {hint}")
    return table[name]


def resolve(field: str, name: str, table: Mapping[str, str]) -> Any:
    """Import what a name in a card refers to; see `lookup`."""
    return pkgutil.resolve_name(lookup(field, name, table))


class Options(BaseModel):
    """Base of the typed options of a data set or an architecture."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    @classmethod
    def parse(cls, field: str, options: Mapping[str, Any]) -> Self:
        """Validate the options of a card.

        Args:
            field: where they are in the card, for messages: "data.options".
            options: name → value.

        Raises:
            CardError: an option is unknown, missing, of the wrong type or out of range.
        """
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            found = "; ".join(problems(error, field))
            raise CardError(f"{found}; the options are: {', '.join(cls.model_fields)}") from error
