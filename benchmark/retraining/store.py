"""The store of retrains: finished work, addressed by content, that survives anything but a broken disk.

A store is a folder of *shards*. A shard is a safetensors file with one row per retrain: test outputs
`outputs/<name>` (rows, n_test), and where wanted `parameters/<epoch>/<name>` and `buffers/<epoch>/<name>`
(rows, *shape). Its file name holds the SHA-256 of its bytes, and it appears under that name only when it is
whole (temporary file, fsync, rename). So a kill at any moment leaves either a whole shard or a leftover that
nobody reads, and a torn or altered file is recognized, set aside and its retrains done again. Several
processes may write into one store.
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

from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.errors import FormatError
from attriboard.base.paths import write_atomically

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
        row_seconds: each row's share of them, where rows of several stacks were packed into one shard; else equal.
    """

    fingerprint: str
    digests: tuple[str, ...]
    arrays: Arrays
    seconds: float
    row_seconds: tuple[float, ...] | None = None

    def to_bytes(self) -> bytes:
        """The shard's file content."""
        metadata = {
            "format": _FORMAT,
            "fingerprint": self.fingerprint,
            "digests": json.dumps(self.digests),
            "seconds": f"{self.seconds:.3f}",
        }
        if self.row_seconds is not None:
            metadata["row_seconds"] = json.dumps([round(share, 6) for share in self.row_seconds])
        return save({name: np.ascontiguousarray(array) for name, array in self.arrays.items()}, metadata)


@dataclass(frozen=True)
class ShardHeader:
    """What a shard says of itself.

    Attributes:
        fingerprint: of its task.
        digests: names of its retrains, one per row.
        row_seconds: process-seconds of each.
        names: of its arrays.
    """

    fingerprint: str
    digests: tuple[str, ...]
    row_seconds: tuple[float, ...]
    names: tuple[str, ...]


def read_header(path: Path) -> ShardHeader:
    """Read what a shard says of itself; its bytes are not checked against its name.

    Raises:
        FormatError: not a shard of retrains.
    """
    remedy = "remove it, or name another folder with --store"
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, names = file.metadata() or {}, tuple(file.keys())
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"its format is {metadata.get('format')}, not {_FORMAT}")
        digests = tuple(json.loads(metadata["digests"]))
        share = float(metadata["seconds"]) / len(digests)
        shares = tuple(json.loads(metadata["row_seconds"])) if "row_seconds" in metadata else (share,) * len(digests)
        return ShardHeader(metadata["fingerprint"], digests, shares, names)
    except (SafetensorError, KeyError, ValueError, ZeroDivisionError) as error:
        raise FormatError(f"{path}: not a shard of retrains ({error}); {remedy}") from error


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
        self._reopen()

    def _reopen(self) -> None:
        self._places: dict[str, dict[str, tuple[Path, int]]] = {}  # array name → digest → (shard, row)
        self._seconds: dict[str, float] = {}  # digest → its share of its shard's seconds
        for path in sorted(self.folder.glob("*.safetensors")):
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
        wanted = list(digests)
        if not all(self._places[name][digest][0].exists() for digest in wanted):
            self._reopen()  # packed by another process meanwhile
        places = [self._places[name][digest] for digest in wanted]
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
        header = read_header(path)
        if header.fingerprint != self.fingerprint:
            raise FormatError(
                f"{path}: holds {_FORMAT} of task {header.fingerprint[:12]}, "
                f"this store is {_FORMAT} of task {self.fingerprint[:12]}; name another folder with --store"
            )
        self._seconds.update(zip(header.digests, header.row_seconds, strict=True))
        for name in header.names:
            self._places.setdefault(name, {}).update({d: (path, row) for row, d in enumerate(header.digests)})
        return len(header.digests)
