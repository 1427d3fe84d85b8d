"""Where the weights of a pretrained model lie: on the Hub, in a folder of the same format, in one file.

    pretrained: owner/name              the Hub's repository at `revision`, or its copy in ATTRIBOARD_DATA
    pretrained: ./folder                what `model.save_pretrained(folder)` wrote, relative to the card
    pretrained: NAME.safetensors        one file with the tensors that `save_pretrained` writes

Each is pinned by the SHA-256 of the file of weights. One file is looked for beside the published bundles, and then in
the folder of data sets, where isolated processes see it. Published ones are called TASK-start.safetensors; see
`attriboard.groundtruth.starts`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from attriboard.base.errors import DataError
from attriboard.base.paths import leaderboard_folder, start_path
from attriboard.tasks.hub import HubRepository

SUFFIX = ".safetensors"
FILE = "model.safetensors"


class Weights(Protocol):
    """Weights that a card names."""

    @property
    def remedy(self) -> str:
        """How to get or replace them."""

    def place(self) -> str:
        """What messages call it, and `from_pretrained` takes where it is a folder or a repository."""

    def file(self, name: str) -> Path:
        """One file.

        Raises:
            Absent: it cannot be reached.
            DataError: it is missing from a place that is there.
        """


@dataclass(frozen=True)
class FolderOfWeights:
    """A folder in Hugging Face's format."""

    path: Path

    @property
    def remedy(self) -> str:
        """See `Weights`."""
        return f"save the model again: model.save_pretrained({str(self.path)!r})"

    def place(self) -> str:
        """See `Weights`."""
        return str(self.path)

    def file(self, name: str) -> Path:
        """See `Weights`."""
        if not (self.path / name).is_file():
            raise DataError(f"{self.path}: has no file {name}; {self.remedy}")
        return self.path / name


@dataclass(frozen=True)
class FileOfWeights:
    """One file of weights."""

    name: str
    sha256: str

    @property
    def remedy(self) -> str:
        """See `Weights`."""
        published = re.fullmatch(r"([a-z][a-z0-9_]+)(-v\d+)?-start\.safetensors", self.name)
        pull = f"attriboard groundtruth pull {published[1]}, or " if published else ""
        return f"{pull}put the file there: {self.places[1]}"

    def place(self) -> str:
        """See `Weights`."""
        return str(self.path or self.name)

    def file(self, name: str) -> Path:
        """See `Weights`; there is one file, whatever its name."""
        if self.path is None:
            raise DataError(
                f"pretrained model {self.name}: neither {self.places[0]} nor {self.places[1]} exists; {self.remedy}"
            )
        return self.path

    @property
    def places(self) -> tuple[Path, Path]:
        """Where it may lie."""
        return leaderboard_folder() / "groundtruth" / self.name, start_path(self.name, self.sha256)

    @property
    def path(self) -> Path | None:
        """Where it lies."""
        return next((path for path in self.places if path.is_file()), None)


def weights(name: str, revision: str, sha256: str, folder: Path) -> Weights:
    """The weights that a card names.

    Args:
        name: as in the module's table.
        revision: of a repository on the Hub.
        sha256: of the file of weights.
        folder: what a path is relative to.
    """
    if is_path(name):
        return FolderOfWeights(folder / Path(name).expanduser())
    return FileOfWeights(name, sha256) if name.endswith(SUFFIX) else HubRepository(name, revision)


def is_path(name: str) -> bool:
    """Whether a name means a folder."""
    return name.startswith((".", "/", "~"))
