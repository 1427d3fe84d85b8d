"""Bundles on their way: listed, pulled, made ready to upload; by the registry and by the command line."""

import json
from pathlib import Path

import pytest
from commands import printed
from faulty_server import serving
from tiny import Published

from attriboard.base.digests import digest_file
from attriboard.base.errors import DataError, FormatError
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.listing import BundleRegistry, cached_path, published_folder, write_listing
from attriboard.groundtruth.verify import choose_masks


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
    with pytest.raises(FormatError, match="two bundles have the same task, version, kind and question"):
        BundleRegistry(absent.folder)


def test_deep_verification_takes_every_repeat_of_some_masks(published: Published) -> None:
    rows = choose_masks(read_ground_truth(published.truth), 2, 0)
    assert len(rows) == len(set(rows)) == 6
    assert len({mask for mask, _ in rows}) == 2
    assert len(choose_masks(read_ground_truth(published.truth), 100, 0)) == 24


# The command line


def test_what_would_be_pushed_into_itself_or_is_nothing_is_refused(
    absent: BundleRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("groundtruth", "push-ready", "--groundtruth", absent.folder, "--out", absent.folder / ".." / "list")
    assert "is the folder that the bundles come from; name another one" in printed(capsys, *words)["error"]
    (tmp_path / "empty").mkdir()
    words = ("groundtruth", "push-ready", "--groundtruth", tmp_path / "empty", "--out", tmp_path / "upload")
    assert printed(capsys, *words)["error"] == f"{tmp_path / 'empty'}: lists no bundles, so there is nothing to upload"
    assert not (tmp_path / "upload").exists()


def test_a_task_that_only_the_list_knows_is_pulled_by_its_name(
    absent: BundleRegistry, published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("groundtruth", "pull", "tiny", "--groundtruth", absent.folder, "--from", published.truth.parent)
    (document,) = printed(capsys, *words, "--out", tmp_path / "copy")
    assert Path(document["path"]).read_bytes() == published.truth.read_bytes()
    unknown = printed(capsys, "groundtruth", "pull", "tinny", "--groundtruth", absent.folder)
    assert "no task named 'tinny'" in unknown["error"]


def test_what_is_ready_to_push_can_be_pulled_from_where_it_was_put(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    upload, copy = tmp_path / "upload", tmp_path / "copy"
    ready = printed(
        capsys, "groundtruth", "push-ready", "digits_mlp", "--out", upload, "--url", "https://host.invalid/b/"
    )
    entries = [entry for entry in BundleRegistry(published_folder()).entries if entry.task == "digits_mlp"]
    assert {"", "1pct-same"} < {entry.question for entry in entries}
    assert [e["urls"][0] for e in ready["bundles"]] == [f"https://host.invalid/b/{entry.file}" for entry in entries]
    assert [digest_file(upload / entry.file) for entry in entries] == [entry.sha256 for entry in entries]
    sums = (upload / "SHA256SUMS").read_text().splitlines()
    assert sums == [f"{e['sha256']}  {e['file']}" for e in ready["bundles"]]
    (tmp_path / "only_list").mkdir()
    (tmp_path / "only_list" / "registry.json").write_bytes((upload / "registry.json").read_bytes())
    pulled = printed(
        capsys, "groundtruth", "pull", "digits_mlp", "--question", "all", "--groundtruth", tmp_path / "only_list",
        "--from", upload, "--offline", "--out", copy,
    )  # fmt: skip
    assert sorted(Path(d["path"]).name for d in pulled) == sorted(e["file"] for e in ready["bundles"])
    assert (copy / "registry.json").read_bytes() == (upload / "registry.json").read_bytes()
    for entry in ready["bundles"]:
        assert (copy / entry["file"]).read_bytes() == (published_folder() / entry["file"]).read_bytes()
    listed = printed(capsys, "groundtruth", "list", "--groundtruth", tmp_path / "only_list")
    assert {d["where"] for d in listed} == {"missing"}
    assert not cache.exists()
    failed = printed(
        capsys, "groundtruth", "pull", "digits_mlp", "--groundtruth", tmp_path / "only_list", "--offline",
    )  # fmt: skip
    assert "not tried, ATTRIBOARD_OFFLINE is set" in failed["error"]
