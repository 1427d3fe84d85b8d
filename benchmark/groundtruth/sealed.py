"""Sealed safetensors files: tensors with a JSON card that carries a digest of them.

The SHA-256 of the whole file belongs to the list that names it; the digest inside covers the tensors alone, so two
builds of the same numbers can be compared although their cards name different days and machines.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from attriboard.base.documents import parse_json
from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import write_atomically
from attriboard.base.schema import in_words
from attriboard.base.tensors import read_header
from attriboard.contracts.card import TaskCard
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.records.model import Provenance

Tensors = Mapping[str, NDArray[Any]]
Layout = tuple[tuple[int, ...], str]
REMEDY = "build or download it again"


class SealedCard(BaseModel):
    """What every bundle says of itself.

    Attributes:
        format: name and version of the layout.
        fingerprint: of the task.
        task: the full task card.
        content_sha256: digest of the tensors.
        created: UTC, ISO 8601.
        retrain_seconds: process-seconds of all its retrains together, one thread each.
        provenance: code, versions and hardware.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: str
    fingerprint: str
    task: TaskCard
    content_sha256: str
    created: str
    retrain_seconds: float
    provenance: Provenance


CardT = TypeVar("CardT", bound=SealedCard)


def content_digest(tensors: Tensors) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(tensors[name])
        state.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        state.update(array.data)
    return state.hexdigest()


def write_sealed(
    path: Path, tensors: Tensors, card: SealedCard, mode: int = 0o644, extends: Callable[[], bool] = lambda: False
) -> None:
    """Write a bundle atomically; a file that has the same task and tensors already is left as it is.

    Args:
        path: the file.
        tensors: what is in it.
        card: what it says of itself.
        mode: the file's permissions.
        extends: whether a published file has nothing else than this one, but less, so that this one may replace it.

    Raises:
        InputError: another bundle of this name is published in the folder; published files are never replaced.
    """
    if _same_already(path, card):
        return
    registry = BundleRegistry(path.parent)
    listed = registry.listed(path)
    if listed and not extends():
        raise InputError(
            f"{path}: is published, and what was built differs from it; raise the card's version, or build "
            "elsewhere with --out"
        )
    plain = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    content = save(plain, {"card": card.model_dump_json(exclude_none=False)})
    if listed:  # first the list: after a kill the old file is not the listed one, and the next build replaces it
        registry.relist(listed, content)
    write_atomically(path, content, mode)


def _same_already(path: Path, card: SealedCard) -> bool:
    if not path.is_file():
        return False
    try:
        _, old = read_sealed(path, type(card), card.format)
    except FormatError:
        return False
    # By fingerprint: a corrected word or another planned size makes no other bundle of the same tensors.
    return (old.fingerprint, old.content_sha256) == (card.fingerprint, card.content_sha256)


def read_sealed(path: Path, card_type: type[CardT], form: str) -> tuple[dict[str, NDArray[Any]], CardT]:
    """Read a bundle and check it against itself.

    Args:
        path: the file.
        card_type: the pydantic model of its card.
        form: the expected `format`.

    Raises:
        FormatError: missing, torn, another format, a fingerprint that is not the card's, or altered tensors.
    """
    try:
        if path.is_file() and path.stat().st_size > psutil.virtual_memory().available:
            raise OSError(f"{path.stat().st_size:,} bytes are more than the memory that is free here")
        read_header(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FormatError as error:
        raise FormatError(f"{error}; {REMEDY}") from error
    except (OSError, SafetensorError, TypeError) as error:  # TypeError: a dtype that NumPy does not have
        raise FormatError(f"{path}: not a readable safetensors file ({error}); {REMEDY}") from error
    if "card" not in metadata:
        raise FormatError(f"{path}: carries no card, so it is no bundle of AttriBoard; {REMEDY}")
    try:
        raw = parse_json(metadata["card"])
        if raw.get("format") != form:
            raise FormatError(f"{path}: format {raw.get('format')!r}, expected {form!r}; {REMEDY}")
        card = card_type.model_validate_json(metadata["card"], strict=True)
    except (AttributeError, ValueError) as error:
        raise FormatError(f"{path}: its card does not validate: {in_words(error)}; {REMEDY}") from error
    if card.fingerprint != card.task.fingerprint:
        raise FormatError(
            f"{path}: fingerprint {card.fingerprint[:12]}… is not that of its own task card, "
            f"{card.task.fingerprint[:12]}…; the card was altered: {REMEDY}"
        )
    found = content_digest(tensors)
    if found != card.content_sha256:
        raise FormatError(
            f"{path}: tensors have SHA-256 {found[:12]}…, its card says {card.content_sha256[:12]}…; "
            f"the file is damaged: {REMEDY}"
        )
    return tensors, card


def check_layout(path: Path, tensors: Tensors, expected: Mapping[str, Layout]) -> None:
    """Check that a bundle has exactly the tensors that it should, with their shapes and dtypes.

    Args:
        path: the file, for messages.
        tensors: what it holds.
        expected: name → (shape, name of the dtype).

    Raises:
        FormatError: a tensor is missing, foreign, or of another shape or dtype.
    """
    if missing := expected.keys() - tensors.keys():
        raise FormatError(f"{path}: lacks the tensors {', '.join(sorted(missing))}; {REMEDY}")
    for name, array in tensors.items():
        if name not in expected:
            raise FormatError(f"{path}: has a tensor {name!r} that does not belong there; {REMEDY}")
        shape, dtype = expected[name]
        if (array.shape, array.dtype.name) != (shape, dtype):
            raise FormatError(
                f"{path}: tensor {name} is {array.dtype} {array.shape}, expected {dtype} {shape}; {REMEDY}"
            )
