"""Raw arrays: what each must be, reading them from npz files, comparing them with a card."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import DataError
from attriboard.contracts.card import DataSpec

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ArrayLayout:
    """Type of one raw array: NumPy dtype name and the shape of one row; `read_npz` looks at neither."""

    dtype: str
    row_shape: tuple[int, ...] = ()


def read_npz(path: Path, layout: Mapping[str, ArrayLayout]) -> Arrays:
    """Read the arrays of a layout from an npz file; pickled content is refused.

    Raises:
        DataError: the file is torn or no npz file, or an array is missing or pickled.
    """
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: must be an npz archive with {', '.join(layout)}, is a single array")
            missing = [name for name in layout if name not in archive]
            if missing:
                has = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path}: has no array {' or '.join(missing)}; it has {has}")
            return {name: archive[name] for name in layout}
    except DataError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types on a damaged file
        raise DataError(
            f"{path}: torn or not a plain npz file ({type(error).__name__}: {error}); delete it, and fetch it again"
        ) from error


def check_arrays(arrays: Arrays, spec: DataSpec, layout: Mapping[str, ArrayLayout], origin: str) -> Arrays:
    """Cut arrays to the card's number of rows and compare dtype, shape and SHA-256.

    Args:
        arrays: name → array with at least the card's rows; names start with "train" or "test".
        spec: the card's data.
        layout: what each array must be.
        origin: where the arrays come from, for messages.

    Returns:
        C-contiguous arrays of n_train or n_test rows.

    Raises:
        DataError: the first disagreement, with what was expected and what was found.
    """
    checked = {}
    for name, wanted in layout.items():
        n_rows = spec.n_train if name.startswith("train") else spec.n_test
        array = arrays[name]
        long_enough = array.ndim > 0 and len(array) >= n_rows
        if array.dtype != wanted.dtype or array.shape[1:] != wanted.row_shape or not long_enough:
            raise DataError(
                f"{spec.dataset} from {origin}: {name} is {array.dtype} {array.shape}, "
                f"must be {wanted.dtype} {(n_rows, *wanted.row_shape)} or longer"
            )
        rows = np.ascontiguousarray(array[:n_rows])
        found = digest_bytes(rows.astype(rows.dtype.newbyteorder("<"), copy=False).tobytes())
        if spec.sha256[name] not in (None, found):
            raise DataError(
                f"{spec.dataset} from {origin}: the first {n_rows} rows of {name} have SHA-256 {found}, "
                f"the card pins {spec.sha256[name]}; this copy is damaged or of another version: replace it"
            )
        checked[name] = rows
    return checked
