"""Score matrices on disk: one tensor `scores` in a safetensors file, written and read without a copy in memory."""

import json
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.errors import FormatError
from attriboard.headers import read_layout

__all__ = ["map_scores", "write_scores"]

BLOCK_BYTES = 64 * 2**20


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
