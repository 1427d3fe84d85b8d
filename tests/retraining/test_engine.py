"""The engine: what is trained, where, and that nothing but the request decides the bits."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import (
    N_TEST,
    N_TRAIN,
    DyingTask,
    NormedTinyTask,
    PlainTinyTask,
    TinyTask,
    UnavailableTask,
    tiny_card,
    tiny_task,
)

from attriboard.base.errors import AttriboardError, DataError, InputError
from attriboard.retraining.engine import array_names, retrain
from attriboard.retraining.executors import Executor, InProcess, LocalProcesses
from attriboard.retraining.request import RetrainRequest, random_subset
from attriboard.retraining.store import RetrainStore
from attriboard.retraining.trainer import state_parts


def requests(count: int, keep: tuple[int, ...] = ()) -> list[RetrainRequest]:
    return [RetrainRequest(random_subset(N_TRAIN, 22, 0, k), 1000 + k, keep) for k in range(count)]


def store_of(task: TinyTask, folder: Path) -> RetrainStore:
    return RetrainStore(folder, task.card.fingerprint)


def everything(task: TinyTask, store: RetrainStore, wanted: Sequence[RetrainRequest]) -> dict[str, bytes]:
    digests = [r.digest(task.card.fingerprint) for r in wanted]
    return {name: store.read(name, digests).tobytes() for name in array_names(task, wanted[0])}


def test_nothing_is_trained_twice(tmp_path: Path) -> None:
    task, store = tiny_task(), store_of(tiny_task(), tmp_path)
    assert retrain(task, requests(4), store) == 4
    assert retrain(task, requests(4), store) == 0
    assert retrain(task, requests(6), store) == 2
    assert retrain(task, requests(6), store_of(task, tmp_path)) == 0
    assert len(store) == 6


def test_repeated_requests_are_one_retrain_that_keeps_what_any_of_them_wants(tmp_path: Path) -> None:
    task, store = tiny_task(), store_of(tiny_task(), tmp_path)
    wanted = [*requests(2, (1,)), *requests(2, (3,)), *requests(2)]
    assert retrain(task, wanted, store) == 2
    assert retrain(task, wanted, store) == 0


def test_parameters_that_are_wanted_later_are_trained_for_with_the_same_outputs(tmp_path: Path) -> None:
    task, store = tiny_task(), store_of(tiny_task(), tmp_path)
    retrain(task, requests(2), store)
    before = everything(task, store, requests(2))
    assert retrain(task, requests(2, (1, 3)), store) == 2
    after = everything(task, store, requests(2, (1, 3)))
    assert set(after) > set(before)
    assert all(after[name] == before[name] for name in before)


def test_kept_parameters_give_the_kept_outputs(tmp_path: Path) -> None:
    task, store = tiny_task(), store_of(tiny_task(), tmp_path)
    wanted = requests(3, (3,))
    retrain(task, wanted, store)
    digests = [r.digest(task.card.fingerprint) for r in wanted]
    model, test = task.build_model(), task.load_data().test
    model.load_state_dict(
        {n: torch.from_numpy(store.read(f"parameters/3/{n}", digests[1:2])[0]) for n in model.state_dict()}
    )
    with torch.no_grad():
        margin = task.margin(model(test.inputs), test.targets)
    assert store.read("outputs/margin", digests).shape == (3, N_TEST)
    np.testing.assert_allclose(store.read("outputs/margin", digests[1:2])[0], margin, rtol=1e-5, atol=1e-6)


def test_outputs_are_those_of_the_kept_running_statistics_not_of_the_test_batch(tmp_path: Path) -> None:
    task = NormedTinyTask(tiny_card())
    store, request = store_of(task, tmp_path), requests(1, (3,))[0]
    retrain(task, [request], store)
    digest = request.digest(store.fingerprint)
    parts = state_parts(task.build_model())
    model, test = task.build_model().eval(), task.load_data().test
    model.load_state_dict({n: torch.tensor(store.read(f"{p}/3/{n}", [digest])[0]) for n, p in parts.items()})
    with torch.no_grad():
        alone = torch.cat([task.margin(model(test.inputs[[i]]), test.targets[[i]]) for i in range(N_TEST)])
    np.testing.assert_allclose(store.read("outputs/margin", [digest])[0], alone, rtol=1e-5, atol=1e-6)
    assert store.read("buffers/3/1.num_batches_tracked", [digest]).tolist() == [9]


def test_progress_counts_from_what_is_there_to_what_is_asked_for(tmp_path: Path) -> None:
    task = PlainTinyTask(tiny_card())
    store = store_of(task, tmp_path)
    retrain(task, requests(2), store)
    seen: list[tuple[int, int]] = []
    retrain(task, requests(5), store, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(2, 5), (3, 5), (4, 5), (5, 5)]


def test_subsets_of_different_sizes_train_in_one_call(tmp_path: Path) -> None:
    task, store = tiny_task(), store_of(tiny_task(), tmp_path)
    sizes = [RetrainRequest(np.arange(size), 1) for size in (1, 8, 9, 45)]
    assert retrain(task, sizes, store) == 4
    assert len({store.read("outputs/loss", [r.digest(store.fingerprint)]).tobytes() for r in sizes}) == 4


def test_rows_that_the_training_set_lacks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="index 45"):
        retrain(tiny_task(), [RetrainRequest(np.array([3, 45]), 0)], store_of(tiny_task(), tmp_path))


@pytest.mark.parametrize(
    "task",
    [tiny_task(), PlainTinyTask(tiny_card()), NormedTinyTask(tiny_card())],
    ids=["stacked", "plain", "batch norm"],
)
def test_the_bits_do_not_depend_on_workers_order_or_shards(task: TinyTask, tmp_path: Path) -> None:
    wanted = requests(7, (1, 3))
    alone = store_of(task, tmp_path / "alone")
    for request in wanted:
        retrain(task, [request], alone)
    expected = everything(task, alone, wanted)
    executors: list[Executor] = [InProcess(), LocalProcesses(2)]
    for number, executor in enumerate(executors):
        store = store_of(task, tmp_path / str(number))
        retrain(task, wanted[::-1], store, executor)
        assert everything(task, store, wanted) == expected


def test_the_callers_threads_do_not_reach_a_retrain_and_are_given_back(tmp_path: Path) -> None:
    task, before = tiny_task(hidden=[64, 32]), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            store = store_of(task, tmp_path / str(count))
            retrain(task, requests(5), store)
            assert torch.get_num_threads() == count
            found.append(everything(task, store, requests(5)))
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


def test_a_worker_that_dies_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    task = DyingTask(tiny_card())
    with pytest.raises(AttriboardError, match=r"process died.*finished retrains are kept.*--workers"):
        retrain(task, requests(3), store_of(task, tmp_path), LocalProcesses(1))


def test_an_error_in_a_worker_is_the_callers_error(tmp_path: Path) -> None:
    task = UnavailableTask(tiny_card())
    with pytest.raises(DataError, match="no source has it"):
        retrain(task, requests(3), store_of(task, tmp_path), LocalProcesses(1))


def large_result(payload: str) -> bytes:
    """Far more than a pipe holds."""
    return bytes(64 * 2**20)


def test_stopping_while_a_worker_hands_over_a_large_result_does_not_wait_for_its_rest() -> None:
    results = LocalProcesses(1).map(large_result, [""] * 4)
    assert len(next(results)) == 64 * 2**20
    stopping = threading.Thread(target=results.close, daemon=True)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive(), "waits for a worker that was ended"
