"""The checkpoint bundle: the trained models that attributors are given.

Tensors: `subsets` (n_models, ⌈n_train/8⌉) uint8, bit-packed; `seeds` (n_models,) int64;
`parameters/<epoch>/<name>` (n_models, *shape), float32 or float64 as the model has them; where it has any,
`buffers/<epoch>/<name>` (n_models, *shape): running statistics, counters, masks. Full-data models come first.

Where the task's card has `checkpoints.stored: bfloat16`, single-precision parameters are uint16, the bits of a bfloat16
number. Where `start_sha256` is not null, they are what training added to the pretrained parameters that have this
digest. The attributed model is the one that comes out of this: it differs from the retrain by the rounding.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import FormatError
from attriboard.groundtruth.sealed import (
    REMEDY,
    Layout,
    SealedCard,
    Tensors,
    check_layout,
    content_digest,
    read_sealed,
)

if TYPE_CHECKING:
    import torch

    from attriboard.contracts.attributor import Checkpoint

FORMAT = "attriboard-checkpoints/1"
_PARTS = ("parameters", "buffers")
_EXACT = ("float32", "float64")
_ROUNDED = ("uint16", "float64")
_BUFFERS = (*_EXACT, "bool", "uint8", "int8", "int16", "int32", "int64")


class CheckpointCard(SealedCard):
    """Card of a checkpoint bundle.

    Attributes:
        n_models: number of models.
        start_sha256: digest of the pretrained parameters to which the stored ones are added; none: to nothing.
    """

    n_models: int
    start_sha256: str | None = None


def rounded(values: NDArray[Any], start: NDArray[np.float32] | None = None) -> NDArray[Any]:
    """What a bundle with `stored: bfloat16` keeps of parameters: float32 as the bits of bfloat16, others as they are.

    Args:
        values: (n_models, *shape).
        start: *shape; where given, it is subtracted first.
    """
    import torch

    if values.dtype != np.float32:
        return values
    added = torch.from_numpy(values if start is None else values - start)
    return added.bfloat16().view(torch.int16).numpy().view(np.uint16)


def restored(bits: NDArray[Any], start: "torch.Tensor | None" = None) -> "torch.Tensor":
    """The parameters that `rounded` kept, float32."""
    import torch

    if bits.dtype != np.uint16:
        return torch.from_numpy(bits)
    added = torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).float()
    return added if start is None else added + start


def start_digest(start: "Mapping[str, torch.Tensor]") -> str:
    """Digest of pretrained parameters."""
    return content_digest({name: value.numpy() for name, value in start.items()})


def read_checkpoints(
    path: Path,
    fingerprint: str,
    device: str = "cpu",
    pretrained: "Callable[[], Mapping[str, torch.Tensor] | None]" = lambda: None,
) -> "tuple[Checkpoint, ...]":
    """Read and check a checkpoint bundle: all models at all epochs, full-data models first.

    Args:
        path: the file.
        fingerprint: of the task.
        device: where tensors go.
        pretrained: gives the parameters that training started from; called only where the bundle is relative to them.

    Raises:
        FormatError: missing, torn, altered, of another task, or relative to other pretrained parameters.
    """
    import torch

    from attriboard.contracts.attributor import Checkpoint

    tensors, card = read_sealed(path, CheckpointCard, FORMAT)
    if card.fingerprint != fingerprint:
        raise FormatError(
            f"{path}: checkpoints of task {card.fingerprint[:12]}…, expected {fingerprint[:12]}…; {REMEDY}"
        )
    names = _checked_names(path, tensors, card)
    n_train, order = card.task.data.n_train, list(card.task.checkpoints.epochs)
    seen = np.unpackbits(tensors["subsets"], axis=1, count=n_train).astype(bool)
    start = _start(path, card, pretrained)
    stacks = {
        key: restored(tensors[key], start.get(key.split("/", 2)[2])).to(device)
        for key in tensors.keys() - {"subsets", "seeds"}
    }

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


def _checked_names(path: Path, tensors: Tensors, card: CheckpointCard) -> dict[str, list[str]]:
    """Names of a bundle's parameters and buffers, once it has exactly the tensors that its card promises.

    Raises:
        FormatError: it has others, or NaN.
    """
    parameters = _ROUNDED if card.task.checkpoints.stored == "bfloat16" else _EXACT
    names = {part: sorted({key.split("/", 2)[2] for key in tensors if key.startswith(f"{part}/")}) for part in _PARTS}
    expected: dict[str, Layout] = {
        "subsets": ((card.n_models, -(-card.task.data.n_train // 8)), "uint8"),
        "seeds": ((card.n_models,), "int64"),
    }
    epochs = card.task.checkpoints.epochs
    for key in (f"{part}/{epoch}/{name}" for part in names for epoch in epochs for name in names[part]):
        shape = tensors[key].shape[1:] if key in tensors else ()
        allowed = _BUFFERS if key.startswith("buffers/") else parameters
        found = tensors[key].dtype.name if key in tensors else ""
        expected[key] = ((card.n_models, *shape), found if found in allowed else allowed[0])
    check_layout(path, tensors, expected)
    # A buffer may be a mask of minus infinities.
    broken = any(
        np.isnan(array).any() if key.startswith("buffers/") else not np.isfinite(array).all()
        for key, array in tensors.items()
    )
    if not names["parameters"] or broken:
        raise FormatError(f"{path}: parameters are missing, NaN or infinite; {REMEDY}")
    return names


def _start(
    path: Path, card: CheckpointCard, pretrained: "Callable[[], Mapping[str, torch.Tensor] | None]"
) -> "Mapping[str, torch.Tensor]":
    """The parameters that a bundle is relative to; none where it is relative to nothing."""
    if card.start_sha256 is None:
        return {}
    start = pretrained() or {}
    if (found := start_digest(start)) != card.start_sha256:
        raise FormatError(
            f"{path}: is relative to pretrained parameters {card.start_sha256[:12]}…, the task's are {found[:12]}…; "
            f"{REMEDY}"
        )
    return start
