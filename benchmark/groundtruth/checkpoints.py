"""The checkpoint bundle: the trained models that attributors are given.

Tensors: `subsets` (n_models, ⌈n_train/8⌉) uint8, bit-packed; `seeds` (n_models,) int64;
`parameters/<epoch>/<name>` (n_models, *shape) float32. Full-data models come first.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attriboard.errors import FormatError
from attriboard.groundtruth.sealed import REMEDY, Layout, SealedCard, check_layout, read_sealed

if TYPE_CHECKING:
    from attriboard.contracts import Checkpoint

__all__ = ["CheckpointCard", "read_checkpoints"]

FORMAT = "attriboard-checkpoints/1"


class CheckpointCard(SealedCard):
    """Card of a checkpoint bundle."""

    n_models: int


def read_checkpoints(path: Path, fingerprint: str, device: str = "cpu") -> "tuple[Checkpoint, ...]":
    """Read and check a checkpoint bundle: all models at all epochs, full-data models first.

    Raises:
        FormatError: missing, torn, altered, or of another task.
    """
    import torch

    from attriboard.contracts import Checkpoint

    tensors, card = read_sealed(path, CheckpointCard, FORMAT)
    if card.fingerprint != fingerprint:
        raise FormatError(
            f"{path}: checkpoints of task {card.fingerprint[:12]}…, expected {fingerprint[:12]}…; {REMEDY}"
        )
    n_train, order = card.task.data.n_train, list(card.task.checkpoints.epochs)
    names = sorted({key.split("/", 2)[2] for key in tensors if key.count("/") >= 2})
    expected: dict[str, Layout] = {
        "subsets": ((card.n_models, -(-n_train // 8)), "uint8"),
        "seeds": ((card.n_models,), "int64"),
    }
    for key in (f"parameters/{epoch}/{name}" for epoch in order for name in names):
        shape = tensors[key].shape[1:] if key in tensors else ()
        expected[key] = ((card.n_models, *shape), "float32")
    check_layout(path, tensors, expected)
    if not names or not all(np.isfinite(array).all() for array in tensors.values()):
        raise FormatError(f"{path}: parameters are missing, NaN or infinite; {REMEDY}")
    seen = np.unpackbits(tensors["subsets"], axis=1, count=n_train).astype(bool)
    stacks = {
        epoch: {name: torch.from_numpy(tensors[f"parameters/{epoch}/{name}"]).to(device) for name in names}
        for epoch in order
    }
    return tuple(
        Checkpoint(
            parameters={name: stack[model] for name, stack in stacks[epoch].items()},
            epoch=epoch,
            seed=int(tensors["seeds"][model]),
            indices=None if seen[model].all() else torch.from_numpy(np.flatnonzero(seen[model])),
        )
        for model in range(card.n_models)
        for epoch in order
    )
