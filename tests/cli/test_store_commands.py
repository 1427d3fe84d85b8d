"""`attriboard store`: documents, text, exit codes."""

from pathlib import Path

import pytest
from stores import fill, shard

from attriboard.evaluation.catalog import load_task

FINGERPRINT = load_task("digits_mlp").card.fingerprint


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The default store of digits_mlp in an empty cache."""
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path))
    return tmp_path / "retrains" / f"digits_mlp-{FINGERPRINT[:12]}"


def add(folder: Path, *contents: bytes) -> None:
    from attriboard.retraining.store import RetrainStore

    for content in contents:
        RetrainStore(folder, FINGERPRINT).add(content)


def test_an_empty_store_says_so(attriboard, folder):
    assert attriboard("store", "info", "--json").document == {"root": str(folder.parent), "stores": []}
    assert "nothing is stored yet" in attriboard("store", "info").out
    assert "nothing is stored yet" in attriboard("store", "pack", "digits_mlp").out
    assert attriboard("store", "gc").out == "nothing to remove\n"


def test_info_pack_and_merge(attriboard, folder, tmp_path):
    add(folder, shard("a", fingerprint=FINGERPRINT), shard("b", fingerprint=FINGERPRINT))
    (found,) = attriboard("store", "info", "--json").document["stores"]
    assert (found["fingerprint"], found["retrains"], found["shards"], found["seconds"]) == (FINGERPRINT, 2, 2, 4.0)
    packed = attriboard("store", "pack", "digits_mlp", "--json").document
    assert (packed["shards_before"], packed["shards_after"], packed["retrains"]) == (2, 1, 2)
    assert "2 │" in attriboard("store", "info", "digits_mlp").out
    other = tmp_path / "other"
    add(other, shard("b", "c", fingerprint=FINGERPRINT))
    merged = attriboard("store", "merge", "digits_mlp", other, "--json").document
    add(tmp_path / "third", shard("d", fingerprint=FINGERPRINT))
    assert (merged["added"], merged["known"], merged["differing"]) == (1, 1, 0)
    assert "1 retrain added" in attriboard("store", "merge", "digits_mlp", tmp_path / "third").out
    assert "0 retrains added, 2 were there with the same bits" in attriboard("store", "merge", "digits_mlp", other).out


def test_damage_is_exit_code_1_and_goes_with_gc(attriboard, folder):
    add(folder, shard("a", fingerprint=FINGERPRINT))
    bad = folder / f"{'0' * 64}.safetensors"
    bad.write_bytes(b"torn")
    done = attriboard("store", "info")
    assert (done.code, f"damaged: {bad}" in done.out) == (1, True)
    assert f"would remove {bad}: damaged" in attriboard("store", "gc", "digits_mlp", "--dry-run").out
    assert bad.exists()
    assert attriboard("store", "gc", "--json").document == {"removed": {str(bad): "damaged"}, "dry_run": False}
    assert attriboard("store", "info").code == 0


def test_orphans_are_stores_of_no_registered_task(attriboard, folder):
    add(folder, shard("a", fingerprint=FINGERPRINT))
    orphan = folder.with_name("gone-abababababab")
    fill(orphan, shard("a"))
    assert f"would remove {orphan}: no registered task" in attriboard("store", "gc", "--orphans", "--dry-run").out
    assert attriboard("store", "gc", "--orphans").code == 0
    assert not orphan.exists()
    assert folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pack", "digits_mlpp"), "did you mean digits_mlp"),
        (("info", "--store", "nowhere"), "--store nowhere: no such folder"),
        (("merge", "digits_mlp", "nowhere"), "nowhere: no such store or shard"),
        (("gc", "digits_mlp", "--orphans"), "--orphans: looks at every store"),
    ],
)
def test_bad_input(attriboard, folder, arguments, message):
    done = attriboard("store", *arguments, "--json")
    assert done.code == 2
    assert message in done.document["error"]


@pytest.mark.parametrize("name", ["a[/b]", "st[old]", "st:smile:"])
def test_a_folder_whose_name_looks_like_markup_is_named_as_it_is(attriboard, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    add(Path(name), shard("a", fingerprint=FINGERPRINT))
    done = attriboard("store", "info", "--store", name)
    assert (done.code, done.out.splitlines()[0].strip()) == (0, f"Stores in {name}")
