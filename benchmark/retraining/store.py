"""The store of retrains: finished work, addressed by content, that survives anything but a broken disk.

A store is a folder of *shards*. A shard is a safetensors file with one row per retrain: test outputs
`outputs/<name>` (rows, n_test), and where wanted `parameters/<epoch>/<name>` (rows, *shape). Its file name
holds the SHA-256 of its bytes, and it appears under that name only when it is whole (temporary file, fsync,
rename). So a kill at any moment leaves either a whole shard or a leftover that nobody reads, and a torn or
altered file is recognised, set aside and its retrains done again. Several processes may write into one store.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from attriboard.canonical import digest_bytes, digest_file
from attriboard.errors import FormatError
from attriboard.files import write_atomically

__all__ = ["RetrainStore", "Shard"]

_FORMAT = "attriboard-retrains/1"
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Shard:
    """Finished retrains on their way into a store.

    Attributes:
        fingerprint: of their task.
        digests: names of the retrains, one per row.
        arrays: name → (rows, …).
        seconds: that one process took to train them all.
    """

    fingerprint: str
    digests: tuple[str, ...]
    arrays: Arrays
    seconds: float

    def to_bytes(self) -> bytes:
        """The shard's file content."""
        metadata = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "digests": json.dumps(self.digests),
            "seconds": f"{self.seconds:.3f}",
        }
        return save({name: np.ascontiguousarray(array) for name, array in self.arrays.items()}, metadata)


class RetrainStore:
    """Retrains of one task in a folder.

    Args:
        folder: made when the first shard is added.
        fingerprint: of the task; shards of other tasks in the folder are refused.

    Raises:
        FormatError: the folder holds shards of another task.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.damaged: list[Path] = []
        self._places: dict[str, dict[str, tuple[Path, int]]] = {}  # array name → digest → (shard, row)
        self._seconds: dict[str, float] = {}  # digest → its share of its shard's seconds
        for path in sorted(folder.glob("*.safetensors")):
            self._index(path)

    def add(self, content: bytes) -> int:
        """Add a shard's bytes, as made by `Shard.to_bytes` here or in another process.

        Returns:
            The number of retrains in it.

        Raises:
            FormatError: not a shard, or one of another task.
        """
        path = self.folder / f"{digest_bytes(content)}.safetensors"
        write_atomically(path, content)
        return self._index(path)

    def has(self, digest: str, names: Iterable[str]) -> bool:
        """Whether a retrain is there with all arrays of `names`."""
        return all(digest in self._places.get(name, {}) for name in names)

    def read(self, name: str, digests: Iterable[str]) -> NDArray[Any]:
        """One array of several retrains, (len(digests), …), in the order asked for.

        Raises:
            KeyError: a retrain is not in the store.
        """
        places = [self._places[name][digest] for digest in digests]
        arrays: dict[Path, NDArray[Any]] = {}
        for path, _ in places:
            if path not in arrays:
                with safe_open(path, framework="numpy") as file:
                    arrays[path] = file.get_tensor(name)
        return np.stack([arrays[path][row] for path, row in places])

    def seconds(self, digests: Iterable[str]) -> float:
        """Process-seconds that training these retrains took, whenever and wherever that was.

        Raises:
            KeyError: a retrain is not in the store.
        """
        return sum(self._seconds[digest] for digest in digests)

    def __len__(self) -> int:
        return len(set().union(*self._places.values())) if self._places else 0

    def _index(self, path: Path) -> int:
        if path.stem != digest_file(path):
            # Keep the evidence, out of the way: the retrains in it count as not done.
            aside = path.with_suffix(".damaged")
            path.replace(aside)
            self.damaged.append(aside)
            return 0
        try:
            with safe_open(path, framework="numpy") as file:
                metadata, names = file.metadata() or {}, list(file.keys())
        except SafetensorError as error:
            raise FormatError(
                f"{path}: not a shard of retrains ({error}); remove it, or name another folder with --store"
            ) from error
        if metadata.get("format") != _FORMAT or metadata.get("fingerprint") != self.fingerprint:
            raise FormatError(
                f"{path}: holds {metadata.get('format')} of task {metadata.get('fingerprint', '?')[:12]}, "
                f"this store is {_FORMAT} of task {self.fingerprint[:12]}; name another folder with --store"
            )
        digests: list[str] = json.loads(metadata["digests"])
        self._seconds.update(dict.fromkeys(digests, float(metadata["seconds"]) / len(digests)))
        for name in names:
            self._places.setdefault(name, {}).update({d: (path, row) for row, d in enumerate(digests)})
        return len(digests)
