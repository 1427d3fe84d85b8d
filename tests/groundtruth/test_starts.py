"""Start bundles: written, checked, listed, fetched, and found by every process that retrains."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import printed
from faulty_server import serving
from language_tasks import FACTS, TinyLanguageTask, start_tensors, task_with_start, tiny_card
from tiny import tiny_card as plain_card

from attriboard.base.digests import digest_file
from attriboard.base.errors import DataError, FormatError, InputError
from attriboard.checking.files import check_file, kind_of, wrong_kind
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth import listing
from attriboard.groundtruth.listing import BundleRegistry, cached_path, pinned_start
from attriboard.groundtruth.opening import TaskBundles, open_bundles
from attriboard.groundtruth.starts import read_start, write_start
from attriboard.tasks.models.gpt2 import pretrained_gpt2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATTRIBOARD_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setenv("ATTRIBOARD_OFFLINE", "0")  # the command sets it
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bundles").mkdir()
    return tmp_path / "bundles"


@pytest.fixture
def listed(folder: Path) -> tuple[TinyLanguageTask, Path]:
    """A task, and its start in a folder that lists it."""
    task, path = task_with_start(folder)
    BundleRegistry(folder).register(task.card, "start")
    return task, path


def bundles(task: TinyLanguageTask, folder: Path) -> TaskBundles:
    return open_bundles(task, folder)


def urls(folder: Path, *places: str) -> None:
    path = folder / "registry.json"
    document = json.loads(path.read_text())
    for entry in document["bundles"]:
        entry["urls"] = list(places)
    path.write_text(json.dumps(document))


# The file


def test_what_is_written_is_read_and_loads_as_hugging_faces_own(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tensors = start_tensors() | {"exact": torch.randn(3, 5), "nothing": torch.zeros(0), "one": torch.tensor(1.5)}
    path = tmp_path / "x-start.safetensors"
    card = write_start(path, tensors, FACTS)
    assert read_start(path) == card
    assert card.parameters == sum(value.numel() for value in tensors.values())
    assert card.stages[0].curve[-1].held_back == 4.5
    loaded = load_file(path)
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    assert all(loaded[name].dtype == value.dtype for name, value in tensors.items())


def test_the_same_weights_and_facts_are_the_same_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    card = write_start(one, start_tensors(), FACTS)
    same = card.model_dump(mode="json", include={"created", "provenance"})
    write_start(other, dict(reversed(start_tensors().items())), FACTS | same)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": 0}, "tokens"),
        ({"extra": 1}, "extra"),
        ({"stages": []}, "stages"),
        ({"size": {"width": "32"}}, "size.width"),
        ({"held_back": {"blocks": 1, "loss": float("nan")}}, "facts of a start"),
        ({"text": {"file": "x", "sha256": "1"}}, "text.sha256"),
        ({"stages": [{**FACTS["stages"][0], "curve": FACTS["stages"][0]["curve"][::-1]}]}, "must ascend"),
        ({"parameters": 3}, "follow from the tensors"),
    ],
)
def test_facts_that_say_nothing_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_start(tmp_path / "x.safetensors", start_tensors(), FACTS | change)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("bad", [torch.zeros(2).double(), torch.tensor([1.0, torch.inf]), torch.tensor([1, 2])])
def test_weights_of_other_kinds_are_refused(tmp_path: Path, bad: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"tensor w: is .*; must be finite numbers in bfloat16 or float32"):
        write_start(tmp_path / "x.safetensors", {"w": bad}, FACTS)


def test_a_published_start_is_never_replaced(listed: tuple[TinyLanguageTask, Path]) -> None:
    _, path = listed
    before = path.read_bytes()
    write_start(path, start_tensors(), FACTS | {"tokens": 1})  # the same weights
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="published files are never replaced"):
        write_start(path, start_tensors(6), FACTS)
    assert path.read_bytes() == before


def altered(path: Path, **changes: Any) -> None:
    """The same file with other fields in its header's card, or in its metadata."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = header["__metadata__"]
    metadata["format"] = changes.pop("outer", metadata["format"])
    metadata["card"] = json.dumps(json.loads(metadata["card"]) | changes)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outer": "tf"}, "format: pt"),
        ({"parameters": 7}, "parameters, its card says 7"),
        ({"content_sha256": "1" * 64}, "the file is damaged"),
        ({"created": "yesterday"}, "created"),
        ({"format": "attriboard-start/2"}, "expected 'attriboard-start/1'"),
    ],
)
def test_an_altered_card_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "x-start.safetensors"
    write_start(path, start_tensors(), FACTS)
    altered(path, **changes)
    with pytest.raises(FormatError, match=message):
        read_start(path)


def test_weights_that_are_no_numbers_are_refused_whatever_the_digest_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x-start.safetensors"
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda self: torch.ones(()).bool())
    for value in (torch.nan, torch.inf, -torch.inf):
        for dtype in (torch.bfloat16, torch.float32):
            write_start(path, {"w": torch.tensor([1.0, value]).to(dtype)}, FACTS)
            with pytest.raises(FormatError, match="w has NaN or infinity"):
                read_start(path)
    largest = torch.tensor([torch.finfo(torch.bfloat16).max, 0.0, -1e-40])
    for dtype in (torch.bfloat16, torch.float32):
        write_start(path, {"w": largest.to(dtype)}, FACTS)
        assert read_start(path).parameters == 3


def test_it_is_checked_as_a_bundle_of_its_own_kind(listed: tuple[TinyLanguageTask, Path], tmp_path: Path) -> None:
    _, path = listed
    assert kind_of(path) == "start bundle"
    report = check_file(path)
    assert (report.ok, report.kind) == (True, "start bundle")
    assert wrong_kind(path, "bundle") is None
    refused = wrong_kind(path, "scores")
    assert refused is not None
    assert "is a start bundle, not scores" in refused.errors[0].message
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    (tmp_path / "torn.safetensors").write_bytes(content)
    assert "the file is damaged" in check_file(tmp_path / "torn.safetensors").errors[0].message


def test_readers_of_numpys_types_still_refuse_its_tensors(listed: tuple[TinyLanguageTask, Path]) -> None:
    from attriboard.base.scores import read_matrix
    from attriboard.groundtruth.bundle import read_ground_truth

    for read in (read_matrix, read_ground_truth):
        with pytest.raises(FormatError, match="'BF16', which is none of BOOL"):
            read(listed[1])


def test_the_golden_start_of_the_first_format_keeps_loading() -> None:
    card = read_start(Path(__file__).parents[1] / "golden" / "start-v1.safetensors")
    assert (card.architecture, card.parameters, card.tokens) == ("gpt2", 21, 4096)
    assert card.content_sha256 == "897f554f5076347e848c3f50362ea928360bd6d09792776dcc75e1f00606974b"
    assert [point.step for point in card.stages[0].curve] == [1, 2]


# The list


def test_a_start_is_listed_only_where_the_card_pins_it(folder: Path) -> None:
    task, path = task_with_start(folder)
    registry = BundleRegistry(folder)
    options = dict(task.card.model.options)
    others = {
        r"pins tiny_gpt2-start\.safetensors, 1111": options | {"sha256": "1" * 64},
        "pins other-start": options | {"pretrained": "other-start.safetensors"},
        "pins no file of weights": options | {"pretrained": "./folder"},
    }
    for message, changed in others.items():
        with pytest.raises(InputError, match=message):
            registry.register(tiny_card(model={"options": changed}), "start")
    (folder / "tiny-start.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match=r"must have pretrained: tiny-start\.safetensors and sha256"):
        registry.register(plain_card(), "start")
    assert registry.entries == ()
    entry = registry.register(task.card, "start")
    assert (entry.kind, entry.file, entry.sha256) == ("start", path.name, digest_file(path))
    assert BundleRegistry(folder).locate(task.card, "start") == path


def test_tasks_that_pin_the_same_weights_share_their_entry(listed: tuple[TinyLanguageTask, Path]) -> None:
    task, path = listed
    other = tiny_card(model={"options": task.card.model.options}, name="tiny_other", recipe={"learning_rate": 1e-3})
    registry = BundleRegistry(path.parent)
    assert other.fingerprint != task.card.fingerprint
    assert registry.find(other, "start") == registry.find(task.card, "start") == registry.entries[0]
    assert registry.of(other) == registry.of(task.card) == list(registry.entries)
    assert registry.find(tiny_card(), "start") is None
    assert registry.of(tiny_card()) == []


@pytest.mark.parametrize("name", ["", "owner/name", "./x.safetensors", "a/../b.safetensors", ".x.safetensors"])
def test_other_places_of_weights_are_no_published_start(name: str) -> None:
    card = tiny_card(model={"options": FACTS["size"] | {"pretrained": name, "sha256": "1" * 64}})
    assert pinned_start(card) is None


def test_messages_name_what_helps(listed: tuple[TinyLanguageTask, Path], tmp_path: Path) -> None:
    task, path = listed
    with pytest.raises(DataError, match=r"lists no start for tiny_gpt2 \(tiny_gpt2-start\.safetensors, SHA-256 "):
        BundleRegistry(tmp_path).locate(task.card, "start")
    path.unlink()
    with pytest.raises(DataError, match=r"groundtruth pull tiny_gpt2 --kind start, or .*put it there: .*pretrained/"):
        BundleRegistry(path.parent).locate(task.card, "start")
    with pytest.raises(DataError, match=r"attriboard groundtruth pull tiny_gpt2, or put the file there: .*pretrained/"):
        task.pretrained()


# Where retraining looks


def test_it_is_copied_from_the_folder_of_bundles_once(listed: tuple[TinyLanguageTask, Path]) -> None:
    task, path = listed
    found = bundles(task, path.parent).start()
    assert found == cached_path(BundleRegistry(path.parent).entries[0])
    assert found.read_bytes() == path.read_bytes()
    assert found.stat().st_mode & 0o777 == 0o644
    path.write_bytes(b"not looked at again")
    assert bundles(task, path.parent).start() == found
    assert {f"gpt2.{name}" for name in start_tensors()} == dict(pretrained_gpt2(task.card.model.options) or {}).keys()


def test_it_is_fetched_from_its_urls_and_from_mirrors(
    listed: tuple[TinyLanguageTask, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, path = listed
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(DataError, match="listed but not here"):
        bundles(task, path.parent).start()
    with serving(content) as server:
        urls(path.parent, f"{server.url}/good/x")
        monkeypatch.setenv("ATTRIBOARD_OFFLINE", "1")
        with pytest.raises(DataError, match="not tried, ATTRIBOARD_OFFLINE is set"):
            bundles(task, path.parent).start()
        assert not server.asked
        monkeypatch.setenv("ATTRIBOARD_OFFLINE", "0")
        found = bundles(task, path.parent).start()
    assert found is not None
    assert found.read_bytes() == content
    found.unlink()
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / path.name).write_bytes(content)
    monkeypatch.setenv("ATTRIBOARD_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("ATTRIBOARD_OFFLINE", "1")
    assert bundles(task, path.parent).start() == found
    assert found.read_bytes() == content


def test_another_folder_of_bundles_does_not_hide_the_published_start(
    listed: tuple[TinyLanguageTask, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, path = listed
    assert bundles(task, tmp_path / "empty").start() is None
    monkeypatch.setattr(listing, "leaderboard_folder", lambda: tmp_path / "board")
    path.parent.rename(tmp_path / "groundtruth")
    (tmp_path / "board").mkdir()
    (tmp_path / "groundtruth").rename(tmp_path / "board" / "groundtruth")
    found = bundles(task, tmp_path / "empty").start()
    assert found is not None
    assert digest_file(found) == task.card.model.options["sha256"]


def test_a_task_without_a_start_looks_nowhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    found = bundles(TinyLanguageTask(tiny_card()), folder)
    monkeypatch.setattr(BundleRegistry, "__init__", None)
    assert found.start() is None


def test_checkpoints_and_retrains_find_it_when_only_the_folder_has_it(
    listed: tuple[TinyLanguageTask, Path], tmp_path: Path
) -> None:
    task, path = listed
    place = cached_path(BundleRegistry(path.parent).entries[0])
    workspace = Workspace(task, path.parent, workers=1)
    assert not place.exists()  # opening a task fetches nothing
    workspace.executor()
    assert place.exists()
    place.unlink()
    kept = workspace.bundles.checkpoints(workspace.executor)
    assert place.exists()
    assert kept.is_file()


# The command line


@pytest.fixture
def named(listed: tuple[TinyLanguageTask, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[TinyLanguageTask, Path]:
    """The same, with a name that commands know."""
    from attriboard.evaluation import catalog

    monkeypatch.setattr(catalog, "load_task", lambda name: listed[0])
    return listed


@pytest.mark.parametrize("kind", [["--kind", "start"], ["--kind", "checkpoints"], []])
def test_pull_brings_it_where_retraining_looks(
    kind: list[str], named: tuple[TinyLanguageTask, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    task, path = named
    (pulled,) = printed(capsys, "groundtruth", "pull", "tiny_gpt2", *kind, "--groundtruth", path.parent, "--offline")
    assert pulled["path"] == str(cached_path(BundleRegistry(path.parent).entries[0]))
    assert Path(pulled["path"]).read_bytes() == path.read_bytes()
    assert task.pretrained()


def test_pull_of_ground_truth_alone_leaves_it(
    named: tuple[TinyLanguageTask, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = named[1]
    arguments = ("--kind", "groundtruth", "--groundtruth", path.parent)
    assert printed(capsys, "groundtruth", "pull", "tiny_gpt2", *arguments) == []
    assert not cached_path(BundleRegistry(path.parent).entries[0]).exists()


def test_it_is_listed_and_made_ready_to_upload_also_for_a_task_that_no_command_knows(
    listed: tuple[TinyLanguageTask, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, path = listed
    (row,) = printed(capsys, "groundtruth", "list", "--groundtruth", path.parent)
    assert (row["kind"], row["where"], row["file"]) == ("start", "here", path.name)
    upload = tmp_path / "upload"
    arguments = ("--groundtruth", path.parent, "--out", upload, "--url", "https://host.invalid/b")
    ready = printed(capsys, "groundtruth", "push-ready", *arguments)
    assert [e["urls"] for e in ready["bundles"]] == [[f"https://host.invalid/b/{path.name}"]]
    assert (upload / path.name).read_bytes() == path.read_bytes()
    assert (upload / "SHA256SUMS").read_text() == f"{digest_file(path)}  {path.name}\n"
    (pulled,) = printed(capsys, "groundtruth", "pull", "--groundtruth", upload, "--out", tmp_path / "copy")
    assert Path(pulled["path"]).read_bytes() == path.read_bytes()
    assert printed(capsys, "groundtruth", "push-ready", "tiny_gpt2", *arguments) == ready
    unknown = printed(capsys, "groundtruth", "push-ready", "tiny_gpt3", *arguments)
    assert "no task named 'tiny_gpt3'" in unknown["error"]
    path.write_bytes(np.random.default_rng(0).bytes(100))
    failed = printed(capsys, "groundtruth", "push-ready", *arguments)
    assert "torn or altered" in failed["error"]
