"""Files and classes that follow a schema: the fields that many schemas share, and what breaks one in words."""

import re
import reprlib
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails

MAX_PROBLEMS = 20  # of one file that are named
QUOTE = "'"  # around what pydantic names

_WORDS = {"missing": "is missing", "extra_forbidden": "there is no such field", "string_type": "must be text"}
"""Kind of error → what is said; the others keep pydantic's message."""
_MEANING: dict[str, str] = {}
"""Pattern → what a text that matches it is; see `matching`."""


def matching(pattern: str, meaning: str, **constraints: Any) -> Any:
    """A field whose text must match a pattern, with the words that a message says instead of it.

    Args:
        pattern: a regular expression.
        meaning: what such a text is, after "must be": "64 lower-case hexadecimal digits".
        constraints: more of `pydantic.Field`.
    """
    _MEANING[pattern] = meaning
    return Field(pattern=pattern, **constraints)


Digits64 = Annotated[str, matching(r"^[0-9a-f]{64}$", "64 lower-case hexadecimal digits")]
Sha256 = Digits64
RecordId = Annotated[str, matching(r"^[0-9a-f]{16}$", "16 lower-case hexadecimal digits")]
Timestamp = Annotated[str, matching(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", "a time in UTC, as in 2026-01-31T12:00:00Z")]
"""The form; whether there is such a day is for the schema to check."""
TASK_NAME = r"^[a-z][a-z0-9_]{1,63}$"
TaskName = Annotated[
    str, matching(TASK_NAME, "2 to 64 lower-case letters, digits or _, beginning with a letter, as in my_task")
]


def in_words(error: Exception) -> str:
    """What broke a schema: `field = value: must be …; …`; of another exception, its message.

    Args:
        error: what reading the file raised.
    """
    if not isinstance(error, ValidationError):
        return str(error)
    found = problems(error)
    more = [f"and {len(found) - MAX_PROBLEMS} more"] if len(found) > MAX_PROBLEMS else []
    return "; ".join(found[:MAX_PROBLEMS] + more)


def problems(error: ValidationError, field: str = "") -> list[str]:
    """Every rule of a schema that is broken, with its field and value.

    Args:
        error: what the schema said.
        field: where the schema's fields are in the file: "data.options".
    """
    return [_problem(item, field) for item in error.errors(include_url=False)]


def _problem(item: ErrorDetails, field: str) -> str:
    where = ".".join(filter(None, (field, *(str(part)[:80] for part in item["loc"]))))
    said = rule(item)
    if not item["loc"]:  # of several fields together, which the message names itself
        return said
    value = "" if item["type"] == "missing" else f" = {reprlib.repr(item['input'])}"
    return f"{where}{value}: {said}"


def rule(item: ErrorDetails) -> str:
    """The rule that one error is about, without field and value."""
    if item["type"] == "string_pattern_mismatch" and (meaning := _MEANING.get(item["ctx"]["pattern"])):
        return f"must be {meaning}"
    if item["type"] == "union_tag_not_found":  # of several schemas, which one it is
        return f"{item['ctx']['discriminator'].strip(QUOTE)} is missing"
    if item["type"] == "union_tag_invalid":
        name, expected = (item["ctx"][key].replace(QUOTE, "") for key in ("discriminator", "expected_tags"))
        return f"{name} = {reprlib.repr(item['ctx']['tag'])}: must be {' or '.join(expected.rsplit(', ', 1))}"
    message = item["msg"].removeprefix("Value error, ")
    return _WORDS.get(item["type"]) or re.sub(r"^[A-Z][a-z]+ should ", "must ", message)
