"""Tasks with wrong labels: which ones, how many, the same ones each time, and nothing else changed."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attriboard import tasks
from attriboard.base.errors import CardError
from attriboard.contracts.card import load_card
from attriboard.evaluation.catalog import load_task
from attriboard.tasks.catalogue import task_from_card
from attriboard.tasks.datasets.labels import flip_labels

FOLDER = Path(tasks.__file__).parent


@given(n=st.integers(2, 200), classes=st.integers(2, 10), share=st.floats(0, 0.99), seed=st.integers(0, 2**64 - 1))
def test_a_stated_share_gets_another_class_within_the_range(n, classes, share, seed):
    labels = np.arange(n) % classes
    flipped, wrong = flip_labels(labels, share, seed)
    assert wrong.sum() == round(share * n)
    assert ((flipped != labels) == wrong).all()
    assert set(flipped.tolist()) <= set(range(int(labels.max()) + 1))
    assert flipped.dtype == labels.dtype


def test_flips_go_to_every_other_class_alike():
    labels = np.zeros(40_000, np.int64)
    labels[:4] = np.arange(4)
    flipped, _ = flip_labels(labels, 0.9, 1)
    counts = np.bincount(flipped[4:], minlength=4)[1:]
    assert counts.min() > 0.97 * counts.mean()


def test_which_labels_are_flipped_never_changes():
    flipped, wrong = flip_labels(np.arange(20) % 10, 0.25, 0)
    assert np.flatnonzero(wrong).tolist() == [5, 6, 10, 14, 19]
    assert flipped[wrong].tolist() == [3, 0, 3, 9, 5]


def test_digits_mlp_flipped_differs_from_digits_mlp_in_a_tenth_of_the_training_labels_alone():
    clean, flipped = (load_task(name).load_data() for name in ("digits_mlp", "digits_mlp_flipped"))
    assert clean.mislabelled is None
    assert flipped.mislabelled.sum() == 130
    assert ((clean.train.targets != flipped.train.targets) == flipped.mislabelled).all()
    assert (clean.train.inputs == flipped.train.inputs).all()
    assert (clean.test.targets == flipped.test.targets).all()


@pytest.mark.parametrize("base", ["digits_mlp", "mnist_mlp"])
def test_flipped_cards_are_the_published_ones_with_one_more_option(base):
    def card(name):
        return yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))

    one, other = card(base), card(f"{base}_flipped")
    assert other["data"]["options"].pop("flipped") == 0.1
    describing = ("name", "title", "description", "questions")  # other ground truths have no part in the data
    assert {k: v for k, v in one.items() if k not in describing} == {
        k: v for k, v in other.items() if k not in describing
    }


@pytest.mark.parametrize("share", [-0.1, 1.0, "most"])
def test_a_share_out_of_range_is_refused(share):
    raw = yaml.safe_load((FOLDER / "digits_mlp_flipped.yaml").read_text(encoding="utf-8"))
    raw["data"]["options"]["flipped"] = share
    with pytest.raises(CardError, match=r"data\.options\.flipped"):
        task_from_card(load_card(raw))
