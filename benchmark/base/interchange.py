"""Score matrices in the formats of other libraries: bergson's score folders, tensors that PyTorch saved.

Nothing of theirs is run.

A bergson store (bergson 2.5) is a folder with `info.json` and `scores.bin`, one record for each training example: a
number `score_j` and a flag `written_j` for each query j. Where the `score_cfg` beside it says `higher_is_better:
false`, or there is none, a negative score marks an example that lowers the query's loss, and signs are flipped.

dattri, like any other caller of `torch.save`, keeps a tensor (n_train, n_test) in a zip archive, whose description of
the tensor is a pickle. It is not unpickled: its opcodes are read one by one, and only those that describe one plain
tensor are understood. dattri's influence and TracIn scores are of the other sign than ours, its TRAK scores are not;
only the file's owner knows, so the sign is kept.
"""

from __future__ import annotations

import json
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.documents import parse_json, parse_yaml, read_bounded
from attriboard.base.errors import FormatError

MAX_DOCUMENT = 16 << 20
STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2"}
REBUILD = "torch._utils _rebuild_tensor_v2"
BERGSON_FILES = ("info.json", "scores.bin")


def is_bergson(path: Path) -> bool:
    """Whether a folder looks like a bergson score store."""
    return path.is_dir() and all((path / name).is_file() for name in BERGSON_FILES)


def read_bergson(folder: Path) -> NDArray[np.floating[Any]]:
    """Scores (n_queries, n_train), positive for training examples that help.

    Raises:
        FormatError: not such a store, scores of tokens, another layout, scores that were never written, or a
            configuration that cannot be read.
    """
    rule = "a bergson score folder has info.json and scores.bin, with score_j and written_j for every query"
    try:
        info = parse_json(read_bounded(folder / "info.json", MAX_DOCUMENT, "a description of scores"))
        if info.get("attribute_tokens"):
            raise FormatError(f"{folder}: has scores of tokens; sum them over each example")
        rows, count = (_whole(info[key]) for key in ("num_rows", "num_scores"))
        if not (rows and count):
            raise ValueError(f"num_rows = {rows}, num_scores = {count}: no scores")
        dtype = _layout(info["dtype"], count)
        if (folder / "scores.bin").stat().st_size != rows * dtype.itemsize:
            raise FormatError(f"{folder}: scores.bin must be {rows:,} records of {dtype.itemsize} bytes long; {rule}")
        table = np.memmap(folder / "scores.bin", dtype=dtype, mode="r", shape=(rows,))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{folder}: {type(error).__name__}: {error}; {rule}") from error
    if missing := sum(int((~table[f"written_{j}"]).sum()) for j in range(count)):
        raise FormatError(f"{folder}: {missing} scores were never written: finish the run, or run it again")
    scores = np.stack([np.asarray(table[f"score_{j}"]) for j in range(count)])
    if scores.dtype.itemsize < 4:
        scores = scores.astype(np.float32)
    return scores if _higher_is_better(folder) else -scores


def write_bergson(folder: Path, scores: NDArray[np.floating[Any]]) -> None:
    """Scores (n_test, n_train), positive = helpful, as a bergson score store that says so."""
    folder.mkdir(parents=True, exist_ok=True)
    count, rows = scores.shape
    width = 8 if scores.dtype.itemsize == 4 else 16
    kind = f"float{8 * scores.dtype.itemsize}"
    layout = {
        "names": _fields(count),
        "formats": [kind, "bool"] * count,
        "offsets": [place for j in range(count) for place in (j * width, j * width + scores.dtype.itemsize)],
        "itemsize": count * width,
    }
    table = np.zeros(rows, dtype=_layout(layout, count))
    for j in range(count):
        table[f"score_{j}"], table[f"written_{j}"] = scores[j], True
    (folder / "scores.bin").write_bytes(table.data)
    info = {"attribute_tokens": False, "num_items": rows, "num_rows": rows, "num_scores": count, "dtype": layout}
    (folder / "info.json").write_text(json.dumps(info, indent=2), encoding="utf-8")
    configuration = "steps:\n- score:\n    score_cfg:\n      higher_is_better: true\n"
    (folder / "config.yaml").write_text(configuration, encoding="utf-8")


def is_torch(path: Path) -> bool:
    """Whether a zip archive is what `torch.save` writes."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False


def read_torch(path: Path) -> NDArray[np.floating[Any]]:
    """The one tensor of a file that `torch.save` wrote.

    Raises:
        FormatError: another archive, or anything but one plain tensor of two axes and floating-point numbers.
    """
    rule = "a file of torch.save is read where it holds one tensor (n_train, n_test) of floating-point numbers"
    try:
        with zipfile.ZipFile(path) as archive:
            (described,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            if archive.getinfo(described).file_size > MAX_DOCUMENT:
                raise ValueError("a description that is too long")
            kind, key, offset, size, stride = _tensor(archive.read(described))
            root = described.removesuffix("data.pkl")
            if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
                raise ValueError("numbers of another byte order")
            numbers = np.frombuffer(archive.read(f"{root}data/{key}"), dtype=STORAGES[kind])
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if len(size) != 2 or min(size) < 1 or min(stride) < 0 or not 0 <= offset <= last < len(numbers):
            raise ValueError(f"a tensor {size} with strides {stride} in {len(numbers)} numbers")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: {type(error).__name__}: {error}; {rule}") from error
    steps = tuple(step * numbers.itemsize for step in stride)
    return np.array(np.lib.stride_tricks.as_strided(numbers[offset:], size, steps))


def _tensor(description: bytes) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
    """Storage type, name of the storage, offset, sizes and strides, from the opcodes of a pickled tensor.

    A stack machine that knows constants, tuples and the names that a tensor needs; it calls nothing.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(description):
        name = opcode.name
        if name in ("PROTO", "FRAME", "STOP"):
            continue
        if name == "GLOBAL":
            stack.append(("global", str(argument)))
        elif name in ("BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"):
            stack.append(argument)
        elif name in ("NEWTRUE", "NEWFALSE"):
            stack.append(name == "NEWTRUE")
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "TUPLE":
            start = marks.pop()
            stack[start:] = [tuple(stack[start:])]
        elif name in ("EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
            length = 0 if name == "EMPTY_TUPLE" else int(name[-1])
            start = len(stack) - length
            stack[start:] = [tuple(stack[start:])]
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "BINPERSID":
            stack[-1] = ("storage", stack[-1])
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(("made", function, arguments))
        else:
            raise ValueError(f"{name}, which no plain tensor needs")
    match stack:
        case [("made", ("global", made), (("storage", ("storage", ("global", kind), str(key), str(), int())), *rest))]:
            offset, size, stride, *_ = rest
            if made == REBUILD and kind.removeprefix("torch ") in STORAGES and key.isdigit():
                return (
                    kind.removeprefix("torch "),
                    key,
                    _whole(offset),
                    tuple(map(_whole, size)),
                    tuple(map(_whole, stride)),
                )
    raise ValueError("no single tensor of float16, float32 or float64")


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**48:
        raise ValueError(f"{value!r}, which is no size")
    return value


def _fields(count: int) -> list[str]:
    return [name for j in range(count) for name in (f"score_{j}", f"written_{j}")]


def _layout(dtype: Any, count: int) -> np.dtype[Any]:
    """The records of a store; only numbers and flags at places of their own."""
    names = _fields(count)
    if set(dtype) != {"names", "formats", "offsets", "itemsize"} or dtype["names"] != names:
        raise ValueError("records with other fields than score_j and written_j")
    kinds = [np.dtype(str(one)) for one in dtype["formats"]]
    if any(kind.kind != ("f", "b")[place % 2] for place, kind in enumerate(kinds)):
        raise ValueError("fields that are no floating-point numbers and flags")
    places, size = [_whole(one) for one in dtype["offsets"]], _whole(dtype["itemsize"])
    found: np.dtype[Any] = np.dtype({"names": names, "formats": kinds, "offsets": places, "itemsize": size})
    return found


def _higher_is_better(folder: Path) -> bool:
    """`higher_is_better` of the first step with a `score_cfg`, by default true; false where no step has one."""
    path = folder / "config.yaml"
    if not path.is_file():
        return False
    try:
        found = parse_yaml(read_bounded(path, MAX_DOCUMENT, "a configuration"))
    except ValueError as error:
        raise FormatError(f"{path}: {error}; repair it, or copy the one that bergson wrote") from error
    steps = found.get("steps", []) if isinstance(found, dict) else []
    for step in steps if isinstance(steps, list) else []:
        for command in step.values() if isinstance(step, dict) else []:
            given = command.get("score_cfg") if isinstance(command, dict) else None
            if isinstance(given, dict):
                return given.get("higher_is_better", True) is True
    return False
