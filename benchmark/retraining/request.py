"""What a retrain is, what it is called, and where its randomness comes from.

A retrain is one model trained on one set of training indices with one seed. Its name is the SHA-256 of
(task fingerprint, indices, seed, weights if there are any), and its random streams (initial parameters, example order,
whatever a forward pass draws) are functions of the seed alone: how requests are stacked, sharded, ordered or resumed
cannot reach them.

The order stream is raw 64-bit words of Philox (Salmon et al., SC 2011), whose output NumPy keeps stable
across releases, sorted stably; `Generator.permutation` carries no such promise.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError

if TYPE_CHECKING:
    import torch

_ORDER, _SUBSET, _NOISE = 1, 2, 3  # second word of the Philox key: one per purpose
_MAX_SEED = 2**53 - 1  # exact in every JSON reader


@dataclass(frozen=True, eq=False)
class RetrainRequest:
    """One model to train.

    Args:
        indices: (subset_size,) int64, strictly ascending rows of the training set.
        seed: 0 … 2⁵³ − 1.
        keep_epochs: after which epochs the parameters are wanted too; test outputs are always kept.
            Not part of the retrain's identity.
        weights: (subset_size,) what the loss of each example is multiplied by, in the order of `indices`; all 1 where
            absent. The loss of a batch is Σ wᵢ ℓᵢ divided by the number of its examples, not by Σ wᵢ.

    Raises:
        InputError: indices that are no whole numbers, empty, unsorted or repeated, a seed out of range, or weights of
            another number or not finite.
    """

    indices: NDArray[np.int64]
    seed: int
    keep_epochs: tuple[int, ...] = ()
    weights: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        given = np.asarray(self.indices)
        whole = given.ndim == 1 and given.size > 0 and given.dtype.kind in "iu"
        if not whole or given[0] < 0 or np.any(given[1:] <= given[:-1]):
            raise InputError("indices of a retrain: must be a non-empty, strictly ascending list of whole numbers ≥ 0")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= _MAX_SEED:
            raise InputError(f"seed = {self.seed!r}: must be a whole number in 0 … 2^53 − 1")
        object.__setattr__(self, "indices", np.ascontiguousarray(given, dtype=np.int64))
        if self.weights is not None:
            weights = np.array(self.weights, dtype=np.float64)
            if weights.shape != given.shape or not np.isfinite(weights).all():
                raise InputError(
                    f"weights of a retrain: {weights.shape}, must be a finite number for each of {given.size} examples"
                )
            object.__setattr__(self, "weights", weights)

    def digest(self, fingerprint: str) -> str:
        """The retrain's name under a task: 64 hexadecimal digits."""
        state = hashlib.sha256(f"{fingerprint}:{self.seed}:".encode())
        state.update(self.indices.astype("<i8").tobytes())
        if self.weights is not None:
            state.update(b":weights:" + self.weights.astype("<f8").tobytes())
        return state.hexdigest()

    @property
    def noise_seed(self) -> int:
        """What the global generators are seeded with while this request is trained and measured."""
        words = np.random.Philox(key=np.array([self.seed, _NOISE], dtype=np.uint64)).random_raw(1)
        return int(words[0]) >> 11

    def to_json(self, n_train: int) -> dict[str, Any]:
        """The request as JSON-able data; indices become a bit mask of the training set."""
        data = {
            "subset": pack_indices(self.indices, n_train),
            "seed": self.seed,
            "keep_epochs": list(self.keep_epochs),
        }
        if self.weights is not None:
            data["weights"] = base64.b64encode(self.weights.astype("<f8").tobytes()).decode("ascii")
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any], n_train: int) -> "RetrainRequest":
        """Inverse of `to_json`."""
        packed = data.get("weights")
        weights = None if packed is None else np.frombuffer(base64.b64decode(packed), dtype="<f8").astype(np.float64)
        return cls(unpack_indices(data["subset"], n_train), data["seed"], tuple(data["keep_epochs"]), weights)


def pack_indices(indices: NDArray[np.int64], n_train: int) -> str:
    """Base64 of the bit mask of the training set, first example in the highest bit of the first byte.

    Raises:
        InputError: an index is outside of the training set.
    """
    check_rows(indices, n_train)
    mask = np.zeros(n_train, dtype=bool)
    mask[indices] = True
    return base64.b64encode(np.packbits(mask).tobytes()).decode("ascii")


def check_rows(indices: NDArray[np.int64], n_train: int) -> None:
    """Raise `InputError` where ascending indices leave the training set."""
    if indices[-1] >= n_train:
        raise InputError(f"index {indices[-1]} of a retrain: the training set has rows 0 … {n_train - 1}")


def unpack_indices(packed: str, n_train: int) -> NDArray[np.int64]:
    """Inverse of `pack_indices`."""
    bits = np.frombuffer(base64.b64decode(packed), dtype=np.uint8)
    return np.flatnonzero(np.unpackbits(bits, count=n_train)).astype(np.int64)


def _shuffled(n: int, seed: int, purpose: int, part: int) -> NDArray[np.int64]:
    key = np.array([seed, purpose], dtype=np.uint64)
    counter = np.array([0, 0, 0, part], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(n)
    return np.argsort(words, kind="stable").astype(np.int64)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Order of the `n` examples of a retrain in one epoch: a permutation of 0 … n − 1."""
    return _shuffled(n, seed, _ORDER, epoch)


def batches(n: int, seed: int, size: int, first: int, stop: int) -> "Iterator[tuple[int, torch.Tensor]]":
    """Updates `first` … `stop` − 1 of a retrain: their numbers and the positions of their examples among its `n`."""
    import torch

    per_epoch, order = -(-n // size), torch.empty(0)
    for step in range(first, stop):
        epoch, position = divmod(step, per_epoch)
        if step == first or position == 0:
            order = torch.from_numpy(epoch_order(n, seed, epoch + 1))
        yield step, order[position * size : (position + 1) * size]


def random_order(n_train: int, seed: int, k: int) -> NDArray[np.int64]:
    """The k-th uniformly random order of the training rows; independent of every other k."""
    return _shuffled(n_train, seed, _SUBSET, k)


def random_subset(n_train: int, size: int, seed: int, k: int) -> NDArray[np.int64]:
    """The first `size` rows of the k-th random order, ascending."""
    return np.sort(random_order(n_train, seed, k)[:size])
