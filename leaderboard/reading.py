"""What the site is built from: records with their ids, and the cards of bundles.

Cards are in the headers of safetensors files, so that no tensor is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from attriboard.base.documents import parse_json
from attriboard.base.errors import FormatError
from attriboard.base.tensors import read_header
from attriboard.contracts.card import TaskCard, load_card
from attriboard.groundtruth.listing import BundleEntry, BundleRegistry
from attriboard.records.files import AnyRecord, read_named
from attriboard.records.model import Record
from attriboard.records.verifications import SUFFIX, Verification, read_verification

RecordT = TypeVar("RecordT", bound=Record, covariant=True)
OtherT = TypeVar("OtherT", bound=Record)


@dataclass(frozen=True, eq=False)
class Entry(Generic[RecordT]):
    """A record, the id that names it, its file, the newest verification of it, and whether it is the visitor's own."""

    record: RecordT
    id: str
    path: Path
    verification: Verification | None = None
    mine: bool = False

    @property
    def age(self) -> tuple[str, str]:
        """Orders records by creation; the id decides between records of one second."""
        return self.record.created, self.id

    @property
    def row(self) -> str:
        """The name of its row: your own records have rows beside those of published ones."""
        return f"{self.record.row}-yours" if self.mine else self.record.row

    @property
    def title(self) -> str:
        """The row in words."""
        return f"{self.record.title} (yours)" if self.mine else self.record.title

    def holding(self, record: "OtherT") -> "Entry[OtherT]":
        """The same entry with a record that is known to be of some kind."""
        return Entry(record, self.id, self.path, self.verification, self.mine)


@dataclass(frozen=True)
class Bundle:
    """One published bundle: its line in the registry, and what its own card says.

    Attributes:
        listing: name, SHA-256, size.
        path: the file, where it is present.
        card: the task's card; none where the file is not here, and in a start.
        facts: the card's other fields, such as `n_masks` and `retrain_seconds`.
        tensors: name → (dtype, shape).
    """

    listing: BundleEntry
    path: Path | None
    card: TaskCard | None
    facts: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]


def read_entries(folders: Sequence[Path], mine: Sequence[Path] = ()) -> list[Entry[AnyRecord]]:
    """Every record below some folders, once, in the order of their ids.

    Args:
        folders: of published records.
        mine: folders of your own; what is published as well is not your own.

    Raises:
        FormatError: a folder is missing, or files do not validate or are not named after their content; the
            message has a line for each.
    """
    verifications = _verifications([*folders, *mine])
    entries: dict[str, Entry[AnyRecord]] = {}
    for own, records in ((False, read_named(folders)), (True, read_named(mine))):
        for path, record in records:
            identity = path.stem.rpartition("-")[2]
            entries.setdefault(identity, Entry(record, identity, path, verifications.get(identity), own))
    return [entries[identity] for identity in sorted(entries)]


def _verifications(folders: Sequence[Path]) -> dict[str, Verification]:
    """Id of a record → its newest verification.

    Raises:
        FormatError: one does not validate.
    """
    paths = {path.name: path for folder in folders for path in folder.rglob(f"*{SUFFIX}")}
    found = sorted((read_verification(path) for path in paths.values()), key=lambda v: (v.created, v.id))
    return {verification.record: verification for verification in found}


@cache
def published_card(task: str, fingerprint: str) -> TaskCard | None:
    """The card that comes with this installation, where it is the one that a fingerprint names.

    Raises:
        CardError: that card does not validate.
    """
    path = Path(__file__).parent.parent / "tasks" / f"{task}.yaml"
    card = load_card(path) if path.is_file() else None
    return card if card and card.fingerprint == fingerprint else None


def read_bundles(folder: Path) -> list[Bundle]:
    """The bundles that a folder's registry lists.

    Raises:
        FormatError: the registry or a bundle's header does not validate.
    """
    return [_bundle(folder, listing) for listing in BundleRegistry(folder).entries]


def _bundle(folder: Path, listing: BundleEntry) -> Bundle:
    path = folder / listing.file
    if not path.is_file():
        return Bundle(listing, None, None, {}, {})
    start = listing.kind == "start"  # its weights are those of several tasks, so its card is no task's
    header = read_header(path, also=("BF16",) if start else ())
    try:
        facts = parse_json(header.pop("__metadata__")["card"])
        card = None if start else TaskCard.model_validate(facts.pop("task"))
        tensors = {name: (str(t["dtype"]), tuple(map(int, t["shape"]))) for name, t in sorted(header.items())}
    except (KeyError, TypeError, ValueError, AttributeError, ValidationError) as error:
        raise FormatError(f"{path}: its card does not validate: {error}; build or download it again") from error
    return Bundle(listing, path, card, facts, tensors)
