"""The list of published bundles: what exists, which bytes it has, where to get it.

`registry.json` is in a folder with the bundles that it lists; one that is not there may lie in the cache, or at the
URLs of its entry. One version of a task has at most one bundle of a kind and question; another version is another
fingerprint and another entry.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.documents import parse_json, read_bounded
from attriboard.base.errors import DataError, FormatError, InputError
from attriboard.base.paths import cache_folder, leaderboard_folder, start_path, write_atomically
from attriboard.base.schema import Sha256, TaskName, in_words, matching
from attriboard.contracts.card import TaskCard
from attriboard.contracts.question import Question

Progress = Callable[[int, int], None]

BundleKind = Literal["groundtruth", "checkpoints", "models", "start"]
"""Ground truth; the models that attributors are given; more models, of the last epoch, to average scores over; the
weights that every retrain starts from."""
_FILE = r"[A-Za-z0-9][A-Za-z0-9_.-]*\.safetensors"
_Url = Annotated[
    str,
    matching(
        r"^(https?|file|hf)://[!-~]+$", "a link that begins with https://, http://, file:// or hf://", max_length=2000
    ),
]
MAX_BYTES = 4 << 20  # of a list
PATIENCE = 60.0  # seconds that another process may take to change a list; it takes a moment


class BundleEntry(BaseModel):
    """One published file.

    Attributes:
        task, version, fingerprint: whose it is.
        kind: what it holds.
        file: name inside the registry's folder.
        sha256, bytes: of the file.
        urls: where else it is; see `attriboard.groundtruth.download.address`.
        question: name of the question that a ground truth asks; empty for the usual one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: TaskName
    version: int = Field(gt=0, le=2**53)
    fingerprint: Sha256
    kind: BundleKind
    file: Annotated[str, matching(f"^{_FILE}$", "the name of a file that ends with .safetensors", max_length=200)]
    sha256: Sha256
    bytes: int = Field(gt=0, le=2**53)
    urls: tuple[_Url, ...] = ()
    question: Annotated[str, matching(r"^[a-z0-9.-]{0,40}$", "the name of a question, as in 10pct-fresh")] = ""

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What no two entries share."""
        return self.task, self.version, self.kind, self.question

    @model_serializer(mode="wrap")
    def _without_the_usual_question(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name != "question" or value}


class Commitment(BaseModel):
    """What is published of a held-out ground truth, whose file its organizer keeps.

    Attributes:
        task, version, fingerprint: whose it is.
        sha256: of the file.
        n_masks, n_repeats: its sizes.
        created: UTC, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: TaskName
    version: int = Field(gt=0, le=2**53)
    fingerprint: Sha256
    sha256: Sha256
    n_masks: int = Field(gt=0, le=2**53)
    n_repeats: int = Field(gt=0, le=2**53)
    created: Annotated[str, matching(r"^[0-9TZ:-]{10,40}$", "a date, or a time in UTC, as in 2026-01-31T12:00:00Z")]


class _Listing(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    bundles: tuple[BundleEntry, ...] = ()
    held_out: tuple[Commitment, ...] = ()

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        for what, keys in (
            ("task, version, kind and question", [e.key for e in self.bundles]),
            ("file", [e.file for e in self.bundles]),
        ):
            if len(set(keys)) < len(keys):
                raise ValueError(f"two bundles have the same {what}")
        return self


def published_folder() -> Path:
    """The bundles that come with this installation."""
    return leaderboard_folder() / "groundtruth"


def cached_path(entry: BundleEntry) -> Path:
    """Where a fetched bundle is kept; the digest in its name keeps versions and registries apart."""
    if entry.kind == "start":
        return start_path(entry.file, entry.sha256)
    return cache_folder() / "bundles" / f"{entry.sha256[:16]}-{entry.file}"


def pinned_start(card: TaskCard) -> tuple[str, str] | None:
    """Name and SHA-256 of the published weights that a task's retrains start from; `None` where it has none."""
    name, sha256 = (str(card.model.options.get(key, "")) for key in ("pretrained", "sha256"))
    return (name, sha256) if re.fullmatch(_FILE, name) else None


def mirrors() -> list[str]:
    """Places that `ATTRIBOARD_MIRROR` names, URLs or folders with spaces between them, asked before a bundle's own."""
    return os.environ.get("ATTRIBOARD_MIRROR", "").split()


def entry_of(card: TaskCard, kind: BundleKind, path: Path, question: Question | None = None) -> BundleEntry:
    """The entry of a bundle's file."""
    return BundleEntry(
        task=card.name,
        version=card.version,
        fingerprint=card.fingerprint,
        kind=kind,
        file=path.name,
        sha256=digest_file(path),
        bytes=path.stat().st_size,
        question=question.name if question else "",
    )


def write_listing(folder: Path, entries: Iterable[BundleEntry], held_out: Iterable[Commitment] = ()) -> None:
    """Write a folder's `registry.json`, ordered by task, version, kind and question; commitments by their age."""
    listing = _Listing(
        bundles=tuple(sorted(entries, key=lambda e: e.key)),
        held_out=tuple(sorted(set(held_out), key=lambda c: (c.task, c.version, c.created, c.sha256))),
    )
    absent = set() if listing.held_out else {"held_out"}
    write_atomically(folder / "registry.json", listing.model_dump_json(indent=2, exclude=absent).encode() + b"\n")


@contextmanager
def changing_list(folder: Path) -> Iterator[None]:
    """Alone with a folder's list, from reading to writing it: what another process adds to it stays.

    Raises:
        DataError: another process does not let go of it.
    """
    from filelock import FileLock, Timeout

    path = folder / "registry.json"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=PATIENCE):
            yield
    except Timeout as error:
        raise DataError(f"{path}: another process has been changing it for {PATIENCE:g} s; end it") from error


class BundleRegistry:
    """A folder of bundles with its list.

    Args:
        folder: by default the published one. A folder without a list is an empty registry.

    Raises:
        FormatError: the list does not validate.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or published_folder()
        self.entries: tuple[BundleEntry, ...] = ()
        self.held_out: tuple[Commitment, ...] = ()
        self._read()

    def _read(self) -> None:
        """Take over what the list says now."""
        path = self.folder / "registry.json"
        if path.exists():
            try:
                content = read_bounded(path, MAX_BYTES, "a registry")
                parse_json(content)
                listing = _Listing.model_validate_json(content, strict=True)
                self.entries, self.held_out = listing.bundles, listing.held_out
            except (FormatError, ValueError) as error:
                raise FormatError(f"{path}: not a registry of bundles: {in_words(error)}") from error

    def find(self, card: TaskCard, kind: BundleKind, question: Question | None = None) -> BundleEntry | None:
        """The entry of exactly this task, by fingerprint, and of a question, the usual one by default.

        A start is found by the name and SHA-256 that the card pins: several tasks may start from the same weights.
        """
        if kind == "start":
            pinned = pinned_start(card)
            return next((e for e in self.entries if e.kind == kind and (e.file, e.sha256) == pinned), None)
        wanted = kind, card.fingerprint, question.name if question else ""
        return next((e for e in self.entries if (e.kind, e.fingerprint, e.question) == wanted), None)

    def of(self, card: TaskCard) -> list[BundleEntry]:
        """All entries of exactly this task, with the start that it shares with others."""
        start = self.find(card, "start")
        return [e for e in self.entries if e == start or (e.kind != "start" and e.fingerprint == card.fingerprint)]

    def locate(self, card: TaskCard, kind: BundleKind, question: Question | None = None) -> Path:
        """Path of a bundle whose bytes are the listed ones, in the folder or in the cache.

        Raises:
            DataError: not listed, or listed but not here.
            FormatError: the file has other bytes than the list says.
        """
        entry = self._listed(card, kind, question)
        path = self.place(entry)
        if path is None:
            raise DataError(
                f"{self.folder / entry.file}: listed but not here; fetch it: attriboard groundtruth pull {card.name}"
                f"{flag(question)}{f' --kind {kind}' * (kind in ('models', 'start'))}, or "
                f"{_remedy(card, kind, question)}"
            )
        return self._checked(entry, path)

    def present(self, entry: BundleEntry) -> Path:
        """Path of a listed bundle, whose card need not be known; see `locate`."""
        path = self.place(entry)
        if path is None:
            raise DataError(f"{self.folder / entry.file}: listed but not here; fetch it: attriboard groundtruth pull")
        return self._checked(entry, path)

    def _checked(self, entry: BundleEntry, path: Path) -> Path:
        found = digest_file(path)
        if found != entry.sha256:
            raise FormatError(
                f"{path}: SHA-256 {found[:12]}…, the registry says {entry.sha256[:12]}…; "
                "the file is torn or altered: fetch or build it again"
            )
        return path

    def obtain(
        self,
        card: TaskCard,
        kind: BundleKind,
        progress: Progress = lambda done, total: None,
        question: Question | None = None,
    ) -> Path:
        """Path of a bundle, which is fetched into the cache where it is not here and its entry has URLs.

        Args:
            card: the task's.
            kind: of the bundle.
            progress: called with bytes so far and in all.
            question: of a ground truth; the usual one by default.

        Raises:
            DataError: not listed, or no place has it.
            FormatError: the file has other bytes than the list says.
        """
        entry = self._listed(card, kind, question)
        if self.place(entry) is None and (entry.urls or mirrors()):
            return self.pull(entry, cached_path(entry), progress=progress)
        return self.locate(card, kind, question)

    def pull(
        self,
        entry: BundleEntry,
        target: Path,
        extra: Sequence[str] = (),
        progress: Progress = lambda done, total: None,
    ) -> Path:
        """Fetch a listed bundle.

        Args:
            entry: what the list says of it.
            target: where it goes.
            extra: places that are asked first, URLs or folders; the file's name is added.
            progress: called with bytes so far and in all.

        Raises:
            DataError: no place has it; the message names each.
        """
        from attriboard.groundtruth.download import Pinned, fetch_file

        places = [f"{place.rstrip('/')}/{entry.file}" for place in (*extra, *mirrors())]
        here = self.place(entry)
        own = [str(here)] if here is not None and here != target else []
        return fetch_file(target, Pinned(entry.sha256, entry.bytes), [*own, *places, *entry.urls], progress=progress)

    def place(self, entry: BundleEntry) -> Path | None:
        """Where a listed bundle lies, in the folder or in the cache; unchecked."""
        return next((path for path in (self.folder / entry.file, cached_path(entry)) if path.is_file()), None)

    def _listed(self, card: TaskCard, kind: BundleKind, question: Question | None) -> BundleEntry:
        entry = self.find(card, kind, question)
        if entry is None:
            asked = f", question {question.name}," if question else ""
            pinned = pinned_start(card) if kind == "start" else None
            which = f"{pinned[0]}, SHA-256 {pinned[1][:12]}…" if pinned else f"fingerprint {card.fingerprint[:12]}…"
            raise DataError(
                f"{self.folder}: lists no {kind} for {card.name}{asked} ({which}); {_remedy(card, kind, question)}"
            )
        return entry

    def file_name(self, card: TaskCard, kind: BundleKind, question: Question | None = None) -> str:
        """What a bundle is called; `-v2` and so on from the second version of a task."""
        version = f"-v{card.version}" if card.version > 1 else ""
        asked = f"-{question.name}" if question else ""
        return f"{card.name}{version}-{kind}{asked}.safetensors"

    def register(self, card: TaskCard, kind: BundleKind, question: Question | None = None) -> BundleEntry:
        """List the bundle that lies in the folder under its `file_name`, and write the list.

        Raises:
            InputError: another bundle of this task is published already, and published files are never replaced; or the
                weights of a start are not those that the card pins.
        """
        path = self.folder / self.file_name(card, kind, question)
        entry = entry_of(card, kind, path, question)
        if kind == "start" and pinned_start(card) != (entry.file, entry.sha256):
            raise InputError(
                f"{path}: has SHA-256 {entry.sha256}, and the card of {card.name} pins "
                f"{', '.join(pinned_start(card) or ['no file of weights'])}; its model.options must have pretrained: "
                f"{entry.file} and sha256: {entry.sha256}"
            )
        self._read()  # building an extension has listed it
        if not self._lists(entry):
            with self._changing():
                if not self._lists(entry):
                    write_listing(self.folder, (*self.entries, entry), self.held_out)
        return entry

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Alone with the list as it is now; what is written then is read again."""
        with changing_list(self.folder):
            self._read()
            yield
            self._read()

    def _lists(self, entry: BundleEntry) -> bool:
        """Whether a bundle is listed.

        Raises:
            InputError: another one is in its place.
        """
        other = next((e for e in self.entries if e.key == entry.key), entry)
        if other.sha256 != entry.sha256:
            raise InputError(
                f"{self.folder}: {entry.task} version {entry.version} has a published {entry.kind} already "
                f"({other.sha256[:12]}…); raise the card's version, or build elsewhere with --out"
            )
        return other is not entry

    def listed(self, path: Path) -> BundleEntry | None:
        """The entry of a file of the folder."""
        return next((entry for entry in self.entries if path == self.folder / entry.file), None)

    def relist(self, before: BundleEntry, content: bytes) -> None:
        """List the bytes with which a ground truth is extended. URLs, which have the old ones, go."""
        now = before.model_copy(update={"sha256": digest_bytes(content), "bytes": len(content), "urls": ()})
        with self._changing():
            write_listing(self.folder, (now if entry == before else entry for entry in self.entries), self.held_out)

    def commit(self, commitment: Commitment) -> None:
        """Name a held-out ground truth in the list, and write the list."""
        with self._changing():
            write_listing(self.folder, self.entries, (*self.held_out, commitment))


def _remedy(card: TaskCard, kind: BundleKind, question: Question | None) -> str:
    if kind == "start":
        pinned = pinned_start(card)
        if pinned is None:
            return "model.options.pretrained of its card names no file of weights"
        return f"name a folder that has it: --groundtruth DIR, or put it there: {start_path(*pinned)}"
    if kind == "models":
        made = f"make it: attriboard report models {card.name} --publish DIR"
    else:
        made = f"build it: attriboard groundtruth build {card.name}{flag(question)} --out DIR"
    return f"{made}, then name that folder, or one that has it: --groundtruth DIR"


def flag(question: Question | None) -> str:
    """The option by which a command asks a question; none for the usual one."""
    return f" --question {question.name}" if question else ""
