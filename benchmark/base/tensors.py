"""Headers of safetensors files, read strictly: eight bytes of length, then JSON, then the tensors' bytes.

The library that loads tensors is lenient where it does not matter to it: a tensor that is described twice, fields that
it does not know. Here a file has one meaning or none.
"""

import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

from attriboard.base.documents import parse_json
from attriboard.base.errors import FormatError

MAX_BYTES = 16 << 20
_FIELDS = {"dtype", "shape", "data_offsets"}
_DTYPES = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64")  # those that NumPy has


def read_header(path: Path, also: Collection[str] = ()) -> dict[str, Any]:
    """The header: tensor name → dtype, shape, data_offsets; `__metadata__` → texts.

    Args:
        path: the file.
        also: types that it may have beside NumPy's; `BF16` for who does not read the tensors with NumPy.

    Raises:
        FormatError: no such file, too long, no JSON, a key twice, or fields that do not belong there.
    """
    return read_layout(path, also)[1]


def read_layout(path: Path, also: Collection[str] = ()) -> tuple[int, dict[str, Any]]:
    """Where the tensors' bytes begin, and the header; see `read_header`."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_BYTES:
                raise ValueError(f"a header of {length} bytes, at most {MAX_BYTES} are read")
            header = parse_json(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("a header that is no mapping")
        for name, tensor in header.items():
            if name != "__metadata__" and not (isinstance(tensor, dict) and tensor.keys() == _FIELDS):
                raise ValueError(f"tensor {name[:80]!r} is described by other fields than {', '.join(sorted(_FIELDS))}")
            if name != "__metadata__" and tensor["dtype"] not in (*_DTYPES, *also):
                kinds = ", ".join((*_DTYPES, *also))
                raise ValueError(f"tensor {name[:80]!r} is of {str(tensor['dtype'])[:80]!r}, which is none of {kinds}")
    except (OSError, ValueError, struct.error) as error:
        raise FormatError(f"{path}: not a readable safetensors file: {error}") from error
    return 8 + length, header
