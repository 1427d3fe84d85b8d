"""The store on its own: whole shards are found, everything else is set aside or refused."""

from pathlib import Path

import numpy as np
import pytest

from attriboard.base.digests import digest_bytes
from attriboard.base.errors import FormatError
from attriboard.retraining.store import RetrainStore, Shard

TASK = "ab" * 32


def shard(*digests: str, fingerprint: str = TASK, value: float = 1.0, **more: float) -> bytes:
    rows = np.arange(len(digests), dtype=np.float32)[:, None]
    arrays = {"outputs/loss": np.repeat(rows, 4, axis=1) + np.float32(value)}
    arrays |= {name: np.full((len(digests), 2, 3), number, np.float32) for name, number in more.items()}
    return Shard(fingerprint, digests, arrays, seconds=3.0).to_bytes()


def only_shard(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_a_store_that_nobody_wrote_to_is_empty_and_makes_no_folder(tmp_path: Path) -> None:
    store = RetrainStore(tmp_path / "store", TASK)
    assert len(store) == 0
    assert not store.has("a", ["outputs/loss"])
    assert not store.folder.exists()


def test_what_was_added_is_read_back_in_the_order_asked_for_here_and_in_a_new_store(tmp_path: Path) -> None:
    first = RetrainStore(tmp_path, TASK)
    assert first.add(shard("a", "b", "c")) == 3
    assert first.add(shard("d", value=10.0)) == 1
    for store in (first, RetrainStore(tmp_path, TASK)):
        assert len(store) == 4
        read = store.read("outputs/loss", ["d", "b", "a", "b"])
        assert read[:, 0].tolist() == [10.0, 2.0, 1.0, 2.0]
        with pytest.raises(KeyError):
            store.read("outputs/loss", ["e"])


def test_a_retrain_is_there_only_with_all_arrays_asked_for(tmp_path: Path) -> None:
    store = RetrainStore(tmp_path, TASK)
    store.add(shard("a"))
    store.add(shard("b", **{"parameters/3/w": 5.0}))
    assert store.has("a", ["outputs/loss"])
    assert not store.has("a", ["outputs/loss", "parameters/3/w"])
    assert store.has("b", ["outputs/loss", "parameters/3/w"])
    assert store.read("parameters/3/w", ["b"]).shape == (1, 2, 3)


def test_the_seconds_of_a_shard_are_shared_by_its_rows(tmp_path: Path) -> None:
    RetrainStore(tmp_path, TASK).add(shard("a", "b", "c"))
    store = RetrainStore(tmp_path, TASK)
    assert store.seconds(["a"]) == 1.0
    assert store.seconds(["a", "b", "c"]) == 3.0


def test_the_same_shard_twice_is_one_file(tmp_path: Path) -> None:
    store, content = RetrainStore(tmp_path, TASK), shard("a")
    store.add(content)
    store.add(content)
    assert only_shard(tmp_path).stem == digest_bytes(content)


def test_a_truncated_shard_at_any_length_is_set_aside(tmp_path: Path) -> None:
    content = shard("a", "b")
    for length in (0, 1, 8, 100, len(content) - 1):
        folder = tmp_path / str(length)
        RetrainStore(folder, TASK).add(content)
        path = only_shard(folder)
        path.write_bytes(content[:length])
        store = RetrainStore(folder, TASK)
        assert len(store) == 0
        assert store.damaged == [path.with_suffix(".damaged")]
        assert store.damaged[0].read_bytes() == content[:length]
        store.add(content)
        assert RetrainStore(folder, TASK).read("outputs/loss", ["b"])[0, 0] == 2.0


def test_a_flipped_bit_anywhere_sets_a_shard_aside_and_leaves_the_others(tmp_path: Path) -> None:
    content = shard("a", "b")
    for position in (0, 9, len(content) // 2, len(content) - 1):
        folder = tmp_path / str(position)
        before = RetrainStore(folder, TASK)
        before.add(content)
        path = only_shard(folder)
        before.add(shard("c"))
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(altered)
        store = RetrainStore(folder, TASK)
        assert (len(store), len(store.damaged)) == (1, 1)
        assert store.has("c", ["outputs/loss"])


def test_a_leftover_of_a_killed_writer_is_not_read(tmp_path: Path) -> None:
    RetrainStore(tmp_path, TASK).add(shard("a"))
    (tmp_path / ".writing-abc123").write_bytes(shard("b")[:50])
    store = RetrainStore(tmp_path, TASK)
    assert (len(store), store.damaged) == (1, [])


def test_a_shard_of_another_task_is_refused_with_the_way_out(tmp_path: Path) -> None:
    RetrainStore(tmp_path, TASK).add(shard("a"))
    with pytest.raises(FormatError, match=r"abababababab, this store is .* cdcdcdcdcdcd; name another folder"):
        RetrainStore(tmp_path, "cd" * 32)


def test_a_foreign_file_under_a_right_name_is_refused_with_the_way_out(tmp_path: Path) -> None:
    content = b"no tensors at all"
    (tmp_path / f"{digest_bytes(content)}.safetensors").write_bytes(content)
    with pytest.raises(FormatError, match=r"not a shard of retrains .* remove it"):
        RetrainStore(tmp_path, TASK)
