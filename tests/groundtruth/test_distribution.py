"""Bundles on their way: listed, pulled, made ready to upload, split; by the registry and by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from faulty_server import serving
from tiny import Published

from attriboard.base.errors import DataError, FormatError, InputError
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.listing import BundleRegistry, cached_path, published_folder, write_listing
from attriboard.groundtruth.split import read_held_out, split_ground_truth
from attriboard.groundtruth.verify import check_plan, choose_masks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATTRIBOARD_OFFLINE", "0")  # the command sets it
    return tmp_path / "cache"


@pytest.fixture
def absent(published: Published, tmp_path: Path) -> BundleRegistry:
    """A list whose ground truth is not in its folder."""
    folder = tmp_path / "list"
    folder.mkdir()
    (folder / published.truth.name).write_bytes(published.truth.read_bytes())
    BundleRegistry(folder).register(published.task.card, "groundtruth")
    (folder / published.truth.name).unlink()
    return BundleRegistry(folder)


def with_urls(registry: BundleRegistry, *urls: str) -> BundleRegistry:
    write_listing(registry.folder, [e.model_copy(update={"urls": urls}) for e in registry.entries])
    return BundleRegistry(registry.folder)


def test_a_bundle_that_is_not_here_is_fetched_once_from_its_urls(absent: BundleRegistry, published: Published) -> None:
    card = published.task.card
    with pytest.raises(DataError, match=r"listed but not here; fetch it: attriboard groundtruth pull tiny"):
        absent.obtain(card, "groundtruth")
    with serving(published.truth.read_bytes()) as server:
        registry = with_urls(absent, f"{server.url}/404/x", f"{server.url}/good/x")
        path = registry.obtain(card, "groundtruth")
        assert path == cached_path(registry.entries[0])
        assert registry.obtain(card, "groundtruth") == registry.locate(card, "groundtruth") == path
        assert len(server.asked) == 2
    path.write_bytes(b"damaged")
    with pytest.raises(FormatError, match="torn or altered"):
        registry.obtain(card, "groundtruth")


def test_a_mirror_comes_first_and_needs_no_url_in_the_list(
    absent: BundleRegistry, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBOARD_MIRROR", f"{published.truth.parent}/nothing {published.truth.parent}")
    path = absent.obtain(published.task.card, "groundtruth")
    assert path.read_bytes() == published.truth.read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"urls": ["ftp://host/x"]},
        {"urls": ["javascript:alert(1)"]},
        {"file": ".hidden.safetensors"},
        {"file": "a/../../b.safetensors"},
        {"bytes": 0},
        {"bytes": "12"},
        {"bytes": 10**30},
        {"version": True},
        {"task": "Tiny"},
        {"kind": "weights"},
        {"sha256": "0" * 63},
    ],
)
def test_a_list_with_an_entry_that_breaks_a_rule_is_refused(absent: BundleRegistry, change: dict[str, object]) -> None:
    path = absent.folder / "registry.json"
    listing = json.loads(path.read_text())
    listing["bundles"][0] |= change
    path.write_text(json.dumps(listing))
    with pytest.raises(FormatError, match="not a registry of bundles"):
        BundleRegistry(absent.folder)


def test_a_list_with_a_bundle_twice_is_refused(absent: BundleRegistry) -> None:
    path = absent.folder / "registry.json"
    listing = json.loads(path.read_text())
    listing["bundles"] *= 2
    path.write_text(json.dumps(listing))
    with pytest.raises(FormatError, match="two bundles have the same task, version and kind"):
        BundleRegistry(absent.folder)


# Held-out shards


def test_a_split_keeps_every_row_once_and_both_parts_are_the_cards(published: Published, tmp_path: Path) -> None:
    truth = read_ground_truth(published.truth)
    shards = split_ground_truth(truth, 3, tmp_path / "split")
    registry = BundleRegistry(tmp_path / "split" / "public")
    public = read_ground_truth(registry.locate(published.task.card, "groundtruth"))
    shard = read_held_out(shards.held_out, registry, public)
    assert (public.card.n_masks, shard.card.n_masks, shard.card.first_mask) == (5, 3, 5)
    np.testing.assert_array_equal(np.concatenate([public.masks, shard.masks]), truth.masks)
    for name, array in truth.outputs.items():
        np.testing.assert_array_equal(np.concatenate([public.outputs[name], shard.outputs[name]]), array)
    for part in (public, shard):
        check_plan(part, published.task)
    assert shards.commitment.kind == "heldout"
    assert registry.place(shards.commitment) is None, "the shard is not among what is published"
    assert len(shard.card.nonce) == 32
    again = split_ground_truth(truth, 3, tmp_path / "again")
    assert again.commitment.sha256 != shards.commitment.sha256, "its digest confirms no guess"
    with pytest.raises(InputError, match="holds a split already"):
        split_ground_truth(truth, 3, tmp_path / "split")


def test_scores_are_graded_on_the_shard_as_on_a_ground_truth(published: Published, tmp_path: Path) -> None:
    truth = read_ground_truth(published.truth)
    shards = split_ground_truth(truth, 4, tmp_path / "split")
    public, shard = read_ground_truth(shards.public), read_ground_truth(shards.held_out)
    scores = np.random.default_rng(0).normal(size=(13, 45)).astype(np.float32)
    record = Grader(public).record_of_scores(published.task, scores, "mine", shard=shard)
    whole = Grader(shard)
    assert record.held_out.mean == whole.mean_lds(whole.predict(scores), whole.split.scoring)
    assert (record.held_out.sha256, record.held_out.n_masks) == (shards.commitment.sha256, 4)
    assert record.ground_truth.sha256 == public.sha256
    assert "held_out" not in Grader(public).record_of_scores(published.task, scores, "mine").to_json()


def test_a_shard_that_was_not_committed_to_is_refused(published: Published, tmp_path: Path) -> None:
    truth = read_ground_truth(published.truth)
    shards, other = (split_ground_truth(truth, 3, tmp_path / name) for name in ("one", "two"))
    registry, public = BundleRegistry(shards.public.parent), read_ground_truth(shards.public)
    for path in (other.held_out, shards.public, tmp_path / "missing"):
        with pytest.raises(FormatError, match="this is not the held-out shard"):
            read_held_out(path, registry, public)
    with pytest.raises(FormatError, match="has no commitment"):
        read_held_out(shards.held_out, BundleRegistry(tmp_path), public)


@pytest.mark.parametrize("count", [1, 2, 6, 8, 100])
def test_neither_side_of_a_split_is_too_small(published: Published, tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match=f"--held-out {count}: of 8 masks, at least 3 must be on either side"):
        split_ground_truth(read_ground_truth(published.truth), count, tmp_path)


def test_deep_verification_takes_every_repeat_of_some_masks(published: Published) -> None:
    rows = choose_masks(read_ground_truth(published.truth), 2, 0)
    assert len(rows) == len(set(rows)) == 6
    assert len({mask for mask, _ in rows}) == 2
    assert len(choose_masks(read_ground_truth(published.truth), 100, 0)) == 24


# The command line


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> object:
    from attriboard.cli.app import app

    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        app([*map(str, arguments), "--json"], prog_name="attriboard")
    out = json.loads(capsys.readouterr().out)
    assert end.value.code == (2 if "error" in out else 0), out
    return out


def test_what_is_ready_to_push_can_be_pulled_from_where_it_was_put(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    upload, copy = tmp_path / "upload", tmp_path / "copy"
    ready = run(capsys, "groundtruth", "push-ready", "digits_mlp", "--out", upload, "--url", "https://host.invalid/b/")
    assert [e["urls"][0] for e in ready["bundles"]] == [
        f"https://host.invalid/b/digits_mlp-{kind}.safetensors" for kind in ("checkpoints", "groundtruth")
    ]
    sums = (upload / "SHA256SUMS").read_text().splitlines()
    assert sums == [f"{e['sha256']}  {e['file']}" for e in ready["bundles"]]
    (tmp_path / "only_list").mkdir()
    (tmp_path / "only_list" / "registry.json").write_bytes((upload / "registry.json").read_bytes())
    pulled = run(
        capsys, "groundtruth", "pull", "digits_mlp", "--groundtruth", tmp_path / "only_list", "--from", upload,
        "--offline", "--out", copy,
    )  # fmt: skip
    assert sorted(Path(d["path"]).name for d in pulled) == sorted(e["file"] for e in ready["bundles"])
    assert (copy / "registry.json").read_bytes() == (upload / "registry.json").read_bytes()
    for entry in ready["bundles"]:
        assert (copy / entry["file"]).read_bytes() == (published_folder() / entry["file"]).read_bytes()
    listed = run(capsys, "groundtruth", "list", "--groundtruth", tmp_path / "only_list")
    assert {d["where"] for d in listed} == {"missing"}
    assert not cache.exists()
    failed = run(
        capsys, "groundtruth", "pull", "digits_mlp", "--groundtruth", tmp_path / "only_list", "--offline",
    )  # fmt: skip
    assert "not tried, ATTRIBOARD_OFFLINE is set" in failed["error"]
