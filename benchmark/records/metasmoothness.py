"""Metasmoothness of a task: a property of the task, of which no method is a part.

One immutable file for each measurement, beside the task's records and named by its own digest:
`<task>/<task>-<id>.metasmoothness`, JSON.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from attriboard.base.digests import digest
from attriboard.base.documents import parse_json, read_bounded
from attriboard.base.errors import FormatError
from attriboard.base.paths import write_atomically
from attriboard.base.schema import in_words
from attriboard.records.model import Correlation, Created, Provenance, RecordPart, TaskInfo

SUFFIX = ".metasmoothness"
MAX_BYTES = 1 << 20


class SmoothnessRow(RecordPart):
    """S at one step, a number for each random direction; see `attriboard.evaluation.metasmoothness`."""

    step: float = Field(gt=0, le=0.5, description="h: training weights are 1, 1 + h v and 1 + 2 h v")
    parameters: tuple[Correlation, ...] = Field(min_length=1, description="S of the trained parameters")
    outputs: tuple[Correlation, ...] = Field(min_length=1, description="S of the attributed function on test points")

    @model_validator(mode="after")
    def _lengths_agree(self) -> Self:
        if len(self.parameters) != len(self.outputs):
            raise ValueError(
                f"{len(self.parameters)} numbers of parameters, {len(self.outputs)} of outputs: must agree"
            )
        return self


class Metasmoothness(RecordPart):
    """One measurement of one task."""

    schema_version: Literal[1] = 1
    created: Created
    task: TaskInfo
    rows: tuple[SmoothnessRow, ...] = Field(min_length=1)
    provenance: Provenance

    @property
    def id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return digest(self.model_dump(mode="json"))[:16]

    @property
    def path(self) -> Path:
        """Where the file is, below a folder of results."""
        return Path(self.task.name, f"{self.task.name}-{self.id}{SUFFIX}")


def write_metasmoothness(found: Metasmoothness, folder: Path) -> Path:
    """Write a measurement below a folder of results, completely or not at all; the file's path."""
    path = folder / found.path
    text = json.dumps(found.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
    write_atomically(path, text.encode())
    return path


def read_metasmoothness(folders: Sequence[Path]) -> dict[str, Metasmoothness]:
    """Fingerprint of a task → the newest measurement of it below some folders.

    Raises:
        FormatError: a file does not validate, or is not named after its content.
    """
    found = []
    for path in sorted(path for folder in folders for path in folder.rglob(f"*{SUFFIX}")):
        content = read_bounded(path, MAX_BYTES, "a measurement of metasmoothness")
        try:
            parse_json(content)
            one = Metasmoothness.model_validate_json(content, strict=True)
        except ValueError as error:
            raise FormatError(f"{path}: not a measurement of metasmoothness: {in_words(error)}") from error
        if path.name != one.path.name:
            raise FormatError(f"{path}: altered or renamed; its content belongs to {one.path.name}")
        found.append(one)
    return {one.task.fingerprint: one for one in sorted(found, key=lambda one: (one.created, one.id))}
