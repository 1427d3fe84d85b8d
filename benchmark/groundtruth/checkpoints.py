"""The checkpoint bundle: the trained models that attributors are given.

Tensors: `subsets` (n_models, ⌈n_train/8⌉) uint8, bit-packed; `seeds` (n_models,) int64;
`parameters/<epoch>/<name>` (n_models, *shape), float32 or float64 as the model has them; where it has any,
`buffers/<epoch>/<name>` (n_models, *shape): running statistics, counters, masks. Full-data models come first.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attriboard.base.errors import FormatError
from attriboard.groundtruth.sealed import REMEDY, Layout, SealedCard, check_layout, read_sealed

if TYPE_CHECKING:
    from attriboard.contracts.attributor import Checkpoint

FORMAT = "attriboard-checkpoints/1"
_PARTS = ("parameters", "buffers")
_PARAMETERS = ("float32", "float64")
_BUFFERS = (*_PARAMETERS, "bool", "uint8", "int8", "int16", "int32", "int64")


class CheckpointCard(SealedCard):
    """Card of a checkpoint bundle."""

    n_models: int


def read_checkpoints(path: Path, fingerprint: str, device: str = "cpu") -> "tuple[Checkpoint, ...]":
    """Read and check a checkpoint bundle: all models at all epochs, full-data models first.

    Raises:
        FormatError: missing, torn, altered, or of another task.
    """
    import torch

    from attriboard.contracts.attributor import Checkpoint

    tensors, card = read_sealed(path, CheckpointCard, FORMAT)
    if card.fingerprint != fingerprint:
        raise FormatError(
            f"{path}: checkpoints of task {card.fingerprint[:12]}…, expected {fingerprint[:12]}…; {REMEDY}"
        )
    n_train, order = card.task.data.n_train, list(card.task.checkpoints.epochs)
    names = {part: sorted({key.split("/", 2)[2] for key in tensors if key.startswith(f"{part}/")}) for part in _PARTS}
    expected: dict[str, Layout] = {
        "subsets": ((card.n_models, -(-n_train // 8)), "uint8"),
        "seeds": ((card.n_models,), "int64"),
    }
    for key in (f"{part}/{epoch}/{name}" for part in names for epoch in order for name in names[part]):
        shape = tensors[key].shape[1:] if key in tensors else ()
        found = tensors[key].dtype.name if key in tensors else "float32"
        allowed = _BUFFERS if key.startswith("buffers/") else _PARAMETERS
        expected[key] = ((card.n_models, *shape), found if found in allowed else "float32")
    check_layout(path, tensors, expected)
    # A buffer may be a mask of minus infinities.
    broken = any(
        np.isnan(array).any() if key.startswith("buffers/") else not np.isfinite(array).all()
        for key, array in tensors.items()
    )
    if not names["parameters"] or broken:
        raise FormatError(f"{path}: parameters are missing, NaN or infinite; {REMEDY}")
    seen = np.unpackbits(tensors["subsets"], axis=1, count=n_train).astype(bool)
    stacks = {key: torch.from_numpy(tensors[key]).to(device) for key in expected.keys() - {"subsets", "seeds"}}

    def part(kind: str, epoch: int, model: int) -> dict[str, torch.Tensor]:
        return {name: stacks[f"{kind}/{epoch}/{name}"][model] for name in names[kind]}

    return tuple(
        Checkpoint(
            parameters=part("parameters", epoch, model),
            epoch=epoch,
            seed=int(tensors["seeds"][model]),
            indices=None if seen[model].all() else torch.from_numpy(np.flatnonzero(seen[model])),
            buffers=part("buffers", epoch, model),
        )
        for model in range(card.n_models)
        for epoch in order
    )
