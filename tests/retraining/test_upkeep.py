"""Upkeep of stores: nothing is lost, nothing foreign gets in, and only what nobody reads goes."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import TASK, fill, shard

from attriboard.base.errors import FormatError, InputError
from attriboard.retraining.store import RetrainStore, Shard, read_header
from attriboard.retraining.upkeep import collect_garbage, inspect_store, list_stores, merge_store, pack_store


def everything(folder: Path) -> dict[tuple[str, str], bytes]:
    """(array, digest) → bits, as a reader of the store sees them."""
    store = RetrainStore(folder, TASK)
    return {
        (name, digest): store.read(name, [digest]).tobytes()
        for name, places in store._places.items()
        for digest in places
    }


@settings(max_examples=40, deadline=None)
@given(
    contents=st.lists(
        st.tuples(
            st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=5, unique=True),
            st.sampled_from([(), (1,), (2,), (1, 2)]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_packing_keeps_every_array_of_every_retrain_and_its_seconds(tmp_path_factory, contents) -> None:
    folder = tmp_path_factory.mktemp("store")
    fill(folder, *(shard(*digests, epochs=epochs) for digests, epochs in contents))
    before, info = everything(folder), inspect_store(folder)
    n_before, n_after = pack_store(folder)
    assert everything(folder) == before
    assert (n_before, n_after) == (info.n_shards, inspect_store(folder).n_shards)
    assert n_after <= min(n_before, 4)
    assert inspect_store(folder).seconds == pytest.approx(info.seconds)
    assert pack_store(folder) == (n_after, n_after)
    assert collect_garbage(folder) == {}


def test_a_packed_row_has_the_seconds_of_its_own_stack(tmp_path: Path) -> None:
    fill(tmp_path, Shard(TASK, ("a",), {"outputs/loss": np.zeros((1, 2), np.float32)}, 7.0).to_bytes(), shard("b", "c"))
    pack_store(tmp_path)
    store = RetrainStore(tmp_path, TASK)
    assert store.seconds(["b"]) == 2.0
    assert store.seconds(["a", "b", "c"]) == 11.0


def test_a_reader_that_was_open_before_packing_still_reads(tmp_path: Path) -> None:
    store = fill(tmp_path, shard("a"), shard("b"))
    expected = store.read("outputs/loss", ["b", "a"])
    pack_store(tmp_path)
    assert store.read("outputs/loss", ["b", "a"]).tolist() == expected.tolist()


def test_killed_before_the_old_shards_went_a_pack_leaves_a_whole_store(tmp_path: Path, monkeypatch) -> None:
    fill(tmp_path, shard("a"), shard("b"))
    before = everything(tmp_path)

    def kill(path: Path, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", kill)
        with pytest.raises(KeyboardInterrupt):
            pack_store(tmp_path)
    assert everything(tmp_path) == before
    assert set(collect_garbage(tmp_path).values()) == {"all of its retrains lie in other shards"}
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert everything(tmp_path) == before


def test_merging_adds_what_is_new_counts_what_is_known_and_keeps_ours_where_bits_differ(tmp_path: Path) -> None:
    fill(tmp_path / "ours", shard("a", "b"), shard("x", offset=1.0))
    fill(tmp_path / "theirs", shard("b", "c"), shard("d", epochs=(1,)), shard("x"))
    ours = everything(tmp_path / "ours")
    merged = merge_store(tmp_path / "ours", tmp_path / "theirs", TASK)
    assert (merged.n_added, merged.n_known, merged.n_differing, merged.damaged) == (2, 1, 1, ())
    after = everything(tmp_path / "ours")
    assert {key: after[key] for key in ours} == ours
    assert {digest for _, digest in after} == set("abcdx")
    again = merge_store(tmp_path / "ours", tmp_path / "theirs", TASK)
    assert (again.n_added, again.n_known, again.n_differing) == (0, 3, 1)


def test_merging_takes_parameters_that_ours_lacks(tmp_path: Path) -> None:
    fill(tmp_path / "ours", shard("a"))
    fill(tmp_path / "theirs", shard("a", epochs=(3,)))
    assert merge_store(tmp_path / "ours", tmp_path / "theirs", TASK).n_added == 1
    assert RetrainStore(tmp_path / "ours", TASK).has("a", ["outputs/loss", "parameters/3/w"])


def test_one_shard_file_is_a_source_too(tmp_path: Path) -> None:
    fill(tmp_path / "theirs", shard("a", "b"))
    (path,) = (tmp_path / "theirs").iterdir()
    assert merge_store(tmp_path / "ours", path, TASK).n_added == 2


def test_a_damaged_shard_is_left_out_of_a_merge_and_stays_where_it_is(tmp_path: Path) -> None:
    fill(tmp_path / "theirs", shard("a"), shard("b"))
    bad = sorted((tmp_path / "theirs").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:-1] + b"?")
    merged = merge_store(tmp_path / "ours", tmp_path / "theirs", TASK)
    assert (merged.n_added, merged.damaged) == (1, (bad,))
    assert bad.exists()


def test_retrains_of_another_task_with_nan_or_from_nowhere_are_refused(tmp_path: Path) -> None:
    RetrainStore(tmp_path / "other", "cd" * 32).add(shard("a", fingerprint="cd" * 32))
    with pytest.raises(FormatError, match="retrains of task cdcdcdcdcdcd, expected abababababab"):
        merge_store(tmp_path / "ours", tmp_path / "other", TASK)
    fill(tmp_path / "nan", shard("a", offset=float("nan")))
    with pytest.raises(FormatError, match="NaN or infinity"):
        merge_store(tmp_path / "ours", tmp_path / "nan", TASK)
    with pytest.raises(InputError, match="no such store or shard"):
        merge_store(tmp_path / "ours", tmp_path / "nowhere", TASK)
    fill(tmp_path / "ours", shard("a"))
    with pytest.raises(InputError, match="is the store itself"):
        merge_store(tmp_path / "ours", tmp_path / "ours", TASK)
    assert len(RetrainStore(tmp_path / "ours", TASK)) == 1


def test_garbage_is_what_is_damaged_old_leftovers_and_what_others_contain(tmp_path: Path) -> None:
    fill(tmp_path, shard("a", "b", "c"), shard("b"), shard("d"))
    old, fresh, aside = (tmp_path / name for name in (".writing-old", ".writing-fresh", "0.damaged"))
    for path in (old, fresh, aside):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    before = everything(tmp_path)
    would = collect_garbage(tmp_path, dry_run=True)
    assert old.exists()
    assert would == collect_garbage(tmp_path)
    assert sorted(would.values()) == [
        "all of its retrains lie in other shards", "damaged", "left by a writer that was killed",
    ]  # fmt: skip
    assert fresh.exists()
    assert everything(tmp_path) == before
    assert collect_garbage(tmp_path) == {}


def test_inspecting_counts_and_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "s", shard("a", "b"), shard("b", epochs=(1,)))
    bad = tmp_path / "s" / f"{'0' * 64}.safetensors"
    bad.write_bytes(b"torn")
    info = inspect_store(tmp_path / "s")
    assert (info.n_retrains, info.n_with_parameters, info.n_shards, info.damaged) == (2, 1, 2, (bad,))
    assert bad.exists()
    assert info.n_bytes == sum(path.stat().st_size for path in (tmp_path / "s").iterdir())
    assert list_stores(tmp_path) == [tmp_path / "s"]
    assert inspect_store(tmp_path / "nothing").fingerprint is None


def test_a_folder_with_two_tasks_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, shard("a"))
    RetrainStore(tmp_path / "other", "cd" * 32).add(shard("a", fingerprint="cd" * 32))
    for path in (tmp_path / "other").iterdir():
        shutil.copy(path, tmp_path)
    with pytest.raises(FormatError, match="several tasks: abababababab, cdcdcdcdcdcd"):
        inspect_store(tmp_path)


def test_a_header_that_lies_is_no_shard(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(Shard(TASK, (), {"outputs/loss": np.zeros((0, 2), np.float32)}, 1.0).to_bytes())
    with pytest.raises(FormatError, match="not a shard of retrains"):
        read_header(path)
