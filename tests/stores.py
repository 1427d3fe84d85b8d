"""Shards of retrains without a task, for tests of the store."""

from pathlib import Path

import numpy as np

from attriboard.retraining.store import RetrainStore, Shard

TASK = "ab" * 32


def shard(
    *digests: str, epochs: tuple[int, ...] = (), fingerprint: str = TASK, offset: float = 0.0, **more: object
) -> bytes:
    """Values that follow from the digest, as a deterministic retrain's would."""
    value = np.array([[sum(map(ord, digest)) + offset] for digest in digests], np.float32)
    arrays = {"outputs/loss": value.repeat(3, axis=1), "outputs/margin": -value.repeat(3, axis=1)}
    arrays |= {f"parameters/{epoch}/w": value[:, :, None] + epoch for epoch in epochs}
    return Shard(fingerprint, digests, arrays, seconds=float(len(digests)) * 2).to_bytes()


def fill(folder: Path, *shards: bytes) -> RetrainStore:
    store = RetrainStore(folder, TASK)
    for content in shards:
        store.add(content)
    return store
