"""Upkeep of stores: what is in one, many shards into one, rows from another store, removal of what nobody reads.

Nothing here needs the task or PyTorch: rows are named by digests, and shards by the SHA-256 of their bytes. Every
operation adds before it removes, so that a kill at any moment loses nothing.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import write_atomically
from attriboard.retraining.store import Shard, ShardHeader, read_header

_LEFTOVER_SECONDS = 3600  # a temporary file this old belongs to a writer that was killed


@dataclass(frozen=True)
class StoreInfo:
    """What is in a store.

    Attributes:
        folder: the store.
        fingerprint: of its task; `None` where it is empty.
        n_retrains: different retrains.
        n_with_parameters: those of them that keep parameters too.
        n_shards: whole shards.
        n_bytes: of all files.
        seconds: process-seconds that the retrains took.
        damaged: shards whose bytes are not those that their name says, or that were set aside for it.
        leftovers: temporary files of writers.
    """

    folder: Path
    fingerprint: str | None
    n_retrains: int
    n_with_parameters: int
    n_shards: int
    n_bytes: int
    seconds: float
    damaged: tuple[Path, ...]
    leftovers: tuple[Path, ...]


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    Attributes:
        n_added: retrains that were new here.
        n_known: retrains that were here already, with the same bits.
        n_differing: retrains that are here with other bits, as from another kind of CPU; ours were kept.
        damaged: shards of the other store that were left out.
    """

    n_added: int
    n_known: int
    n_differing: int
    damaged: tuple[Path, ...]


@dataclass(frozen=True)
class _Row:
    """Where one retrain lies, and what is kept of it."""

    digest: str
    path: Path
    position: int
    names: frozenset[str]
    seconds: float


def list_stores(root: Path) -> list[Path]:
    """Folders below `root` that hold shards or what is left of them, by name."""
    return sorted({path.parent for pattern in ("*.safetensors", "*.damaged") for path in root.glob(f"*/{pattern}")})


def inspect_store(folder: Path) -> StoreInfo:
    """Read every byte of a store and say what is there; changes nothing.

    Raises:
        FormatError: a file with the right digest is no shard, or shards of several tasks lie together.
    """
    headers, damaged = _whole_shards(folder)
    rows = _rows(headers)
    leftovers = tuple(sorted(folder.glob(".writing-*")))
    files = [*headers, *damaged, *leftovers]
    return StoreInfo(
        folder=folder,
        fingerprint=_one_task(folder, headers.values()),
        n_retrains=len(_by_digest(rows)),
        n_with_parameters=len({row.digest for row in rows if any(n.startswith("parameters/") for n in row.names)}),
        n_shards=len(headers),
        n_bytes=sum(path.stat().st_size for path in files),
        seconds=sum(max(row.seconds for row in kept) for kept in _by_digest(rows).values()),
        damaged=damaged,
        leftovers=leftovers,
    )


def pack_store(folder: Path) -> tuple[int, int]:
    """Rewrite a store with as few shards as its rows allow: one for each set of arrays that rows have.

    The new shards are whole before the first old one goes.

    Returns:
        Number of shards before and after.

    Raises:
        FormatError: see `inspect_store`.
    """
    headers, _ = _whole_shards(folder)
    fingerprint = _one_task(folder, headers.values())
    if fingerprint is None:
        return 0, 0
    written = {_write(folder, shard) for shard in _shards(fingerprint, _rows(headers))}
    for path in headers.keys() - written:
        path.unlink()
    return len(headers), len(written)


def merge_store(folder: Path, source: Path, fingerprint: str) -> Merged:
    """Add the retrains of another store, or of one shard file, that are not here yet.

    Every shard of the source must have the SHA-256 that its name says; a damaged one is left out, and the source is not
    changed. Where both have a retrain, ours stays.

    Args:
        folder: the store that grows; made where it is missing.
        source: the other store's folder, or a shard.
        fingerprint: of the task that both must be of.

    Raises:
        InputError: there is no such source.
        FormatError: the source is of another task.
    """
    if not source.exists():
        raise InputError(f"{source}: no such store or shard")
    if source.resolve() == folder.resolve():
        raise InputError(f"{source}: is the store itself; name another one to merge from")
    theirs, damaged = _whole_shards(source)
    if (found := _one_task(source, theirs.values())) not in (None, fingerprint):
        raise FormatError(f"{source}: retrains of task {found[:12] if found else '?'}, expected {fingerprint[:12]}")
    mine = _by_digest(_rows(_whole_shards(folder)[0]))
    rows = _rows(theirs)
    differing = _differing([(ours, row) for row in rows for ours in mine.get(row.digest, ())])
    new = [
        row
        for row in rows
        if row.digest not in differing and not any(row.names <= ours.names for ours in mine.get(row.digest, ()))
    ]
    for shard in _shards(fingerprint, new):
        if any(not np.isfinite(array).all() for array in shard.arrays.values()):
            raise FormatError(f"{source}: has retrains with NaN or infinity, which none of ours would have")
        _write(folder, shard)
    added = {row.digest for row in new}
    return Merged(len(added), len({row.digest for row in rows} - added - differing), len(differing), damaged)


def collect_garbage(folder: Path, *, dry_run: bool = False) -> dict[Path, str]:
    """Remove what nobody reads: damaged shards, old temporary files, shards whose rows all lie in another one.

    Args:
        folder: the store.
        dry_run: only say what would go.

    Returns:
        File → why it goes.

    Raises:
        FormatError: see `inspect_store`.
    """
    headers, damaged = _whole_shards(folder)
    _one_task(folder, headers.values())
    needed = {row.path for row in _rows(headers)}
    doomed = dict.fromkeys(damaged, "damaged")
    doomed |= dict.fromkeys(sorted(headers.keys() - needed), "all of its retrains lie in other shards")
    for path in sorted(folder.glob(".writing-*")):
        if time.time() - path.stat().st_mtime > _LEFTOVER_SECONDS:
            doomed[path] = "left by a writer that was killed"
    if not dry_run:
        for path in doomed:
            path.unlink()
    return doomed


def _whole_shards(source: Path) -> tuple[dict[Path, ShardHeader], tuple[Path, ...]]:
    """Headers of the shards whose bytes have the digest that their name says, and the paths of all others."""
    paths = [source] if source.is_file() else sorted(source.glob("*.safetensors"))
    torn = [path for path in paths if path.stem != digest_file(path)]
    aside = list(source.glob("*.damaged"))
    return {path: read_header(path) for path in paths if path not in torn}, tuple(sorted([*torn, *aside]))


def _one_task(folder: Path, headers: Iterable[ShardHeader]) -> str | None:
    tasks = sorted({header.fingerprint for header in headers})
    if len(tasks) > 1:
        raise FormatError(f"{folder}: holds retrains of several tasks: {', '.join(t[:12] for t in tasks)}; part them")
    return tasks[0] if tasks else None


def _rows(headers: dict[Path, ShardHeader]) -> list[_Row]:
    """The rows of shards, without those of which another row of the same retrain keeps as much or more."""
    kept: dict[str, list[_Row]] = {}
    # Most arrays first, then the fullest shard: a row comes after all that could make it superfluous.
    order = sorted(headers.items(), key=lambda item: (-len(item[1].names), -len(item[1].digests), item[0]))
    for path, header in order:
        names = frozenset(header.names)
        for position, (digest, seconds) in enumerate(zip(header.digests, header.row_seconds, strict=True)):
            others = kept.setdefault(digest, [])
            if not any(names <= other.names for other in others):
                others.append(_Row(digest, path, position, names, seconds))
    return [row for rows in kept.values() for row in rows]


def _by_digest(rows: Iterable[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = {}
    for row in rows:
        found.setdefault(row.digest, []).append(row)
    return found


def _shards(fingerprint: str, rows: Iterable[_Row]) -> Iterator[Shard]:
    """Rows as shards, one for each set of arrays."""
    groups: dict[frozenset[str], list[_Row]] = {}
    for row in sorted(rows, key=lambda row: row.digest):
        groups.setdefault(row.names, []).append(row)
    for names, group in groups.items():
        seconds = tuple(row.seconds for row in group)
        arrays = {name: _read(name, group) for name in sorted(names)}
        yield Shard(fingerprint, tuple(row.digest for row in group), arrays, sum(seconds), seconds)


def _read(name: str, rows: Sequence[_Row]) -> NDArray[np.generic]:
    """One array of several rows, each file opened once."""
    found: dict[Path, NDArray[np.generic]] = {}
    for path in dict.fromkeys(row.path for row in rows):
        with safe_open(path, framework="numpy") as file:
            found[path] = file.get_tensor(name)
    return np.stack([found[row.path][row.position] for row in rows])


def _differing(pairs: Sequence[tuple[_Row, _Row]]) -> set[str]:
    """Digests of the retrains of which two rows have other bits in an array that both keep."""
    groups: dict[frozenset[str], list[tuple[_Row, _Row]]] = {}
    for pair in pairs:
        groups.setdefault(pair[0].names & pair[1].names, []).append(pair)
    found = set()
    for names, group in groups.items():
        for name in names:
            ours, theirs = (_read(name, rows) for rows in zip(*group, strict=True))
            found |= {
                pair[0].digest for pair, x, y in zip(group, ours, theirs, strict=True) if x.tobytes() != y.tobytes()
            }
    return found


def _write(folder: Path, shard: Shard) -> Path:
    content = shard.to_bytes()
    path = folder / f"{digest_bytes(content)}.safetensors"
    write_atomically(path, content)
    return path
