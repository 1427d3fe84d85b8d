"""Records: one immutable JSON per evaluation: what was run, on what, by which code, with what result.

A record's *id* is the first 16 hexadecimal digits of the SHA-256 of its canonical JSON. Its file is
`<task>/<attributor>/<task>-<attributor>-<id>.json`; a name that disagrees with the content says that the file
was altered after it was written. The fields are in `attriboard.records.model` and `attriboard.records.uses`.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from attriboard.base.documents import parse_json, read_bounded
from attriboard.base.errors import FormatError
from attriboard.base.paths import write_atomically
from attriboard.base.schema import in_words
from attriboard.records.cost import SelectionCostRecord
from attriboard.records.model import (
    AttributionRecord,
    SelectionRecord,
)
from attriboard.records.uses import (
    BrittlenessRecord,
    MislabelRecord,
    QldRecord,
    RemovalRecord,
)

MAX_BYTES = 2 << 20  # a record with 500 test points and 200 masks takes about 20 kB

AnyUse = RemovalRecord | BrittlenessRecord | QldRecord | MislabelRecord
"""A record of what attributions are used for."""
AnyRecord = Annotated[AttributionRecord | SelectionRecord | SelectionCostRecord | AnyUse, Field(discriminator="kind")]

KINDS: tuple[str, ...] = tuple(model.model_fields["kind"].default for model in get_args(get_args(AnyRecord)[0]))

_ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(AnyRecord)


def record_schema() -> str:
    """The JSON Schema of records, as the text of `schemas/record-v1.json`."""
    heading = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(heading | _ADAPTER.json_schema(), indent=2, ensure_ascii=False) + "\n"


def write_record(record: AnyRecord, folder: Path) -> Path:
    """Write a record below a folder of results, completely or not at all.

    Writing the same record again changes nothing.

    Returns:
        The file's path.

    Raises:
        FormatError: a different file lies there already; records are never overwritten.
    """
    path = folder / record.path
    content = _reviewable(record.to_json()).encode()
    if path.exists():
        if path.read_bytes() != content:
            raise FormatError(f"{path}: exists with other content; records are never overwritten")
        return path
    write_atomically(path, content)
    return path


def read_record(path: Path) -> AnyRecord:
    """Read and validate one record, whatever its file is called.

    Raises:
        FormatError: the file cannot be read, is too large, is no JSON (NaN, Infinity and duplicate keys
            included), or breaks rules of the schema, each of which is named.
    """
    content = read_bounded(path, MAX_BYTES, "a record")
    try:
        document = parse_json(content)
        if isinstance(document, dict) and "kind" not in document:
            raise FormatError(f"{path}: kind is missing; must be {', '.join(KINDS[:-1])} or {KINDS[-1]}")
        return _ADAPTER.validate_json(content, strict=True)
    except ValidationError as error:
        raise FormatError(f"{path}: {in_words(error)}") from error
    except ValueError as error:
        raise FormatError(f"{path}: not a readable JSON record: {error}") from error


def read_records(folder: Path) -> list[AnyRecord]:
    """Read every record below a folder, ordered by task, attributor and creation.

    Raises:
        FormatError: see `read_named`.
    """
    records = [record for _, record in read_named([folder])]
    return sorted(records, key=lambda record: (record.task.name, record.attributor.name, record.created, record.id))


def read_named(folders: Sequence[Path]) -> list[tuple[Path, AnyRecord]]:
    """Read every record below some folders, with its file, in the order of paths.

    Raises:
        FormatError: there is no such folder, or files in it do not validate or are not named after their
            content; the message has a line for each.
    """
    found, problems = [], []
    for folder in folders:
        if not folder.is_dir():
            raise FormatError(f"{folder}: no such folder of records")
        for path in sorted(folder.rglob("*.json")):
            try:
                record = read_record(path)
            except FormatError as error:
                problems.append(str(error))
                continue
            if path.name != (name := record.path.name):
                problems.append(f"{path}: altered or renamed; its content belongs to {name}")
            found.append((path, record))
    if problems:
        raise FormatError("\n".join(problems))
    return found


def _reviewable(data: dict[str, Any]) -> str:
    """Indented JSON whose lists of numbers take one line each."""
    text = json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    # A raw line break never stands inside a JSON string, so that this cannot touch one.
    return re.sub(r'\[\n([^\[\]{}"]*)\n *\]', lambda match: f"[{' '.join(match[1].split())}]", text) + "\n"


if __name__ == "__main__":
    print(record_schema(), end="")
