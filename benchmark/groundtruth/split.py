"""Splitting a ground truth into a public part and a held-out shard that stays with whoever runs the board.

Masks are independent draws from one distribution, so the last ones are as good a held-out set as any. The public part
is a bundle like others. The held-out shard is one too, with the number of its first mask and a nonce; its SHA-256 is
published as a *commitment*: it cannot be exchanged later, and says nothing of its content.

It keeps people from tuning on the masks that count. It cannot keep anybody from drawing the same masks by the task's
card and retraining on them: that costs what making the ground truth did.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attriboard.base.digests import digest_file
from attriboard.base.errors import FormatError, InputError
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth, write_ground_truth
from attriboard.groundtruth.listing import BundleEntry, BundleRegistry, entry_of, write_listing

MIN_MASKS = 3


@dataclass(frozen=True)
class Shards:
    """The two parts of a ground truth.

    Attributes:
        public: the bundle that is published.
        held_out: the bundle that is not.
        commitment: what the public registry says of the latter.
    """

    public: Path
    held_out: Path
    commitment: BundleEntry


def split_ground_truth(truth: GroundTruth, count: int, out: Path) -> Shards:
    """Write the two parts, into `out/public` with its registry, and into `out/withheld`.

    Args:
        truth: a whole ground truth.
        count: how many masks are held out: the last ones.
        out: the folder.

    Raises:
        InputError: too few masks on one side, a shard, or a registry of other bundles in the folder.
    """
    total, card = truth.card.n_masks, truth.card.task
    if truth.card.first_mask or not MIN_MASKS <= count <= total - MIN_MASKS:
        raise InputError(
            f"--held-out {count}: of {total} masks, at least {MIN_MASKS} must be on either side, and the ground truth "
            "must be a whole one"
        )
    registry = BundleRegistry(out / "public")
    public = registry.folder / registry.file_name(card, "groundtruth")
    held_out = out / "withheld" / registry.file_name(card, "heldout")
    if registry.entries or public.exists() or held_out.exists():
        raise InputError(f"{out}: holds a split already; published files are never replaced, give another --out")
    _write(truth, slice(0, total - count), public)
    _write(truth, slice(total - count, total), held_out, first_mask=total - count, nonce=secrets.token_hex(16))
    commitment = entry_of(card, "heldout", held_out)
    write_listing(registry.folder, [entry_of(card, "groundtruth", public), commitment])
    return Shards(public, held_out, commitment)


def read_held_out(path: Path, registry: BundleRegistry, truth: GroundTruth) -> GroundTruth:
    """Read a held-out shard that somebody committed to.

    Args:
        path: the shard.
        registry: where the commitment is.
        truth: the public part.

    Raises:
        FormatError: another file than the one committed to, or one that overlaps with the public part.
    """
    entry = registry.find(truth.card.task, "heldout")
    if entry is None:
        raise FormatError(f"{path}: {registry.folder} has no commitment to a held-out shard of {truth.card.task.name}")
    if not path.is_file() or (found := digest_file(path)) != entry.sha256:
        shown = f"SHA-256 {found[:12]}…" if path.is_file() else "no such file"
        raise FormatError(f"{path}: {shown}, the commitment is to {entry.sha256[:12]}…; this is not the held-out shard")
    shard = read_ground_truth(path)
    if shard.card.fingerprint != truth.card.fingerprint or shard.card.first_mask < truth.card.n_masks:
        raise FormatError(f"{path}: of another task, or its masks from {shard.card.first_mask} on are public")
    return shard


def _write(truth: GroundTruth, rows: slice, path: Path, **more: Any) -> None:
    outputs = {name: array[rows] for name, array in truth.outputs.items()}
    card = truth.card.model_dump(include={"fingerprint", "created", "retrain_seconds"}) | {
        "task": truth.card.task,
        "provenance": truth.card.provenance,
    }
    write_ground_truth(path, truth.masks[rows], truth.seeds[rows], outputs, **card, **more)
