"""Retraining on a real scheduler and real worker processes, which are killed, stopped and left without data."""

import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cluster_site import Site
from distributed import CancelledError
from tiny import N_TRAIN, PlainTinyTask, SmoothedTinyTask, TinyTask, UnavailableTask, tiny_card

from attriboard.base.errors import AttriboardError, DataError, InputError
from attriboard.retraining import cluster
from attriboard.retraining.choosing import describe_training
from attriboard.retraining.cluster import DaskCluster
from attriboard.retraining.engine import array_names, retrain
from attriboard.retraining.request import RetrainRequest, random_subset
from attriboard.retraining.store import RetrainStore


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "BEAT_SECONDS", 0.3)


def requests(count: int) -> list[RetrainRequest]:
    return [RetrainRequest(random_subset(N_TRAIN, 22, 0, k), 1000 + k, (1, 3)) for k in range(count)]


def store_of(task: TinyTask, folder: Path) -> RetrainStore:
    return RetrainStore(folder, task.card.fingerprint)


def everything(task: TinyTask, store: RetrainStore, count: int) -> dict[str, bytes]:
    digests = [request.digest(task.card.fingerprint) for request in requests(count)]
    return {name: store.read(name, digests).tobytes() for name in array_names(task, requests(1)[0])}


def trained_here(task: TinyTask, folder: Path, count: int) -> dict[str, bytes]:
    store = store_of(task, folder)
    retrain(task, requests(count), store)
    return everything(task, store, count)


def slow_task() -> PlainTinyTask:
    """Tens of milliseconds for a retrain, one in a stack."""
    return PlainTinyTask(tiny_card(epochs=30))


def test_a_cluster_gives_the_bits_of_this_process_and_says_how_it_is(site: Site, tmp_path: Path) -> None:
    said: list[str] = []
    site.up("one", "two")
    for number, task in enumerate((TinyTask(tiny_card()), slow_task())):
        store = store_of(task, tmp_path / str(number))
        assert retrain(task, requests(12), store, DaskCluster(site.address, said.append)) == 12
        assert everything(task, store, 12) == trained_here(task, tmp_path / f"here{number}", 12)
    assert any("stacks to go" in text and "last result" in text for text in said)


def test_workers_say_why_they_train_in_a_slower_way_than_was_planned(site: Site, tmp_path: Path) -> None:
    """The planning side may lack the data, and then tries nothing."""
    said: list[str] = []
    site.up("one")
    task = SmoothedTinyTask(tiny_card())
    retrain(task, requests(3), store_of(task, tmp_path), DaskCluster(site.address, said.append))
    for _ in range(50):  # an event travels beside the results
        if found := [text for text in said if "StackedMLPTrainer is not used" in text]:
            break
        time.sleep(0.1)
    workers = [text.partition(": ")[0] for text in found]
    assert workers
    assert len(workers) == len(set(workers)), "each says it once"
    assert all(worker.startswith("worker tcp://127.0.0.1:") for worker in workers)
    planned = describe_training(UnavailableTask(tiny_card()))
    assert "its data is not here, so every worker tries it and says where it does not" in planned


def test_a_worker_without_the_data_is_named_with_the_way_out(site: Site, tmp_path: Path) -> None:
    site.up("one")
    task = UnavailableTask(tiny_card())
    expected = r"worker tcp://127\.0\.0\.1:\d+ does not have the data.*set ATTRIBOARD_DATA.*no source has it"
    with pytest.raises(DataError, match=expected):
        retrain(task, requests(3), store_of(task, tmp_path), DaskCluster(site.address))


def test_a_worker_with_other_versions_is_refused(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.up("one")
    monkeypatch.setattr(cluster, "_versions", lambda: {"attriboard": "0.0.1", "torch": "1.0"})
    with pytest.raises(InputError, match=r"worker tcp.* has attriboard .*, the submitting side attriboard 0\.0\.1"):
        retrain(slow_task(), requests(1), store_of(slow_task(), tmp_path), DaskCluster(site.address))


def test_a_worker_that_hangs_delays_nothing_but_its_own_stacks(site: Site, tmp_path: Path) -> None:
    task, store, said = slow_task(), store_of(slow_task(), tmp_path), []
    hanging = site.up("one", "two")["one"]

    def stop_one(done: int, total: int) -> None:
        if done == 4:
            hanging.send_signal(signal.SIGSTOP)

    try:
        retrain(task, requests(16), store, DaskCluster(site.address, said.append, patience=1.0), stop_one)
    finally:
        hanging.send_signal(signal.SIGCONT)
    assert any("tried elsewhere" in text for text in said)
    assert everything(task, store, 16) == trained_here(task, tmp_path / "here", 16)


@pytest.mark.parametrize(
    ("status", "result", "raised"),
    [
        ("finished", b"a shard", None),
        ("pending", b"a shard", None),  # its worker died after the result was handed over
        ("cancelled", CancelledError(), ConnectionError),
        ("error", (DataError, DataError("no data there"), None), DataError),
    ],
)
def test_what_came_back_decides_and_not_what_became_of_its_future(
    status: str, result: Any, raised: type[Exception] | None
) -> None:
    future: Any = type("Future", (), {"status": status})()
    run = cluster._Run(Any, lambda payload: b"", lambda text: None, 1.0, {future: cluster._Stack("payload", [future])})
    if raised is None:
        assert run._shard(future, result) == result
        assert (run.done, run.under_way) == (1, {})
        return
    with pytest.raises(raised):
        run._shard(future, result)


def test_what_a_killed_worker_had_is_trained_by_the_others(site: Site, tmp_path: Path) -> None:
    task, store = slow_task(), store_of(slow_task(), tmp_path)
    site.up("one", "two")

    def kill(done: int, total: int) -> None:
        if done == 5:
            site.kill("two")

    assert retrain(task, requests(24), store, DaskCluster(site.address), kill) == 24
    assert everything(task, store, 24) == trained_here(task, tmp_path / "here", 24)


def test_a_lost_scheduler_is_an_error_and_the_next_run_goes_on_from_what_was_done(site: Site, tmp_path: Path) -> None:
    task, folder, counts = slow_task(), tmp_path / "store", []
    site.up("one")

    def kill(done: int, total: int) -> None:
        if done == 5:
            site.kill("scheduler")

    with pytest.raises(AttriboardError, match=r"connection to the dask scheduler tcp.* is lost; finished retrains"):
        retrain(task, requests(30), store_of(task, folder), DaskCluster(site.address), kill)
    kept = len(store_of(task, folder))
    assert 5 <= kept < 30
    site.kill("one")  # it would end by itself, but not at once
    site.up("one")
    store = store_of(task, folder)
    retrain(task, requests(30), store, DaskCluster(site.address), lambda *count: counts.append(count))
    assert counts[0] == (kept, 30)
    assert all(later[0] > earlier[0] for earlier, later in pairwise(counts))
    assert everything(task, store, 30) == trained_here(task, tmp_path / "here", 30)


def test_a_worker_that_would_run_two_retrains_in_one_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SimpleNamespace(address="tcp://10.0.0.7:4", state=SimpleNamespace(nthreads=4))
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    with pytest.raises(InputError, match=r"worker tcp://10.0.0.7:4 runs 4 tasks in one process.*--nthreads 1"):
        cluster._serve(str.encode, "payload", cluster._versions())


def test_a_stack_that_ends_every_worker_is_an_error_that_names_the_last_one() -> None:
    from distributed import KilledWorker
    from distributed.scheduler import WorkerState

    last = WorkerState(address="tcp://10.0.0.7:4", status="running", pid=1, name="n", nthreads=1, memory_limit=1,
                       local_directory="", nanny="", server_id="s")  # fmt: skip
    error = cluster._failure(KilledWorker("stack", last, 3))
    assert "ended every worker that tried it, the last one tcp://10.0.0.7:4" in str(error)


def test_a_scheduler_that_is_not_there_is_an_error_that_says_how_to_start_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match=r"no dask scheduler answers.*dask scheduler"):
        retrain(slow_task(), requests(1), store_of(slow_task(), tmp_path), DaskCluster("tcp://127.0.0.1:1"))


def test_without_dask_the_error_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"needs dask\.distributed; pip install 'attriboard\[dask\]'"):
        DaskCluster("tcp://127.0.0.1:1")
