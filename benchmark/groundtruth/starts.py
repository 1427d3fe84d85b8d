"""The start bundle: published weights that every retrain of a task starts from.

A safetensors file with the tensors that `save_pretrained` writes, under their names there, bfloat16 or float32. Its
metadata has `format: pt`, which readers of such files expect, and a JSON card: what the network is, what it was trained
on and how, with the loss along the way. The weights, not the recipe, are the definition: the card of a task pins the
SHA-256 of the file. So the file names no task, and several may share it.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError, safe_open

from attriboard.base.documents import parse_json
from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import write_atomically
from attriboard.base.schema import Sha256, Timestamp, in_words, matching
from attriboard.base.tensors import read_layout
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.records.model import Provenance
from attriboard.records.provenance import provenance

if TYPE_CHECKING:
    import torch

FORMAT = "attriboard-start/1"
_REMEDY = "pack or download it again"
_BIG = 2**53
_Count = Annotated[int, Field(gt=0, le=_BIG)]
_Seconds = Annotated[float, Field(ge=0)]
_Loss = Annotated[float, Field(ge=0)]


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TrainingText(_Facts):
    """What was read: a file's name in the folder of data, and its SHA-256."""

    file: Annotated[str, Field(min_length=1, max_length=200)]
    sha256: Sha256


class HeldBack(_Facts):
    """Blocks that were never trained on, and the finished model's mean loss of a token of theirs, in nats."""

    blocks: _Count
    loss: _Loss


class Point(_Facts):
    """The loss after a step.

    Attributes:
        step: counted from 1.
        train: mean cross-entropy of a token of the step's batch, in nats.
        held_back: the same of the blocks that are held back.
        seconds, cpu_seconds: that training took since the point before.
    """

    step: _Count
    train: _Loss
    held_back: _Loss
    seconds: _Seconds
    cpu_seconds: _Seconds


class Stage(_Facts):
    """One stage of training: its recipe, name → value, and its curve."""

    recipe: Annotated[dict[str, bool | int | float | str | None], Field(min_length=1)]
    curve: Annotated[tuple[Point, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        steps = [point.step for point in self.curve]
        if steps != sorted(set(steps)):
            raise ValueError("the steps of a curve must ascend")
        return self


class StartCard(_Facts):
    """What a start bundle says of itself.

    Attributes:
        format: name and version of the layout.
        content_sha256: digest of the tensors; see `content_digest`.
        created: UTC, ISO 8601.
        architecture: as in the task's card.
        size: the options of the architecture that give its size, name → number.
        parameters: their number.
        tokens: that it was trained on, each as often as it was read.
        text: where they are from.
        held_back: how good the finished model is.
        stages: how it was trained, in this order.
        provenance: code, versions and hardware.
    """

    format: Literal["attriboard-start/1"]
    content_sha256: Sha256
    created: Timestamp
    architecture: Annotated[str, matching(r"^[a-z][a-z0-9_]{0,63}$", "the name of an architecture, as in gpt2")]
    size: Annotated[dict[str, _Count], Field(min_length=1)]
    parameters: _Count
    tokens: _Count
    text: TrainingText
    held_back: HeldBack
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    provenance: Provenance


class _Tensor(BaseModel):
    """A line of the header."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dtype: Literal["BF16", "F32"]
    shape: tuple[Annotated[int, Field(ge=0, le=_BIG)], ...]
    data_offsets: tuple[int, int]


Tensors = Mapping[str, tuple[_Tensor, NDArray[np.uint8]]]


def content_digest(tensors: Tensors) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors, in the order of their names."""
    state = hashlib.sha256()
    for name in sorted(tensors):
        line, content = tensors[name]
        state.update(f"{name}|{line.dtype}|{line.shape}|".encode())
        state.update(content.data)
    return state.hexdigest()


def write_start(path: Path, tensors: "Mapping[str, torch.Tensor]", facts: Mapping[str, Any]) -> StartCard:
    """Write a start bundle atomically; one with the same tensors that is listed in its folder is left as it is.

    Args:
        path: the file, `TASK-start.safetensors`.
        tensors: under Hugging Face's names, bfloat16 or float32.
        facts: `architecture`, `size`, `tokens`, `text`, `held_back` and `stages` of `StartCard`, as JSON data; the
            other fields follow from the tensors, the clock and this process, unless they are given.

    Returns:
        The card of the file that is there now.

    Raises:
        InputError: a tensor of another type, or with NaN or infinity; facts that make no card; or another bundle of
            this name is published in the folder.
    """
    packed = dict(_packed(tensors))
    card = _card_for(packed, facts)
    if any(entry.file == path.name for entry in BundleRegistry(path.parent).entries):
        there = read_start(path)
        if there.content_sha256 == card.content_sha256:
            return there
        raise InputError(
            f"{path}: is published, and these weights differ from it; published files are never replaced: raise the "
            "task's version, or write elsewhere"
        )
    header: dict[str, Any] = {"__metadata__": {"format": "pt", "card": card.model_dump_json()}}
    header |= {name: line.model_dump() for name, (line, _) in packed.items()}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(content.tobytes() for _, content in packed.values())
    write_atomically(path, struct.pack("<Q", len(text)) + text + body)
    return card


def _packed(tensors: "Mapping[str, torch.Tensor]") -> Iterator[tuple[str, tuple[_Tensor, NDArray[np.uint8]]]]:
    """Float32 first, so that each tensor is aligned; then by name, so that the same weights are the same bytes."""
    import torch

    kinds: dict[torch.dtype, Literal["BF16", "F32"]] = {torch.float32: "F32", torch.bfloat16: "BF16"}
    begin = 0
    for name in sorted(tensors, key=lambda name: (tensors[name].dtype != torch.float32, name)):
        value = tensors[name].detach().cpu().contiguous()
        if value.dtype not in kinds or not value.isfinite().all():
            raise InputError(f"tensor {name}: is {value.dtype}; must be finite numbers in bfloat16 or float32")
        content: NDArray[np.uint8] = value.flatten().view(torch.uint8).numpy()
        line = _Tensor(dtype=kinds[value.dtype], shape=tuple(value.shape), data_offsets=(begin, begin + content.size))
        begin += content.size
        yield name, (line, content)


def _card_for(packed: Tensors, facts: Mapping[str, Any]) -> StartCard:
    own = {
        "format": FORMAT,
        "content_sha256": content_digest(packed),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "parameters": sum(math.prod(line.shape) for line, _ in packed.values()),
        "provenance": provenance().model_dump(mode="json"),
    }
    # Through JSON, so that what was written is what a reader accepts.
    try:
        made = json.dumps({**own, **facts}, allow_nan=False)
        card = StartCard.model_validate_json(made, strict=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"facts of a start: {in_words(error)}") from error
    if (card.content_sha256, card.parameters) != (own["content_sha256"], own["parameters"]):
        raise InputError("facts of a start: content_sha256 and parameters follow from the tensors; leave them out")
    return card


def read_start(path: Path) -> StartCard:
    """Read and check a start bundle against itself.

    Args:
        path: the file.

    Raises:
        FormatError: missing, torn, another format, altered, or weights that are no numbers.
    """
    try:
        begin, header = read_layout(path, also=("BF16",))
        with safe_open(path, framework="numpy"):  # it checks that the tensors fill the file
            pass
        metadata = header.pop("__metadata__", {})
        if metadata.keys() != {"format", "card"} or metadata["format"] != "pt":
            raise ValueError("its metadata must have a card, and format: pt")
        if not header:
            raise ValueError("it has no tensors")
        lines = {name: _Tensor.model_validate_json(json.dumps(line)) for name, line in header.items()}
        content = np.memmap(path, np.uint8, "r")[begin:]
        tensors = {name: (line, content[slice(*line.data_offsets)]) for name, line in lines.items()}
        card = _read_card(metadata["card"])
    except FormatError as error:
        raise FormatError(f"{error}; {_REMEDY}") from error
    except (OSError, SafetensorError, AttributeError, ValueError) as error:
        raise FormatError(f"{path}: not a readable start bundle: {in_words(error)}; {_REMEDY}") from error
    if broken := [name for name, (line, values) in tensors.items() if not _finite(line, values)]:
        raise FormatError(f"{path}: {', '.join(broken)[:200]} has NaN or infinity; {_REMEDY}")
    if (n := sum(math.prod(line.shape) for line in lines.values())) != card.parameters:
        raise FormatError(f"{path}: has {n} parameters, its card says {card.parameters}; {_REMEDY}")
    if (found := content_digest(tensors)) != card.content_sha256:
        raise FormatError(
            f"{path}: tensors have SHA-256 {found[:12]}…, its card says {card.content_sha256[:12]}…; the file is "
            f"damaged: {_REMEDY}"
        )
    return card


def _read_card(text: str) -> StartCard:
    claimed = parse_json(text)
    if claimed.get("format") != FORMAT:
        raise ValueError(f"format {str(claimed.get('format'))[:80]!r}, expected {FORMAT!r}")
    return StartCard.model_validate_json(text, strict=True)


def _finite(line: _Tensor, content: NDArray[np.uint8]) -> bool:
    """Whether no exponent is all ones, which is how infinity and NaN are written."""
    bits, exponent = ("<u2", 0x7F80) if line.dtype == "BF16" else ("<u4", 0x7F800000)
    return bool(((content.view(bits) & exponent) != exponent).all())
