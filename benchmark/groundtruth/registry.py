"""The list of published bundles: what exists, which bytes it has, where it can be had.

`registry.json` stands in a folder with the bundles that it lists. One version of a task has at most one
ground truth and one set of checkpoints; another version is another fingerprint and another entry.
"""

import importlib.util
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from attriboard.canonical import digest_file
from attriboard.cards import TaskCard
from attriboard.errors import DataError, FormatError, InputError
from attriboard.files import write_atomically

__all__ = ["BundleEntry", "BundleKind", "BundleRegistry", "published_folder"]

BundleKind = Literal["groundtruth", "checkpoints"]


class BundleEntry(BaseModel):
    """One published file.

    Attributes:
        task, version, fingerprint: whose it is.
        kind: what it holds.
        file: name inside the registry's folder.
        sha256, bytes: of the file.
        urls: where else it can be had.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    version: int
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    kind: BundleKind
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+\.safetensors$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: int = Field(gt=0)
    urls: tuple[str, ...] = ()


class _Listing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    bundles: tuple[BundleEntry, ...] = ()


def published_folder() -> Path:
    """The bundles that come with this installation."""
    spec = importlib.util.find_spec("attriboard.leaderboard")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "groundtruth"


class BundleRegistry:
    """A folder of bundles with its list.

    Args:
        folder: by default the published one. A folder without a list is an empty registry.

    Raises:
        FormatError: the list does not validate.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or published_folder()
        path = self.folder / "registry.json"
        try:
            self.entries = _Listing.model_validate_json(path.read_bytes()).bundles if path.exists() else ()
        except (OSError, ValidationError) as error:
            raise FormatError(f"{path}: not a registry of bundles: {error}") from error

    def find(self, card: TaskCard, kind: BundleKind) -> BundleEntry | None:
        """The entry of exactly this task, by fingerprint."""
        fingerprint = card.fingerprint
        found = [e for e in self.entries if e.kind == kind and e.fingerprint == fingerprint]
        return found[0] if found else None

    def locate(self, card: TaskCard, kind: BundleKind) -> Path:
        """Path of a bundle whose bytes are the listed ones.

        Raises:
            DataError: not listed, or listed but not in the folder.
            FormatError: the file has other bytes than the list says.
        """
        entry = self.find(card, kind)
        if entry is None:
            raise DataError(
                f"{self.folder}: lists no {kind} for {card.name} (fingerprint {card.fingerprint[:12]}…); "
                f"build it: attriboard groundtruth build {card.name}"
            )
        path = self.folder / entry.file
        if not path.is_file():
            raise DataError(f"{path}: listed but not here; build it: attriboard groundtruth build {card.name}")
        found = digest_file(path)
        if found != entry.sha256:
            raise FormatError(
                f"{path}: SHA-256 {found[:12]}…, the registry says {entry.sha256[:12]}…; "
                "the file is torn or altered: fetch or build it again"
            )
        return path

    def file_name(self, card: TaskCard, kind: BundleKind) -> str:
        """What a bundle is called; `-v2` and so on from the second version of a task."""
        version = f"-v{card.version}" if card.version > 1 else ""
        return f"{card.name}{version}-{kind}.safetensors"

    def register(self, card: TaskCard, kind: BundleKind) -> BundleEntry:
        """List the bundle that lies in the folder under its `file_name`, and write the list.

        Raises:
            InputError: another bundle of this task is published already; published files are never replaced.
        """
        path = self.folder / self.file_name(card, kind)
        entry = BundleEntry(
            task=card.name,
            version=card.version,
            fingerprint=card.fingerprint,
            kind=kind,
            file=path.name,
            sha256=digest_file(path),
            bytes=path.stat().st_size,
        )
        others = [e for e in self.entries if (e.task, e.version, e.kind) == (card.name, card.version, kind)]
        if others and others[0].sha256 != entry.sha256:
            raise InputError(
                f"{self.folder}: {card.name} version {card.version} has a published {kind} already "
                f"({others[0].sha256[:12]}…); raise the card's version, or build elsewhere with --out"
            )
        if not others:
            entries = sorted((*self.entries, entry), key=lambda e: (e.task, e.version, e.kind))
            self.entries = tuple(entries)
            listing = _Listing(bundles=self.entries).model_dump_json(indent=2)
            write_atomically(self.folder / "registry.json", listing.encode() + b"\n")
        return entry
