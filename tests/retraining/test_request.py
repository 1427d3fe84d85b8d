"""What a retrain is called, and the streams that must never change."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny import tiny_task

from attriboard.base.errors import InputError
from attriboard.retraining.request import RetrainRequest, epoch_order, pack_indices, random_subset

FINGERPRINT = "ab" * 32


@st.composite
def requests(draw: st.DrawFn) -> tuple[RetrainRequest, int]:
    n_train = draw(st.integers(1, 200))
    rows = draw(st.sets(st.integers(0, n_train - 1), min_size=1))
    seed = draw(st.integers(0, 2**53 - 1))
    epochs = draw(st.lists(st.integers(1, 99), unique=True, max_size=4).map(sorted))
    return RetrainRequest(np.array(sorted(rows)), seed, tuple(epochs)), n_train


@given(requests())
def test_a_request_survives_json(case: tuple[RetrainRequest, int]) -> None:
    request, n_train = case
    back = RetrainRequest.from_json(json.loads(json.dumps(request.to_json(n_train))), n_train)
    assert back.indices.tolist() == request.indices.tolist()
    assert (back.seed, back.keep_epochs) == (request.seed, request.keep_epochs)
    assert back.digest(FINGERPRINT) == request.digest(FINGERPRINT)


@given(requests(), requests())
def test_different_requests_have_different_digests(
    one: tuple[RetrainRequest, int], two: tuple[RetrainRequest, int]
) -> None:
    a, b = one[0], two[0]
    same = (a.indices.tolist(), a.seed) == (b.indices.tolist(), b.seed)
    assert (a.digest(FINGERPRINT) == b.digest(FINGERPRINT)) == same


def test_the_digest_depends_on_task_indices_and_seed_and_on_nothing_else() -> None:
    base = RetrainRequest(np.array([0, 2, 5]), 3)
    digest = base.digest(FINGERPRINT)
    assert base.digest("cd" * 32) != digest
    assert RetrainRequest(np.array([0, 2, 6]), 3).digest(FINGERPRINT) != digest
    assert RetrainRequest(np.array([0, 2]), 3).digest(FINGERPRINT) != digest
    assert RetrainRequest(np.array([0, 2, 5]), 4).digest(FINGERPRINT) != digest
    for same in (
        RetrainRequest(np.array([0, 2, 5]), 3, (1, 2)),
        RetrainRequest(np.array([0, 2, 5], dtype=np.int32), 3),
        RetrainRequest(np.array([0, 9, 2, 9, 5])[::2], 3),
    ):
        assert same.digest(FINGERPRINT) == digest


def test_the_digest_is_the_one_that_stores_on_disk_have() -> None:
    request = RetrainRequest(np.array([0, 2, 5]), 3)
    assert request.digest(FINGERPRINT) == "f98459e70bbbb4e682dbe72ed48010dc1270d224800795035eb90e7517b88551"


@pytest.mark.parametrize(
    "indices",
    [
        [],
        np.array([], dtype=np.int64),
        [2, 1],
        [1, 1],
        [-1, 3],
        [[0, 1]],
        3,
        [0.5, 1.5],
        [0.0, 1.0],
        [False, True],
        ["a"],
        [0, 2**63],
    ],
    ids=repr,
)
def test_indices_that_are_no_ascending_rows_are_refused(indices: Any) -> None:
    with pytest.raises(InputError, match="strictly ascending"):
        RetrainRequest(np.array(indices), 0)


@pytest.mark.parametrize("seed", [-1, 2**53, 1.0, True, "1", None, np.int64(1)], ids=repr)
def test_a_seed_that_is_no_whole_number_in_range_is_refused(seed: Any) -> None:
    with pytest.raises(InputError, match="seed = "):
        RetrainRequest(np.array([0]), seed)


def test_an_index_outside_of_the_training_set_is_refused() -> None:
    with pytest.raises(InputError, match=r"index 8 .* rows 0 … 7"):
        pack_indices(np.array([1, 8]), 8)


def test_the_order_stream_never_changes() -> None:
    assert epoch_order(10, 0, 1).tolist() == [0, 1, 5, 4, 6, 9, 2, 8, 3, 7]
    assert epoch_order(10, 0, 2).tolist() == [3, 4, 8, 6, 2, 7, 0, 5, 1, 9]
    assert epoch_order(10, 1_000_003, 1).tolist() == [8, 9, 7, 4, 1, 6, 3, 0, 5, 2]
    assert epoch_order(10, 2**53 - 1, 50).tolist() == [2, 8, 3, 1, 4, 7, 6, 5, 0, 9]


def test_the_subset_stream_never_changes() -> None:
    assert random_subset(12, 6, 0, 0).tolist() == [1, 2, 6, 7, 9, 10]
    assert random_subset(12, 6, 0, 199).tolist() == [2, 4, 5, 6, 7, 10]
    assert random_subset(12, 6, 5, 1_000_000).tolist() == [1, 5, 7, 8, 10, 11]


def test_orders_are_permutations_that_differ_by_seed_and_epoch() -> None:
    orders = [tuple(epoch_order(20, seed, epoch)) for seed in range(5) for epoch in range(1, 6)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len(set(orders)) == 25


def test_a_subset_depends_on_its_own_number_alone_and_never_on_an_order_stream() -> None:
    alone = random_subset(50, 25, 0, 17)
    among = [random_subset(50, 25, 0, k) for k in range(30)][17]
    assert alone.tolist() == among.tolist()
    assert np.all(np.diff(alone) > 0)
    assert alone.tolist() != sorted(epoch_order(50, 0, 17)[:25].tolist())


def test_subsets_are_uniform() -> None:
    pairs = np.zeros(15)  # the 15 subsets of size 2 of 6 rows
    names = {(i, j): p for p, (i, j) in enumerate((i, j) for i in range(6) for j in range(i + 1, 6))}
    for k in range(3000):
        pairs[names[tuple(random_subset(6, 2, 0, k).tolist())]] += 1
    assert chisquare(pairs).pvalue > 0.01


def test_rows_of_the_tasks_masks_are_drawn_equally_often() -> None:
    card = tiny_task().card
    count = np.zeros(card.data.n_train)
    for k in range(2000):
        count[random_subset(card.data.n_train, card.subset_size, 0, k)] += 1
    p = card.subset_size / card.data.n_train
    z = (count - 2000 * p) / np.sqrt(2000 * p * (1 - p))
    assert np.abs(z).max() < 4
