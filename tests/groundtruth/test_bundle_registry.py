"""The list of published bundles."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Published, tiny_card

from attriboard.base.errors import DataError, FormatError, InputError
from attriboard.groundtruth import build, listing
from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store
from attriboard.groundtruth.bundle import read_ground_truth, write_ground_truth
from attriboard.groundtruth.listing import BundleRegistry, published_folder
from attriboard.groundtruth.opening import open_bundles
from attriboard.retraining.executors import InProcess


@pytest.fixture
def folder(published: Published, tmp_path: Path) -> Path:
    """A folder with both bundles, not yet listed."""
    for path in (published.truth, published.checkpoints):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_folder_without_a_list_is_an_empty_registry(tmp_path: Path) -> None:
    assert BundleRegistry(tmp_path / "nowhere").entries == ()


def test_what_is_registered_is_found_by_a_new_registry(folder: Path, published: Published) -> None:
    card, first = published.task.card, BundleRegistry(folder)
    entries = [first.register(card, "groundtruth"), first.register(card, "checkpoints")]
    registry = BundleRegistry(folder)
    assert sorted(e.kind for e in registry.entries) == ["checkpoints", "groundtruth"]
    assert registry.find(card, "groundtruth") == entries[0]
    assert registry.locate(card, "checkpoints") == folder / "tiny-checkpoints.safetensors"
    assert entries[0].bytes == published.truth.stat().st_size
    assert open_bundles(published.task, folder).checkpoints(lambda say: InProcess()) == folder / entries[1].file


def test_registering_the_same_bytes_again_changes_nothing(folder: Path, published: Published) -> None:
    registry = BundleRegistry(folder)
    entry = registry.register(published.task.card, "groundtruth")
    before = (folder / "registry.json").read_bytes()
    assert registry.register(published.task.card, "groundtruth") == entry
    assert BundleRegistry(folder).register(published.task.card, "groundtruth") == entry
    assert (folder / "registry.json").read_bytes() == before


def test_what_another_process_lists_meanwhile_stays_listed(
    folder: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A digest takes seconds, in which another build into the folder ends."""
    card, first = published.task.card, BundleRegistry(folder)
    entry_of = listing.entry_of

    def entry_and_another_build(*given: Any) -> listing.BundleEntry:
        monkeypatch.setattr(listing, "entry_of", entry_of)
        BundleRegistry(folder).register(card, "checkpoints")
        return entry_of(*given)

    monkeypatch.setattr(listing, "entry_of", entry_and_another_build)
    before = first.register(card, "groundtruth")
    assert [e.kind for e in BundleRegistry(folder).entries] == ["checkpoints", "groundtruth"]
    late = BundleRegistry(folder)
    other = before.model_copy(update={"task": "other", "file": "other.safetensors"})
    listing.write_listing(folder, (*first.entries, other))
    late.relist(before, b"longer")
    assert {e.task for e in BundleRegistry(folder).entries} == {"tiny", "other"}


def test_builds_at_the_same_time_are_all_listed(folder: Path, published: Published) -> None:
    cards = [published.task.card.model_copy(update={"name": f"tiny{n}"}) for n in range(8)]
    for card in cards:
        (folder / f"{card.name}-checkpoints.safetensors").write_bytes(published.checkpoints.read_bytes())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda card: BundleRegistry(folder).register(card, "checkpoints"), cards))
    assert [e.task for e in BundleRegistry(folder).entries] == [card.name for card in cards]


def test_a_list_that_another_process_holds_is_not_changed(
    folder: Path, published: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PATIENCE", 0.1)
    with listing.changing_list(folder), pytest.raises(DataError, match=r"registry\.json: another process has been"):
        BundleRegistry(folder).register(published.task.card, "groundtruth")
    assert not (folder / "registry.json").exists()


def test_a_published_version_is_never_replaced(folder: Path, published: Published) -> None:
    registry, card = BundleRegistry(folder), published.task.card
    registry.register(card, "groundtruth")
    before = (folder / "registry.json").read_bytes()
    (folder / "tiny-groundtruth.safetensors").write_bytes(published.checkpoints.read_bytes())
    with pytest.raises(InputError, match=r"version 1 has a published groundtruth already .* raise the card's version"):
        registry.register(card, "groundtruth")
    assert (folder / "registry.json").read_bytes() == before


def test_building_again_leaves_what_is_published_as_it_is(folder: Path, published: Published) -> None:
    BundleRegistry(folder).register(published.task.card, "groundtruth")
    before, path = published.truth.read_bytes(), folder / published.truth.name
    store = open_store(published.task, published.store)
    build_ground_truth(published.task, path, store)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match=r"is published, .* raise the card's version"):
        build_ground_truth(published.task, path, store, n_masks=7)
    assert path.read_bytes() == before


def test_a_published_ground_truth_is_extended_and_none_of_its_rows_changes(
    folder: Path, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, path = published.task.card, folder / published.truth.name
    before = BundleRegistry(folder).register(card, "groundtruth")
    old = read_ground_truth(path)
    asked: list[int] = []
    train = build.retrain

    def counted(task: Any, requests: Any, store: Any, *rest: Any) -> Any:
        names = [f"outputs/{name}" for name in task.measurements]
        asked.append(sum(not store.has(request.digest(card.fingerprint), names) for request in requests))
        return train(task, requests, store, *rest)

    monkeypatch.setattr(build, "retrain", counted)
    elsewhere = open_store(published.task, tmp_path / "another machine")
    build_ground_truth(published.task, path, elsewhere, n_masks=10, executor=InProcess())
    new = read_ground_truth(path)
    assert asked == [2 * new.seeds.shape[1]]
    assert (len(old.masks), len(new.masks)) == (8, 10)
    for name, values in old.outputs.items():
        assert np.array_equal(new.outputs[name][:8], values)
    registry = BundleRegistry(folder)
    assert registry.locate(card, "groundtruth") == path
    assert registry.find(card, "groundtruth") == registry.register(card, "groundtruth") != before
    # What was extended says how long all of it took.
    assert new.card.retrain_seconds > old.card.retrain_seconds


def test_what_has_other_rows_is_no_extension(folder: Path, published: Published) -> None:
    path = folder / published.truth.name
    BundleRegistry(folder).register(published.task.card, "groundtruth")
    truth, before = read_ground_truth(path), path.read_bytes()
    more = {name: np.concatenate([values, values[:2]]) for name, values in truth.outputs.items()}
    masks, seeds = np.concatenate([truth.masks, truth.masks[:2]]), np.concatenate([truth.seeds, truth.seeds[:2]])
    more["loss"][3, 0, 5] += 1e-6
    facts = truth.card.model_dump(exclude={"format", "content_sha256", "n_masks", "n_repeats", "n_test"})
    with pytest.raises(InputError, match="is published, and what was built differs from it"):
        write_ground_truth(path, masks, seeds, more, **facts)
    assert path.read_bytes() == before


def test_an_extension_that_was_killed_between_list_and_file_is_completed_by_the_next_build(
    folder: Path, published: Published
) -> None:
    card, path = published.task.card, folder / published.truth.name
    BundleRegistry(folder).register(card, "groundtruth")
    old = path.read_bytes()
    store = open_store(published.task, published.store)
    build_ground_truth(published.task, path, store, n_masks=10, executor=InProcess())
    path.write_bytes(old)  # as after a kill between the two
    with pytest.raises(FormatError, match="torn or altered: fetch or build it again"):
        BundleRegistry(folder).locate(card, "groundtruth")
    build_ground_truth(published.task, path, store, n_masks=10, executor=InProcess())
    assert BundleRegistry(folder).locate(card, "groundtruth") == path
    assert read_ground_truth(path).card.n_masks == 10


def test_a_published_file_whose_words_were_altered_is_not_listed_by_building_again(
    folder: Path, published: Published
) -> None:
    card, path = published.task.card, folder / published.truth.name
    BundleRegistry(folder).register(card, "groundtruth")
    before = (folder / "registry.json").read_bytes()
    content = path.read_bytes()
    altered = content.replace(b"2.", b"3.", 1)
    assert altered != content
    path.write_bytes(altered)
    build_ground_truth(published.task, path, open_store(published.task, published.store))
    with pytest.raises(InputError, match="has a published groundtruth already"):
        BundleRegistry(folder).register(card, "groundtruth")
    assert (folder / "registry.json").read_bytes() == before
    with pytest.raises(FormatError, match="torn or altered"):
        BundleRegistry(folder).locate(card, "groundtruth")


def test_published_models_are_not_trained_again(
    folder: Path, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / published.checkpoints.name
    BundleRegistry(folder).register(published.task.card, "checkpoints")
    before = path.read_bytes()
    monkeypatch.setattr(build, "retrain", lambda *_: pytest.fail("trained"))
    build_checkpoints(published.task, path, open_store(published.task, tmp_path / "another machine"))
    assert path.read_bytes() == before


def test_building_again_replaces_a_damaged_or_unpublished_file(folder: Path, published: Published) -> None:
    path, store = folder / published.truth.name, open_store(published.task, published.store)
    path.write_bytes(path.read_bytes()[:-1])
    build_ground_truth(published.task, path, store)
    assert read_ground_truth(path).card.n_masks == 8
    build_ground_truth(published.task, path, store, n_masks=7)
    assert read_ground_truth(path).card.n_masks == 7


def test_the_same_version_of_another_card_is_refused_too(folder: Path, published: Published) -> None:
    registry = BundleRegistry(folder)
    registry.register(published.task.card, "groundtruth")
    (folder / "tiny-groundtruth.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="raise the card's version"):
        registry.register(tiny_card(learning_rate=0.3), "groundtruth")


def test_a_new_version_has_its_own_file_and_entry(folder: Path, published: Published) -> None:
    registry, card = BundleRegistry(folder), published.task.card
    registry.register(card, "groundtruth")
    second = card.model_copy(update={"version": 2})
    assert registry.find(second, "groundtruth") is None
    name = registry.file_name(second, "groundtruth")
    assert name == "tiny-v2-groundtruth.safetensors"
    (folder / name).write_bytes(published.truth.read_bytes())
    registry.register(second, "groundtruth")
    assert registry.locate(card, "groundtruth") != registry.locate(second, "groundtruth")


def test_other_bytes_than_the_listed_ones_are_refused(folder: Path, published: Published) -> None:
    registry, card = BundleRegistry(folder), published.task.card
    registry.register(card, "groundtruth")
    path = folder / "tiny-groundtruth.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match=r"tiny-groundtruth\.safetensors: SHA-256 .* torn or altered: fetch or build"):
        registry.locate(card, "groundtruth")


def test_a_bundle_that_is_not_listed_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"lists no groundtruth for tiny .*: attriboard groundtruth build tiny .*--groundtruth DIR"
    ):
        BundleRegistry(tmp_path).locate(tiny_card(), "groundtruth")
    with pytest.raises(DataError, match=r"lists no models for tiny .*: attriboard report models tiny --publish DIR"):
        BundleRegistry(tmp_path).locate(tiny_card(), "models")


def test_a_listed_bundle_that_is_not_there_names_the_command_that_makes_it(folder: Path, published: Published) -> None:
    registry = BundleRegistry(folder)
    registry.register(published.task.card, "groundtruth")
    (folder / "tiny-groundtruth.safetensors").unlink()
    with pytest.raises(DataError, match=r"listed but not here; .*attriboard groundtruth build tiny"):
        registry.locate(published.task.card, "groundtruth")


def test_another_recipe_is_not_found_under_the_same_name(folder: Path, published: Published) -> None:
    registry = BundleRegistry(folder)
    registry.register(published.task.card, "groundtruth")
    assert registry.find(tiny_card(learning_rate=0.3), "groundtruth") is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"schema_version": 2, "bundles": []}',
        '{"bundles": [{"task": "x"}]}',
        '{"bundles": [], "more": 1}',
    ],
)
def test_a_list_that_does_not_validate_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text(text)
    with pytest.raises(FormatError, match=r"registry\.json: not a registry of bundles"):
        BundleRegistry(tmp_path)


def test_a_listed_file_cannot_point_out_of_the_folder(folder: Path, published: Published) -> None:
    BundleRegistry(folder).register(published.task.card, "groundtruth")
    listing = folder / "registry.json"
    listing.write_text(listing.read_text().replace("tiny-groundtruth", "../tiny-groundtruth"))
    with pytest.raises(FormatError, match="not a registry"):
        BundleRegistry(folder)


def test_the_published_registry_validates_and_its_files_are_the_listed_ones() -> None:
    from attriboard.base.digests import digest_file

    registry = BundleRegistry()
    for entry in registry.entries:
        path = published_folder() / entry.file
        assert (path.stat().st_size, digest_file(path)) == (entry.bytes, entry.sha256)
        if entry.kind == "groundtruth":
            assert read_ground_truth(path).card.fingerprint == entry.fingerprint
