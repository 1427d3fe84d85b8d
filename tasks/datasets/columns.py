"""Data sets of your own in a card: arrays of an npz file, or two columns of a Hugging Face data set.

    dataset: npz                                        dataset: huggingface
    options: {file: data.npz}                           options: {name: owner/name, revision: …, inputs: x, targets: y}
    sha256: {file: …}                                   sha256: {train_inputs: …, train_targets: …, …}, or null

The npz file has `train_inputs`, `train_targets`, `test_inputs` and `test_targets`. The Hugging Face data set lies on
the Hub, in the mirror, or in a folder beside the card; a folder is pinned by the digests of its arrays.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.errors import CardError, DataError, InputError
from attriboard.base.paths import datasets_folder
from attriboard.contracts.card import DataSpec
from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.datasets.arrays import ArrayLayout, Arrays, read_npz
from attriboard.tasks.datasets.downloads import HubDataset
from attriboard.tasks.examples import read_examples
from attriboard.tasks.fields import Options
from attriboard.tasks.hub import Absent, import_extra

PARTS = ("train_inputs", "train_targets", "test_inputs", "test_targets")


class ColumnsLoader(ABC):
    """Inputs and targets of any shape, from a place that the card names.

    Args:
        spec: the card's data.
        folder: what paths in the card are relative to; the working folder where `None`.

    Raises:
        CardError: an option is wrong, or the digests are of other things than the data set has.
    """

    digests: ClassVar[tuple[str, ...]]

    def __init__(self, spec: DataSpec, folder: Path | None) -> None:
        self.spec, self.folder = spec, (folder or Path()).absolute()
        if set(spec.sha256) != set(self.digests):
            raise CardError(
                f"data.sha256 names {sorted(spec.sha256)}: data set {spec.dataset} has {', '.join(self.digests)}; null "
                "where you do not know one yet: loading says what it is"
            )

    @abstractmethod
    def arrays(self) -> Arrays:
        """The four arrays of `PARTS`, checked against the card's digests.

        Raises:
            DataError: there are none, or other ones.
        """

    @abstractmethod
    def available(self) -> bool:
        """Whether `load` finds the data without a download; looks, but reads nothing."""

    def text(self, tokens: Sequence[int]) -> str | None:
        """Nobody knows the tokens."""
        return None

    def load(self) -> Dataset:
        """The first rows of each side, as many as the card says.

        Raises:
            DataError: there are fewer, or they are no finite numbers; or see `arrays`.
        """
        arrays = self.arrays()
        sides: dict[str, Examples] = {}
        for side, n in (("train", self.spec.n_train), ("test", self.spec.n_test)):
            inputs, targets = arrays[f"{side}_inputs"][:n], arrays[f"{side}_targets"][:n]
            if len(inputs) < n or len(targets) < n:
                raise DataError(
                    f"data.n_{side} = {n}: the data has {len(inputs)} {side} inputs and {len(targets)} targets"
                )
            try:
                sides[side] = read_examples(side, (inputs, targets))
            except InputError as error:
                raise DataError(f"data set {self.spec.dataset}: {error}") from error
        return Dataset(sides["train"], sides["test"])

    def pinned(self, found: dict[str, str], required: bool) -> None:
        """Compare digests with the card's.

        Raises:
            DataError: another digest, or one that is required and missing; the message has what was found.
        """
        paste = ", ".join(f"{name}: {value}" for name, value in found.items())
        for name, value in found.items():
            known = self.spec.sha256[name]
            if known is None and required:
                raise DataError(f"data.sha256.{name} = null: nothing pins this data; write sha256: {{{paste}}}")
            if known not in (None, value):
                raise DataError(
                    f"data.sha256.{name}: the data has {value}, the card pins {known}; get the data that the card "
                    "means, or give the task another name and pin this"
                )


class NpzOptions(Options):
    """Options of the data set `npz`."""

    file: str = Field(min_length=1, description="path, relative to the card")


class NpzLoader(ColumnsLoader):
    """Four arrays of one npz file."""

    digests = ("file",)

    def __init__(self, spec: DataSpec, folder: Path | None = None) -> None:
        super().__init__(spec, folder)
        self._path = self.folder / NpzOptions.parse("data.options", spec.options).file

    def available(self) -> bool:
        """Whether the file is there."""
        return self._path.is_file()

    def arrays(self) -> Arrays:
        """See `ColumnsLoader`."""
        if not self._path.is_file():
            raise DataError(f"data.options.file: there is no {self._path}; the path is relative to the card")
        self.pinned({"file": digest_file(self._path)}, required=True)
        return read_npz(self._path, dict.fromkeys(PARTS, ArrayLayout("any")))


class HuggingFaceOptions(Options):
    """Options of the data set `huggingface`."""

    name: str = Field(min_length=1, description="owner/name on the Hub, or a folder beside the card")
    revision: str = Field(default="", description="full commit hash; not of a folder")
    configuration: str = Field(default="", description="where the repository holds several data sets")
    inputs: str = Field(min_length=1, description="column; several, joined by commas, are put side by side")
    targets: str = Field(min_length=1, description="column, or several")
    train_split: str = "train"
    test_split: str = "test"


class HuggingFaceLoader(ColumnsLoader):
    """Two columns, or several side by side, of two splits."""

    digests = PARTS

    def __init__(self, spec: DataSpec, folder: Path | None = None) -> None:
        super().__init__(spec, folder)
        self._options = HuggingFaceOptions.parse("data.options", spec.options)
        self._local = self.folder / self._options.name
        if not self._local.is_dir() and len(self._options.revision) != 40:
            raise CardError(
                f"data.options.revision = {self._options.revision!r}: give the full commit hash, 40 characters, of "
                f"{self._options.name} on the Hub; or put its files into the folder {self._local}"
            )

    @property
    def _hub(self) -> HubDataset:
        options = self._options
        return HubDataset(options.name, options.revision, options.configuration or None)

    def available(self) -> bool:
        """Whether there is a folder or a copy in the mirror."""
        return self._local.is_dir() or self._hub.repository.copy() is not None

    def arrays(self) -> Arrays:
        """See `ColumnsLoader`."""
        options, found = self._options, {}
        for side, split in (("train", options.train_split), ("test", options.test_split)):
            table = self._rows(split)
            for part, names in (("inputs", options.inputs), ("targets", options.targets)):
                found[f"{side}_{part}"] = _values(table, names, f"data.options.{part}")
        digests = {name: digest_bytes(np.ascontiguousarray(array).tobytes()) for name, array in found.items()}
        self.pinned(digests, required=self._local.is_dir())
        return found

    def _rows(self, split: str) -> Any:
        try:
            if not self._local.is_dir():
                return self._hub.rows(split)
            return import_extra("datasets").load_dataset(
                str(self._local),
                self._options.configuration or None,
                split=split,
                cache_dir=str(datasets_folder() / "hub"),
            )
        except Absent as error:
            raise DataError(
                f"data set {self._options.name}: {error}; pip install 'attriboard[hf]', and a network or a copy: "
                f"{self._hub.repository.remedy}"
            ) from error
        except DataError:
            raise
        except Exception as error:  # what `datasets` raises has no common base
            raise DataError(f"{self._local}: cannot read split {split}: {type(error).__name__}: {error}") from error


def _values(table: Any, names: str, field: str) -> np.ndarray[Any, Any]:
    """Columns as one array, several side by side.

    Raises:
        DataError: a column that there is not, or that has no numbers of one shape.
    """
    columns = []
    for name in (part.strip() for part in names.split(",")):
        if name not in table.column_names:
            raise DataError(f"{field} = {names}: there is no column {name}; there are {', '.join(table.column_names)}")
        try:
            array = np.asarray(table.with_format("numpy")[:][name])
        except ValueError as error:
            raise DataError(f"{field}: rows of column {name} differ in length; pad or crop them first") from error
        if array.dtype.kind not in "fiub":
            raise DataError(f"{field}: column {name} has {array.dtype}, not numbers of one shape; encode it first")
        columns.append(array)
    return columns[0] if len(columns) == 1 else np.stack(columns, axis=-1)
