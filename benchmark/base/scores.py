"""Score matrices on disk: safetensors files with one tensor `scores` (n_test, n_train), ours and other people's."""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import FormatError
from attriboard.base.tensors import read_header, read_layout

MAX_BYTES = 4 << 30  # of a file whose shape nobody knows beforehand
_DTYPES = {"F16": 2, "F32": 4, "F64": 8}
_MAX_HEADER = 1 << 20
BLOCK_BYTES = 64 * 2**20  # of rows that are written at once


def scores_digest(scores: NDArray[np.float32]) -> str:
    """SHA-256 of a score matrix's bytes, float32 in C order, as records have it."""
    return digest_bytes(np.ascontiguousarray(scores, dtype=np.float32).data)


def read_matrix(path: Path, shape: tuple[int, int] | None = None) -> NDArray[np.float32]:
    """Read a score matrix; nothing is loaded before its header is found to be what it should.

    Args:
        path: the file.
        shape: (n_test, n_train), where it is known.

    Raises:
        FormatError: no such file, another format, another shape or type, or finite nowhere.
    """
    from safetensors import SafetensorError, safe_open

    shown = "" if shape is None else f" = {shape}"
    rule = f"must hold one tensor 'scores', (n_test, n_train){shown}, float32"
    limit = MAX_BYTES if shape is None else shape[0] * shape[1] * max(_DTYPES.values()) + _MAX_HEADER
    try:
        if path.is_file() and path.stat().st_size > limit:
            raise FormatError(f"{path}: {path.stat().st_size} bytes are more than scores can have; it {rule}")
        try:
            read_header(path)
        except FormatError as error:
            raise FormatError(f"{error}; it {rule}") from error
        with safe_open(path, framework="numpy") as file:
            names = list(file.keys())
            if names != ["scores"]:
                raise FormatError(f"{path}: holds tensors {', '.join(names)[:200] or 'none'}; it {rule}")
            header = file.get_slice("scores")
            found, dtype = tuple(header.get_shape()), header.get_dtype()
            if len(found) != 2 or dtype not in _DTYPES or 0 in found or (shape and found != shape):
                raise FormatError(f"{path}: scores are {found} {dtype}; it {rule}")
            scores = file.get_tensor("scores")
    except (OSError, ValueError, SafetensorError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error}); it {rule}") from error
    with np.errstate(over="ignore"):
        single: NDArray[np.float32] = scores.astype(np.float32)
    if not np.isfinite(single).all(axis=1).any():
        raise FormatError(f"{path}: every row of scores has NaN or infinity; it {rule}, finite")
    return single


def write_scores(path: Path, scores: NDArray[np.float32]) -> None:
    """Write scores (n_test, n_train), a block of rows at a time.

    The format is a length, a JSON header padded to a multiple of eight bytes, and the numbers
    (https://huggingface.co/docs/safetensors). The library's own writer would hold a second copy.
    """
    rows, columns = scores.shape
    tensor = {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, 4 * rows * columns]}
    header = json.dumps({"scores": tensor}).encode()
    header += b" " * (-len(header) % 8)
    step = max(1, BLOCK_BYTES // max(1, 4 * columns))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, rows, step):
            file.write(np.ascontiguousarray(scores[start : start + step], dtype="<f4").data)


def map_scores(path: Path) -> NDArray[np.float32]:
    """What `write_scores` wrote, mapped into memory: pages are read when looked at; changes stay in memory.

    Raises:
        FormatError: the file holds something else.
    """
    offset, header = read_layout(path)
    if set(header) != {"scores"}:
        raise FormatError(f"{path}: holds {', '.join(header)}, must hold one tensor 'scores'")
    tensor = header["scores"]
    if tensor.get("dtype") != "F32" or offset + 4 * int(np.prod(tensor["shape"])) != path.stat().st_size:
        raise FormatError(f"{path}: torn, or not one float32 tensor 'scores'")
    return np.memmap(path, dtype="<f4", mode="c", offset=offset, shape=tuple(tensor["shape"]))
