"""Held-out ground truth: retrains on masks that nobody can know; its digest is published before anything is scored.

Masks and seeds come from a secret of 256 random bits, by SHAKE-256 (FIPS 202): mask k has the training rows with the
smallest words of the stream of (secret, "mask", k). So without the file the masks cannot be made again, and with it
anyone can see that they were drawn and not chosen. The file has the format of a ground truth, with the secret in its
card. Its SHA-256 goes into the public list; as the file holds the secret, the digest tells nothing of the rest.
"""

import hashlib
import secrets
import shutil
from pathlib import Path

import numpy as np

from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import write_atomically
from attriboard.base.schema import Digits64
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Task
from attriboard.groundtruth.build import open_store, origin, read_outputs
from attriboard.groundtruth.bundle import GroundTruth, GroundTruthCard, read_ground_truth, write_ground_truth
from attriboard.groundtruth.listing import BundleRegistry, Commitment
from attriboard.groundtruth.plan import planned
from attriboard.groundtruth.sealed import REMEDY
from attriboard.records.provenance import provenance
from attriboard.retraining.engine import Progress, retrain
from attriboard.retraining.executors import Executor
from attriboard.retraining.request import RetrainRequest

FORMAT = "attriboard-held-out/1"
MODE = 0o600  # of the file: its owner alone
_FIRST_SEED = 10**14  # above every other purpose's; see `attriboard.groundtruth.plan`


class HeldOutCard(GroundTruthCard):
    """Card of a held-out ground truth.

    Attributes:
        secret: 256 bits, hexadecimal, from which masks and seeds follow.
    """

    secret: Digits64


def held_out_requests(card: TaskCard, secret: str, n_masks: int, n_repeats: int) -> list[RetrainRequest]:
    """The retrains that follow from a secret, repeat by repeat.

    Raises:
        InputError: sizes out of range.
    """
    if n_masks < 3 or n_repeats < 1:
        raise InputError(f"held-out masks = {n_masks}, repeats = {n_repeats}: need at least 3 masks and 1 repeat")
    n_train = card.data.n_train
    masks = []
    for k in range(n_masks):
        words = np.frombuffer(_stream(secret, "mask", k, 0, 8 * n_train), dtype="<u8")
        masks.append(np.sort(np.argsort(words, kind="stable")[: card.subset_size]))
    return [
        RetrainRequest(masks[k], _FIRST_SEED + int.from_bytes(_stream(secret, "seed", k, r, 8), "little") % 2**47)
        for r in range(n_repeats)
        for k in range(n_masks)
    ]


def build_held_out(
    task: Task,
    path: Path,
    *,
    n_masks: int,
    n_repeats: int | None = None,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> Commitment:
    """Draw a secret, retrain on its masks, and write the file; an interrupted build goes on with its secret.

    Until the file is written, the secret lies in `<file>.secret`, and the retrains in `<file>.retrains`: not in the
    store that every command shares. A file that is there already stays as it is.

    Args:
        task: the task.
        path: the file, which its owner alone can read.
        n_masks: number of subsets.
        n_repeats: seeds for each; the card's by default, as on the published masks.
        executor: see `retrain`.
        progress: see `retrain`.

    Returns:
        What is published of it.

    Raises:
        InputError: sizes out of range, or another file lies there.
    """
    n_repeats = n_repeats or task.card.ground_truth.n_repeats
    if path.exists():
        truth = read_held_out(path)
        if (truth.card.fingerprint, *truth.seeds.shape) != (task.card.fingerprint, n_masks, n_repeats):
            shape = "{} masks × {} repeats".format(*truth.seeds.shape)
            raise InputError(f"{path}: holds {shape} of {truth.card.task.name}; name another file, or move it away")
        return commitment(truth)
    kept, folder = path.with_name(f"{path.name}.secret"), path.with_name(f"{path.name}.retrains")
    if not kept.exists():
        write_atomically(kept, secrets.token_hex(32).encode(), MODE)
    secret = kept.read_text(encoding="ascii")
    folder.mkdir(mode=0o700, exist_ok=True)
    requests = held_out_requests(task.card, secret, n_masks, n_repeats)
    code, store = provenance(), open_store(task, folder)
    retrain(task, requests, store, executor, progress)
    digests = [request.digest(task.card.fingerprint) for request in requests]
    masks, seeds = planned(requests, n_masks, task.card.data.n_train)
    outputs = read_outputs(task, store, digests, n_masks)
    card = origin(task, code, store.seconds(digests)) | {"secret": secret}
    write_ground_truth(path, masks, seeds, outputs, card_type=HeldOutCard, form=FORMAT, mode=MODE, **card)
    shutil.rmtree(folder)
    kept.unlink()
    return commitment(read_held_out(path))


def read_held_out(path: Path) -> GroundTruth:
    """Read a held-out ground truth and check that its masks and seeds follow from its secret.

    Raises:
        FormatError: missing, torn, altered, or with masks that were not drawn.
    """
    truth = read_ground_truth(path, HeldOutCard, FORMAT)
    assert isinstance(truth.card, HeldOutCard), "of the type that was asked for"
    n_masks, n_repeats = truth.seeds.shape
    requests = held_out_requests(truth.card.task, truth.card.secret, n_masks, n_repeats)
    masks, seeds = planned(requests, n_masks, truth.card.task.data.n_train)
    if not (np.array_equal(masks, truth.masks) and np.array_equal(seeds, truth.seeds)):
        raise FormatError(f"{path}: its masks or seeds do not follow from its secret; {REMEDY}")
    return truth


def commitment(truth: GroundTruth) -> Commitment:
    """What is published of a held-out ground truth."""
    card, (n_masks, n_repeats) = truth.card, truth.seeds.shape
    task = card.task
    return Commitment(
        task=task.name,
        version=task.version,
        fingerprint=card.fingerprint,
        sha256=truth.sha256,
        n_masks=n_masks,
        n_repeats=n_repeats,
        created=card.created,
    )


def check_commitment(truth: GroundTruth, card: TaskCard, registry: BundleRegistry) -> None:
    """A held-out ground truth must be of the task, and the list must name its digest.

    Raises:
        InputError: it is of another task, or could have been made after the scores were known.
    """
    if truth.card.fingerprint != card.fingerprint:
        raise InputError(
            f"{truth.path}: held-out masks of {truth.card.task.name} with fingerprint {truth.card.fingerprint[:12]}…, "
            f"not of {card.name} with {card.fingerprint[:12]}…"
        )
    if commitment(truth) not in registry.held_out:
        raise InputError(
            f"{truth.path}: {registry.folder / 'registry.json'} does not name its SHA-256 {truth.sha256[:12]}…, so "
            "nobody could see that it was made before the scores; publish that list with the commitment, or name it "
            "with --groundtruth DIR"
        )


def _stream(secret: str, purpose: str, k: int, r: int, size: int) -> bytes:
    return hashlib.shake_256(f"{secret}|{purpose}|{k}|{r}".encode()).digest(size)
