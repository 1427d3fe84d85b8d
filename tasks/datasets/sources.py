"""Where raw arrays come from: sources tried in order, one digest for all of them.

A source has the data, or it says why not (`Absent`) and the next one is asked. A source that answers is held
to its answer: arrays that are torn, of another shape or of other bytes than the card pins are an error, and
no other source is asked instead. A wrong copy that goes unnoticed is how people compare scores on different
data.
"""

import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attriboard.base.digests import digest
from attriboard.base.errors import CardError, DataError
from attriboard.base.paths import datasets_folder
from attriboard.contracts.card import DataSpec
from attriboard.contracts.task import Dataset
from attriboard.tasks.datasets.arrays import ArrayLayout, Arrays, check_arrays, read_npz
from attriboard.tasks.hub import Absent
from attriboard.tasks.mirror import mirror_directory


class Source(ABC):
    """One place that may have the raw arrays.

    Attributes:
        name: for messages.
        remedy: what a user can do so that this source answers; empty where there is nothing to do.
        remote: whether an answer is worth keeping in the cache.
    """

    name: str
    remedy: str = ""
    remote: bool = False

    def present(self) -> bool:
        """Whether `fetch` would answer without a download; must be fast."""
        return False

    @abstractmethod
    def fetch(self) -> Arrays:
        """Raw arrays with at least the rows that the card asks for; unchecked.

        Raises:
            Absent: the source does not have them.
            DataError: the source has something, but not what it should be.
        """


@dataclass(frozen=True)
class MirrorFile:
    """An npz file of the offline mirror, with the numbers of rows it holds."""

    name: str
    n_train: int
    n_test: int


class Mirror(Source):
    """The directory that the environment variable ATTRIBOARD_DATA names.

    Args:
        files: candidates, best first; the first that is large enough for the card and exists is read.
        spec: the card's data.
        layout: the arrays to read.
    """

    name = "offline mirror"

    def __init__(self, files: Sequence[MirrorFile], spec: DataSpec, layout: Mapping[str, ArrayLayout]) -> None:
        self.candidates = [f.name for f in files if f.n_train >= spec.n_train and f.n_test >= spec.n_test]
        self.layout = layout
        self.remedy = f"ATTRIBOARD_DATA=DIR, a directory with {' or '.join(self.candidates)}"

    def present(self) -> bool:
        """Whether the mirror has one of the files.

        Raises:
            DataError: ATTRIBOARD_DATA names no directory.
        """
        return self._find() is not None

    def fetch(self) -> Arrays:
        """Read the first file that is there; see `Source.fetch`."""
        path = self._find()
        if path is None:
            directory = mirror_directory()
            raise Absent(
                f"{directory} has no {' or '.join(self.candidates)}" if directory else "ATTRIBOARD_DATA is not set"
            )
        return read_npz(path, self.layout)

    def _find(self) -> Path | None:
        directory = mirror_directory()
        if directory is None:
            return None
        return next((directory / name for name in self.candidates if (directory / name).exists()), None)


class Cache(Source):
    """Arrays that were downloaded before: one npz file per data set and set of digests.

    The directory is `attriboard.base.paths.datasets_folder`.
    """

    name = "cache of earlier downloads"

    def __init__(self, spec: DataSpec, layout: Mapping[str, ArrayLayout]) -> None:
        self.path = datasets_folder() / f"{spec.dataset}-{digest(spec.sha256)[:16]}.npz"
        self.layout = layout

    def present(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def fetch(self) -> Arrays:
        """Read the file; see `Source.fetch`."""
        if not self.path.exists():
            raise Absent(f"{self.path} does not exist")
        return read_npz(self.path, self.layout)

    def keep(self, arrays: Arrays) -> None:
        """Write the file so that it is there whole or not at all; where that fails, warn."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".writing-") as scratch:
                whole = Path(scratch) / self.path.name
                np.savez_compressed(whole, allow_pickle=False, **arrays)
                whole.replace(self.path)
        except OSError as error:
            warnings.warn(f"{self.path}: cannot keep the download, it will be repeated: {error}", stacklevel=2)


class Loader(ABC):
    """A data set: its sources, the layout of its raw arrays, and how these become examples.

    Args:
        spec: the card's data.

    Raises:
        CardError: the card's digests are not those of this data set's arrays, or an option is wrong.
    """

    @property
    @abstractmethod
    def layout(self) -> Mapping[str, ArrayLayout]:
        """What each raw array must be."""

    def __init__(self, spec: DataSpec) -> None:
        if set(spec.sha256) != set(self.layout):
            raise CardError(
                f"data.sha256 names {sorted(spec.sha256)}: data set {spec.dataset} has exactly {sorted(self.layout)}"
            )
        self.spec = spec

    @abstractmethod
    def sources(self) -> Sequence[Source]:
        """All sources, in the order in which they are asked."""

    @abstractmethod
    def prepare(self, arrays: Arrays) -> Dataset:
        """Turn checked raw arrays into examples."""

    def text(self, tokens: Sequence[int]) -> str | None:
        """The text of some tokens; `None` where the data is no text."""
        return None

    def available(self) -> bool:
        """Whether `load` finds the data without a download; looks, but reads nothing."""
        try:
            return any(source.present() for source in self.sources())
        except DataError:
            return False

    def load(self) -> Dataset:
        """Examples from the first source that answers.

        Raises:
            DataError: no source has the data, or the one that answers has the wrong bytes.
        """
        sources = self.sources()
        reasons = []
        for source in sources:
            try:
                arrays = source.fetch()
            except Absent as reason:
                reasons.append(f"\n  {source.name}: {reason}")
                continue
            arrays = check_arrays(arrays, self.spec, self.layout, source.name)
            if source.remote:
                Cache(self.spec, self.layout).keep(arrays)
            return self.prepare(arrays)
        remedies = "".join(f"\n  {source.remedy}" for source in sources if source.remedy)
        raise DataError(
            f"data set {self.spec.dataset}: no source has it; tried{''.join(reasons)}\nany of these helps{remedies}"
        )
