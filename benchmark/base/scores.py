"""Score matrices (n_test, n_train), ours and other people's, on disk and in memory.

On disk they are safetensors files with one tensor `scores`, or `.npy` files. Float64 stays float64: what is graded is
what was given.
"""

import json
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import FormatError, InputError
from attriboard.base.interchange import is_bergson, is_torch, read_bergson, read_torch
from attriboard.base.tensors import read_header, read_layout

MAX_BYTES = 4 << 30  # of a file whose shape nobody knows beforehand
Scores = NDArray[np.floating[Any]]
"""Scores (n_test, n_train), float32 or float64."""

_REAL = "must be real numbers (n_test, n_train): float16, bfloat16, float32, float64 or integers"
_DTYPES = {"F16": 2, "F32": 4, "F64": 8}
_MAX_HEADER = 1 << 20
BLOCK_BYTES = 64 * 2**20  # of rows that are written at once


def scores_digest(scores: Scores) -> str:
    """SHA-256 of a score matrix's bytes, float32 in C order, as records have it."""
    with np.errstate(over="ignore"):
        single = np.ascontiguousarray(scores, dtype=np.float32)
    return digest_bytes(single.data)


def as_matrix(scores: Any) -> Scores:
    """Scores as an array in which every value is kept: float32 or float64.

    Args:
        scores: an array, a tensor of PyTorch (on any device, with or without a graph), or nested lists.

    Raises:
        InputError: no numbers, or complex ones.
    """
    if hasattr(scores, "detach"):
        scores = scores.detach().cpu()
        if getattr(scores, "is_sparse", False) or str(getattr(scores, "layout", "torch.strided")) != "torch.strided":
            scores = scores.to_dense()
        if str(scores.dtype) == "torch.bfloat16":  # NumPy has no such type
            scores = scores.float()
        scores = scores.resolve_conj().resolve_neg()
    try:
        array = np.asarray(scores)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"scores: a {type(scores).__name__} is no array of numbers ({error}); {_REAL}") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"scores are of type {array.dtype}: {_REAL}")
    wide = array.dtype.kind != "f" or array.dtype.itemsize > 4
    return array.astype(np.float64 if wide else np.float32, copy=False)


def read_matrix(path: Path, shape: tuple[int, int] | None = None) -> Scores:
    """Read a score matrix; nothing is loaded before its header is found to be what it should.

    Args:
        path: a `.safetensors` file with one tensor `scores`, a `.npy` file, a tensor of `torch.save` or a folder of
            scores of bergson; see `attriboard.base.interchange`.
        shape: (n_test, n_train), where it is known.

    Returns:
        (n_test, n_train), float32, or float64 where the file has it.

    Raises:
        FormatError: no such file, another format, another shape or type, or finite nowhere.
    """
    shown = "" if shape is None else f" = {shape}"
    rule = f"must hold one tensor 'scores', (n_test, n_train){shown}, of float16, float32 or float64"
    limit = MAX_BYTES if shape is None else shape[0] * shape[1] * max(_DTYPES.values()) + _MAX_HEADER
    if is_bergson(path):
        return _checked(path, read_bergson(path), shape, rule)
    try:
        if path.is_file() and path.stat().st_size > limit:
            raise FormatError(f"{path}: {path.stat().st_size} bytes are more than scores can have; it {rule}")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        raise FormatError(f"{path}: {why}; it {rule}") from error
    if start.startswith(b"\x93NUMPY"):
        scores = _read_npy(path, shape, rule.replace("one tensor 'scores'", "one array"))
    elif start.startswith(b"PK") and is_torch(path):
        scores = _of_torch(path, shape, rule)
    elif foreign := _foreign(path, start):
        raise FormatError(f"{path}: not a readable safetensors file but {foreign}: {_REMEDY}; it {rule}")
    else:
        scores = _read_safetensors(path, shape, rule)
    return _checked(path, scores, shape, rule)


def _checked(path: Path, scores: Scores, shape: tuple[int, int] | None, rule: str) -> Scores:
    if shape and scores.shape != shape:
        raise FormatError(f"{path}: scores are {scores.shape}; it {rule}")
    if not np.isfinite(scores).all(axis=1).any():
        raise FormatError(f"{path}: every row of scores has NaN or infinity; it {rule}, finite")
    return scores


def _of_torch(path: Path, shape: tuple[int, int] | None, rule: str) -> Scores:
    """A saved tensor; (n_train, n_test), as dattri has it, unless it only fits the other way round."""
    scores = as_matrix(read_torch(path))
    return scores if shape and scores.shape == shape and shape[0] != shape[1] else np.ascontiguousarray(scores.T)


_REMEDY = (
    "save the scores (n_test, n_train) with numpy.save('scores.npy', scores) or "
    "safetensors.numpy.save_file({'scores': scores}, 'scores.safetensors')"
)


def _foreign(path: Path, start: bytes) -> str | None:
    """What a file is by its first bytes, if it is one of those that people take for scores."""
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = archive.namelist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
            members = []
        return "a file of numpy.savez" if any(member.endswith(".npy") for member in members) else "a zip archive"
    if start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[2:].strip(b"\0"):
        return "a pickle, which can run code when it is loaded"
    return "an HDF5 file" if start.startswith(b"\x89HDF") else None


def _read_npy(path: Path, shape: tuple[int, int] | None, rule: str) -> Scores:
    """An array that NumPy saved; objects, which would be pickles, are refused."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, MemoryError, OverflowError) as error:
        raise FormatError(f"{path}: not a readable .npy file ({error}); it {rule}") from error
    found, dtype = mapped.shape, mapped.dtype
    if len(found) != 2 or 0 in found or dtype.kind != "f" or dtype.itemsize > 8 or (shape and found != shape):
        raise FormatError(f"{path}: scores are {found} {dtype}; it {rule}")
    native = np.array(mapped, dtype=dtype.newbyteorder("="), order="C")
    return as_matrix(native)


def _read_safetensors(path: Path, shape: tuple[int, int] | None, rule: str) -> Scores:
    from safetensors import SafetensorError, safe_open

    try:
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
            return as_matrix(file.get_tensor("scores"))
    except (OSError, ValueError, SafetensorError) as error:
        raise FormatError(f"{path}: not a readable safetensors file ({error}); it {rule}") from error


def write_scores(path: Path, scores: Scores) -> None:
    """Write scores (n_test, n_train) in the precision that they have, a block of rows at a time.

    The format is a length, a JSON header padded to a multiple of eight bytes, and the numbers
    (https://huggingface.co/docs/safetensors). The library's own writer would hold a second copy.
    """
    rows, columns = scores.shape
    size = scores.dtype.itemsize
    tensor = {"dtype": f"F{8 * size}", "shape": [rows, columns], "data_offsets": [0, size * rows * columns]}
    header = json.dumps({"scores": tensor}).encode()
    header += b" " * (-len(header) % 8)
    step = max(1, BLOCK_BYTES // max(1, size * columns))
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for start in range(0, rows, step):
            file.write(np.ascontiguousarray(scores[start : start + step], dtype=f"<f{size}").data)


def extremes(
    scores: NDArray[np.floating[Any]], tests: Sequence[int], k: int
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
    """Training examples by their mean score over test points.

    Args:
        scores: (n_test, n_train).
        tests: rows of `scores`.
        k: how many.

    Returns:
        Mean scores (n_train,); the k most helpful examples, best first; the k most harmful ones, worst first.
    """
    mean = scores[list(tests)].mean(axis=0, dtype=np.float64)
    order = np.argsort(-mean, kind="stable")
    return mean, order[:k], order[::-1][:k]


def map_scores(path: Path) -> Scores:
    """What `write_scores` wrote, mapped into memory: pages are read when looked at; changes stay in memory.

    Raises:
        FormatError: the file holds something else.
    """
    offset, header = read_layout(path)
    if set(header) != {"scores"}:
        raise FormatError(f"{path}: holds {', '.join(header)}, must hold one tensor 'scores'")
    tensor = header["scores"]
    size = {"F32": 4, "F64": 8}.get(tensor.get("dtype"), 0)
    if not size or offset + size * int(np.prod(tensor["shape"])) != path.stat().st_size:
        raise FormatError(f"{path}: torn, or not one float32 or float64 tensor 'scores'")
    return np.memmap(path, dtype=f"<f{size}", mode="c", offset=offset, shape=tuple(tensor["shape"]))
