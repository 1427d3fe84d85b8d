"""The 8×8 digits that scikit-learn carries: 1,797 images, no download.

Source: Alpaydin and Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository
(1998); its test part. Rows of one writer stand together in the file, so it is shuffled once. The order comes
from raw words of a counter-based bit generator, whose stream NumPy guarantees, and a stable sort;
`Generator.permutation` has no such guarantee (NEP 19).
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attriboard.base.digits import digits_table
from attriboard.base.errors import CardError
from attriboard.contracts.card import DataSpec
from attriboard.contracts.task import Dataset
from attriboard.tasks.datasets.arrays import ArrayLayout, Arrays
from attriboard.tasks.datasets.pixels import PixelOptions, flat_examples, labelled_dataset
from attriboard.tasks.datasets.sources import Loader, Source

N_IMAGES = 1_797


class DigitsOptions(PixelOptions):
    """Options of the data set `digits`."""

    seed: int = Field(ge=0, lt=2**64, description="of the one shuffle before the split into train and test")


class DigitsLoader(Loader):
    """Digits as flat float32 vectors (n, 64) and int64 labels (n,)."""

    layout: ClassVar = {
        "train_images": ArrayLayout("uint8", (8, 8)),
        "train_labels": ArrayLayout("int64"),
        "test_images": ArrayLayout("uint8", (8, 8)),
        "test_labels": ArrayLayout("int64"),
    }

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        if spec.n_train + spec.n_test > N_IMAGES:
            raise CardError(f"data.n_train + data.n_test = {spec.n_train} + {spec.n_test}: there are {N_IMAGES} digits")
        self._options = DigitsOptions.parse("data.options", spec.options)

    def sources(self) -> Sequence[Source]:
        """What is installed with scikit-learn, and nothing else."""
        return (_Embedded(self.spec, self._options.seed),)

    def prepare(self, arrays: Arrays) -> Dataset:
        """Standardize with the card's constants."""
        return labelled_dataset(arrays, self._options, flat_examples)


class _Embedded(Source):
    name = "scikit-learn"

    def __init__(self, spec: DataSpec, seed: int) -> None:
        self._spec = spec
        self._seed = seed

    def present(self) -> bool:
        return True

    def fetch(self) -> Arrays:
        table = digits_table()
        order = shuffled_order(N_IMAGES, self._seed)
        train, test = np.split(order[: self._spec.n_train + self._spec.n_test], [self._spec.n_train])
        images = table[:, :-1].reshape(-1, 8, 8).astype(np.uint8)
        labels = table[:, -1].astype(np.int64)
        return {
            "train_images": images[train],
            "train_labels": labels[train],
            "test_images": images[test],
            "test_labels": labels[test],
        }


def shuffled_order(n: int, seed: int) -> NDArray[Any]:
    """A permutation of 0 … n−1 that is the same in every version of NumPy, int64 (n,)."""
    words = np.random.Philox(key=seed).random_raw(n)
    return np.argsort(words, kind="stable")
