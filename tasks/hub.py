"""The Hugging Face Hub at pinned revisions, or a copy of a repository on this machine.

A copy is the folder `<owner>/<name>` in the directory that ATTRIBOARD_DATA names, as
`hf download <owner>/<name> --revision <revision> --local-dir $ATTRIBOARD_DATA/<owner>/<name>` writes it. Where there
is one it is read by the same calls as the Hub, and held to being whole.
"""

import importlib
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attriboard.base.errors import DataError
from attriboard.tasks.mirror import mirror_directory


class Absent(Exception):  # noqa: N818 - an answer, not an error
    """A place does not have what is looked for; the message says why."""


# Class name of an error, ours to explain wherever it is in the chain of causes; the most telling first.
_REASONS = {
    "GatedRepoError": "it is gated: accept its terms on {url}, then `hf auth login`",
    "RevisionNotFoundError": "it has no revision {revision} any more: its history was rewritten",
    "DisabledRepoError": "the Hub has disabled it",
    "OfflineModeIsEnabled": "offline mode is on (HF_HUB_OFFLINE), and there is no cached copy",
    "RepositoryNotFoundError": "the Hub has no such repository, or it is private: it was renamed or removed; see {url}",
    "LocalEntryNotFoundError": "the Hub does not answer, and there is no cached copy",
    "ConnectionError": "the Hub does not answer, and there is no cached copy",
    "ConnectError": "the Hub does not answer, and there is no cached copy",
    "EntryNotFoundError": "it lacks a file at this revision: it is not what it was",
    "DatasetNotFoundError": "the Hub has no such data set, or it is private or gated: see {url}",
    "DataFilesNotFoundError": "it holds no data files of this configuration",
}


@dataclass(frozen=True)
class HubRepository:
    """A repository at a revision.

    Args:
        name: owner/name.
        revision: full commit hash.
        kind: what the Hub calls it: "model" or "dataset".
    """

    name: str
    revision: str
    kind: str = "model"

    def __str__(self) -> str:
        return f"Hugging Face {self.name} at revision {self.revision[:12]}"

    @property
    def url(self) -> str:
        """Its page."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.name}"

    @property
    def remedy(self) -> str:
        """How to put a copy into the mirror."""
        kind = " --repo-type dataset" if self.kind == "dataset" else ""
        return (
            f"hf download {self.name}{kind} --revision {self.revision} --local-dir DIR/{self.name}, "
            "with ATTRIBOARD_DATA=DIR"
        )

    def copy(self) -> Path | None:
        """The copy in the mirror, if there is one.

        Raises:
            DataError: ATTRIBOARD_DATA names no directory.
        """
        mirror = mirror_directory()
        folder = mirror / self.name if mirror else None
        return folder if folder and folder.is_dir() else None

    def place(self) -> str:
        """What `from_pretrained` and `load_dataset` take: the copy's path, or owner/name."""
        return str(self.copy() or self.name)

    def file(self, name: str) -> Path:
        """One file.

        Raises:
            Absent: there is no copy, and the Hub or the package `huggingface_hub` does not answer.
            DataError: the copy lacks the file.
        """
        copy = self.copy()
        if copy is not None:
            if not (copy / name).is_file():
                raise DataError(f"{copy}: has no file {name}; this copy is partial: {self.remedy}")
            return copy / name
        hub = import_extra("huggingface_hub")
        try:
            return Path(hub.hf_hub_download(self.name, name, revision=self.revision, repo_type=self.kind))
        except Exception as error:  # a network, a Hub and a cache have no common base of errors
            raise Absent(explain(error, self)) from error


def import_extra(package: str) -> Any:
    """Import a package that only some tasks need.

    Raises:
        Absent: it does not import.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise Absent(f"the package `{package}` does not import ({error})") from error


def explain(error: BaseException, repository: HubRepository) -> str:
    """One line on why the Hub did not give a repository."""
    found = {kind.__name__ for link in _chain(error) for kind in type(link).__mro__}
    original = f"{type(error).__name__}: {textwrap.shorten(str(error), 300)}"
    for name, reason in _REASONS.items():
        if name in found:
            return f"{reason.format(url=repository.url, revision=repository.revision)} ({original})"
    return original


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
