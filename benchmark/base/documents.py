"""Reading JSON and YAML from untrusted sources: bounded, strict, without the tricks that the formats allow.

Refused are files beyond a size, duplicate keys, NaN and infinity (also as 1e999), nesting without end, integers of
thousands of digits, texts that lost characters on their way (U+FFFD, which decoders put where bytes were no text), and
in YAML aliases, which a few lines of can unfold into gigabytes, and tags.
"""

import json
import math
import reprlib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

from attriboard.base.errors import FormatError

MAX_DEPTH = 50  # nested lists and mappings; the formats here need five
MAX_BITS = 256  # of an integer
LOST = "\ufffd"


def read_bounded(path: Path, limit: int, what: str) -> bytes:
    """The bytes of a regular file.

    Args:
        path: the file.
        limit: the most bytes that it may have.
        what: what it should be, for messages: "a record".

    Raises:
        FormatError: no regular file, unreadable, or larger.
    """
    try:
        if not path.is_file():
            raise FormatError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL
        raise FormatError(f"{path}: cannot be read: {error}") from error
    if len(content) > limit:
        raise FormatError(f"{path}: larger than {limit} bytes, the most that {what} may have")
    return content


def parse_json(content: bytes | str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: no JSON, or one of the tricks.
    """
    text = content if isinstance(content, str) else content.decode()
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("nested without end") from error
    _check_plain(value)
    return value


def parse_yaml(content: bytes | str) -> Any:
    """Parse one YAML document of plain data.

    Raises:
        ValueError: no YAML, or one of the tricks.
    """
    try:
        text = content if isinstance(content, str) else content.decode()
        value = yaml.load(text, _Loader)
    except RecursionError as error:
        raise ValueError("nested without end") from error
    except (yaml.YAMLError, AttributeError, TypeError) as error:  # PyYAML lets bad dates and keys escape
        raise ValueError(f"not readable YAML: {error}") from error
    _check_plain(value)
    return value


class _Loader(yaml.SafeLoader):
    """Plain data alone: no aliases, no keys but texts and numbers, none twice."""

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level > MAX_DEPTH:  # the scanner takes quadratic time over what is nested
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases are not accepted")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise ValueError(f"a key that is a list or a mapping{_place(node)}")
        if len(set(keys)) < len(keys):
            twice = next(key for position, key in enumerate(keys) if key in keys[:position])
            raise ValueError(f"the key {reprlib.repr(twice)} stands twice in one mapping{_place(node)}")
        return super().construct_mapping(node, deep)


def _place(mark: Any) -> str:
    return f", line {mark.start_mark.line + 1}"


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {reprlib.repr(key)} stands twice in one object")
        table[key] = value
    return table


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{reprlib.repr(text)} is beyond the range of numbers")
    return value


def _check_plain(value: Any) -> None:
    """Refuse endless nesting, integers whose digits take minutes to print, and texts that lost characters."""
    level = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(each, int) and each.bit_length() > MAX_BITS for each in level):
            raise ValueError(f"an integer of more than {MAX_BITS} bits")
        for text in level:
            if isinstance(text, str) and LOST in text:
                raise ValueError(f"{reprlib.repr(text)} has U+FFFD in place of lost characters; write it as UTF-8")
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (chain.from_iterable(outer.items()) if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise ValueError(f"nested more than {MAX_DEPTH} deep")
