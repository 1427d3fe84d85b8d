"""The 8×8 digits that every installation has: scikit-learn's file, read without scikit-learn."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import DataError


def digits_table() -> NDArray[np.float64]:
    """The file of digits that scikit-learn brings: 64 pixels and the label, (1797, 65).

    Read without scikit-learn itself, which takes seconds to import.

    Raises:
        DataError: it is not there.
    """
    found = find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            table: NDArray[np.float64] = np.loadtxt(path, delimiter=",")
            return table
    raise DataError("digits: scikit-learn is not installed, or without its file datasets/data/digits.csv.gz")
