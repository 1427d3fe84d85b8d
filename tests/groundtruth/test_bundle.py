"""Bundles: what was written is read back; anything else is refused with its path and a way out."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save
from tiny import N_TEST, N_TRAIN, NormedTinyTask, Published, tiny_card, tiny_task

from attriboard.base.errors import AttriboardError, FormatError, InputError
from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store, train_checkpoints
from attriboard.groundtruth.bundle import read_ground_truth, read_sizes
from attriboard.groundtruth.checkpoints import read_checkpoints
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.groundtruth.plan import checkpoint_requests, mask_indices, retrain_seed
from attriboard.groundtruth.sealed import content_digest
from attriboard.retraining.executors import InProcess

GOLDEN = Path(__file__).parents[1] / "golden"
Tensors = dict[str, Any]
Card = dict[str, Any]


def unseal(path: Path) -> tuple[Tensors, Card]:
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["card"])  # noqa: SIM118


def reseal(path: Path, tensors: Tensors, card: Card) -> Path:
    """A file whose digest is right whatever it holds, so that the check behind the digest is what speaks."""
    card = card | {"content_sha256": content_digest(tensors)}
    path.write_bytes(save(tensors, {"card": json.dumps(card)}))
    return path


def test_a_ground_truth_has_the_masks_seeds_and_outputs_of_its_plan(published: Published) -> None:
    truth, card = read_ground_truth(published.truth), published.task.card
    assert truth.masks.shape == (8, N_TRAIN)
    assert set(truth.outputs) == {"loss", "margin", "correct"}
    assert all(a.shape == (8, 3, N_TEST) and a.dtype == np.float32 for a in truth.outputs.values())
    for k in range(8):
        assert np.flatnonzero(truth.masks[k]).tolist() == mask_indices(card, k).tolist()
        assert truth.seeds[k].tolist() == [retrain_seed(k, r) for r in range(3)]
    assert truth.card.task == card
    assert truth.card.fingerprint == card.fingerprint
    assert truth.target is truth.outputs["margin"]
    assert len(truth.sha256) == 64


def test_every_row_is_the_retrain_of_its_mask_and_seed(published: Published) -> None:
    truth, store = read_ground_truth(published.truth), open_store(published.task, published.store)
    from attriboard.retraining.request import RetrainRequest

    for k, r in ((0, 0), (7, 2), (3, 1)):
        request = RetrainRequest(np.flatnonzero(truth.masks[k]), int(truth.seeds[k, r]))
        row = store.read("outputs/margin", [request.digest(truth.card.fingerprint)])[0]
        assert np.array_equal(truth.outputs["margin"][k, r], row)


def test_a_larger_ground_truth_extends_a_smaller_one(published: Published, tmp_path: Path) -> None:
    small, store = tmp_path / "small.safetensors", open_store(published.task, published.store)
    counts: list[tuple[int, int]] = []
    build_ground_truth(
        published.task, small, store, n_masks=5, n_repeats=2, progress=lambda *count: counts.append(count)
    )
    assert counts == [(10, 10)]  # nothing was trained
    a, b = read_ground_truth(small), read_ground_truth(published.truth)
    assert np.array_equal(a.masks, b.masks[:5])
    assert np.array_equal(a.outputs["loss"], b.outputs["loss"][:5, :2])


def test_a_published_bundle_is_left_as_it_is_where_only_words_and_planned_sizes_changed(
    published: Published, tmp_path: Path
) -> None:
    task, store = published.task, open_store(published.task, published.store)
    folder = BundleRegistry(tmp_path)
    path = tmp_path / folder.file_name(task.card, "checkpoints")
    path.write_bytes(published.checkpoints.read_bytes())
    folder.register(task.card, "checkpoints")
    sizes = task.card.ground_truth.model_copy(update={"n_masks": 9})
    reworded = type(task)(task.card.model_copy(update={"title": "Corrected", "ground_truth": sizes}))
    build_checkpoints(reworded, path, store)
    assert path.read_bytes() == published.checkpoints.read_bytes()
    fewer = task.card.checkpoints.model_copy(update={"full": 1})
    with pytest.raises(InputError, match="is published, and is damaged or has other models"):
        build_checkpoints(type(task)(task.card.model_copy(update={"checkpoints": fewer})), path, store)


@pytest.mark.parametrize("sizes", [{"n_masks": 0}, {"n_masks": 2}, {"n_repeats": 0}, {"n_masks": 10**6}])
def test_sizes_out_of_range_are_refused(sizes: dict[str, int], published: Published, tmp_path: Path) -> None:
    store = open_store(published.task, published.store)
    with pytest.raises(InputError, match="masks = "):
        build_ground_truth(published.task, tmp_path / "x.safetensors", store, **sizes)  # type: ignore[arg-type]


def test_checkpoints_are_full_data_models_first_then_half_data_ones_at_every_epoch(
    published: Published,
) -> None:
    card, task = published.task.card, published.task
    models = read_checkpoints(published.checkpoints, card.fingerprint)
    requests = checkpoint_requests(card)
    assert [(m.epoch, m.seed) for m in models] == [(e, r.seed) for r in requests for e in card.checkpoints.epochs]
    assert [m.indices is None for m in models] == [True] * 4 + [False] * 4
    assert models[4].indices is not None
    assert models[4].indices.tolist() == requests[2].indices.tolist()
    names = {name: value.shape for name, value in task.build_model().named_parameters()}
    assert all({n: v.shape for n, v in m.parameters.items()} == names for m in models)
    truth_seeds = set(read_ground_truth(published.truth).seeds.ravel().tolist())
    assert not truth_seeds & {m.seed for m in models}


def test_a_checkpoint_classifies_better_at_its_last_epoch_than_untrained(published: Published) -> None:
    task, test = published.task, published.task.load_data().test
    first = read_checkpoints(published.checkpoints, task.card.fingerprint)[1]
    with torch.no_grad():
        outputs = torch.func.functional_call(task.build_model(), dict(first.parameters), (test.inputs,))
    assert (outputs.argmax(-1) == test.targets).float().mean() > 0.6


def test_running_statistics_are_in_the_checkpoints_and_give_the_outputs_of_the_retrain(tmp_path: Path) -> None:
    task = NormedTinyTask(tiny_card())
    store, path = open_store(task, tmp_path / "store"), tmp_path / "checkpoints.safetensors"
    build_checkpoints(task, path, store)
    models = read_checkpoints(path, task.card.fingerprint)
    request, test = checkpoint_requests(task.card)[0], task.load_data().test
    last = models[1]
    assert last.epoch == 3
    assert {n: b.dtype for n, b in last.buffers.items()} == {
        "1.running_mean": torch.float32,
        "1.running_var": torch.float32,
        "1.num_batches_tracked": torch.int64,
    }
    state = {**last.parameters, **last.buffers}
    outputs = torch.func.functional_call(task.build_model().eval(), state, (test.inputs,))
    kept = store.read("outputs/margin", [request.digest(task.card.fingerprint)])[0]
    np.testing.assert_allclose(task.margin(outputs, test.targets).detach(), kept, rtol=1e-5, atol=1e-6)


def test_checkpoints_of_a_model_without_buffers_have_none(published: Published) -> None:
    assert all(not m.buffers for m in read_checkpoints(published.checkpoints, published.task.card.fingerprint))


def test_absent_checkpoints_are_trained_once_and_again_where_the_card_wants_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    task = tiny_task()
    path = train_checkpoints(task, executor=InProcess)
    made = path.stat().st_mtime_ns
    assert train_checkpoints(task, executor=InProcess) == path
    assert path.stat().st_mtime_ns == made
    more = tiny_task(checkpoints={"full": 3, "half": 0, "epochs": [2, 3]})
    assert more.card.fingerprint == task.card.fingerprint
    models = read_checkpoints(train_checkpoints(more, executor=InProcess), task.card.fingerprint)
    assert [m.epoch for m in models] == [2, 3] * 3


def test_the_golden_ground_truth_of_the_first_format_keeps_loading() -> None:
    truth = read_ground_truth(GOLDEN / "groundtruth-v1.safetensors")
    assert truth.card.fingerprint == "81d9e35450d549b785f752e9871b60e1a4fb7958bae8affa768636f2e752038d"
    assert truth.card.content_sha256 == "4175757fbfc45ec9d280211f89b02dc7673ebdf6a2c93f4a97e6f937cea6c9d5"
    assert truth.masks.sum(axis=1).tolist() == [22] * 8
    assert truth.outputs["margin"].shape == (8, 3, N_TEST)


def test_the_golden_checkpoints_of_the_first_format_keep_loading() -> None:
    models = read_checkpoints(
        GOLDEN / "checkpoints-v1.safetensors", "81d9e35450d549b785f752e9871b60e1a4fb7958bae8affa768636f2e752038d"
    )
    assert [(m.epoch, m.seed, m.indices is None) for m in models] == [
        (1, 0, True),
        (10, 0, True),
        (1, 1, True),
        (10, 1, True),
        (1, 500_000, False),
        (10, 500_000, False),
        (1, 500_001, False),
        (10, 500_001, False),
    ]


def test_the_golden_task_is_still_the_tiny_task_and_trains_to_its_golden_rows(published: Published) -> None:
    golden, here = read_ground_truth(GOLDEN / "groundtruth-v1.safetensors"), read_ground_truth(published.truth)
    assert golden.card.fingerprint == here.card.fingerprint
    assert np.array_equal(golden.masks, here.masks)
    for name, array in golden.outputs.items():
        np.testing.assert_allclose(here.outputs[name], array, rtol=1e-3, atol=1e-3)


Damage = Callable[[Path], object]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def without_card(path: Path) -> None:
    path.write_bytes(save(unseal(path)[0], {"other": "thing"}))


def without_metadata(path: Path) -> None:
    path.write_bytes(save(unseal(path)[0]))


def with_card(text: str) -> Damage:
    return lambda path: path.write_bytes(save(unseal(path)[0], {"card": text}))


def card_field(**fields: Any) -> Damage:
    def damage(path: Path) -> None:
        tensors, card = unseal(path)
        reseal(path, tensors, card | fields)

    return damage


def other_task(path: Path) -> None:
    tensors, card = unseal(path)
    card["task"]["recipe"]["learning_rate"] = 0.5  # the fingerprint stays
    reseal(path, tensors, card)


def tensors_with(**replaced: Callable[[Tensors], Any]) -> Damage:
    """Replace tensors by what a function makes of them all; `None` takes one away."""

    def damage(path: Path) -> None:
        tensors, card = unseal(path)
        for name, make in replaced.items():
            value = make(tensors)
            tensors.pop(name, None)
            if value is not None:
                tensors[name] = np.ascontiguousarray(value)
        reseal(path, tensors, card)

    return damage


def bfloat16(path: Path) -> None:
    from safetensors.torch import save as save_torch

    path.write_bytes(save_torch({"x": torch.zeros(2, dtype=torch.bfloat16)}, {"card": "{}"}))


def nan(name: str) -> Callable[[Tensors], Any]:
    def make(tensors: Tensors) -> Any:
        array = tensors[name].copy()
        array.flat[3] = np.nan
        return array

    return make


COMMON: dict[str, tuple[Damage, str]] = {
    "missing": (Path.unlink, "not a readable"),
    "a folder": (directory, "not a readable"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable"),
    "text": (lambda path: path.write_text("this is no tensor file, it is text"), "not a readable"),
    "torn": (cut, "not a readable"),
    "a dtype that NumPy lacks": (bfloat16, "not a readable"),
    "flipped bit": (flip, "damaged"),
    "no metadata": (without_metadata, "carries no card"),
    "foreign metadata": (without_card, "carries no card"),
    "card is no JSON": (with_card("{"), "does not validate"),
    "card is a list": (with_card("[1]"), "does not validate"),
    "another format": (card_field(format="attriboard-other/9"), "format 'attriboard-other/9', expected"),
    "unknown field": (card_field(surprise=1), "does not validate"),
    "wrong fingerprint": (card_field(fingerprint="0" * 64), "not that of its own task card"),
    "altered task": (other_task, "not that of its own task card"),
}
IN_GROUND_TRUTH: dict[str, tuple[Damage, str]] = {
    "no masks": (tensors_with(masks=lambda t: None), "lacks the tensors masks"),
    "no margin": (tensors_with(**{"outputs/margin": lambda t: None}), "lacks the tensors outputs/margin"),
    "extra tensor": (tensors_with(extra=lambda t: t["seeds"]), "'extra' that does not belong"),
    "too few masks": (tensors_with(masks=lambda t: t["masks"][:-1]), r"masks is uint8 \(7, 6\), expected"),
    "narrow masks": (tensors_with(masks=lambda t: t["masks"][:, :-1]), "masks is"),
    "float64": (tensors_with(**{"outputs/loss": lambda t: t["outputs/loss"].astype(float)}), "loss is float64"),
    "int32 seeds": (tensors_with(seeds=lambda t: t["seeds"].astype(np.int32)), "seeds is int32"),
    "ragged": (tensors_with(**{"outputs/loss": lambda t: t["outputs/loss"][:, :2]}), "loss is"),
    "other size": (card_field(n_masks=9), "expected"),
    "other test points": (card_field(n_test=12), "12 test points, its task card says 13"),
    "NaN": (tensors_with(**{"outputs/loss": nan("outputs/loss")}), "outputs/loss has NaN"),
}
IN_CHECKPOINTS: dict[str, tuple[Damage, str]] = {
    "no seeds": (tensors_with(seeds=lambda t: None), "lacks the tensors seeds"),
    "no parameters": (
        tensors_with(**{f"parameters/{e}/0.{n}": lambda t: None for e in (1, 10) for n in ("weight", "bias")}),
        "parameters are missing",
    ),
    "one epoch lacks a tensor": (
        tensors_with(**{"parameters/10/0.bias": lambda t: None}),
        "lacks the tensors parameters/10/0.bias",
    ),
    "an epoch that the card lacks": (
        tensors_with(**{"parameters/7/0.bias": lambda t: t["parameters/10/0.bias"]}),
        "'parameters/7/0.bias' that does not belong",
    ),
    "an epoch that is no number": (
        tensors_with(**{"parameters/last/0.bias": lambda t: t["parameters/10/0.bias"]}),
        "does not belong",
    ),
    "extra tensor": (tensors_with(extra=lambda t: t["seeds"]), "'extra' that does not belong"),
    "too few models": (tensors_with(seeds=lambda t: t["seeds"][:-1]), "seeds is"),
    "other size": (card_field(n_models=3), "expected"),
    "whole numbers": (
        tensors_with(**{"parameters/1/0.bias": lambda t: t["parameters/1/0.bias"].astype(int)}),
        "is int64",
    ),
    "NaN": (tensors_with(**{"parameters/1/0.bias": nan("parameters/1/0.bias")}), "NaN"),
}


def assert_refused(read: Callable[[Path], object], path: Path, rule: str) -> None:
    with pytest.raises(FormatError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert re.search(rule, message), message
    assert "build or download it again" in message


@pytest.mark.parametrize(
    ("damage", "rule"), [*COMMON.values(), *IN_GROUND_TRUTH.values()], ids=[*COMMON, *IN_GROUND_TRUTH]
)
def test_a_damaged_ground_truth_is_refused(damage: Damage, rule: str, published: Published, tmp_path: Path) -> None:
    path = tmp_path / "bundle.safetensors"
    path.write_bytes(published.truth.read_bytes())
    damage(path)
    assert_refused(read_ground_truth, path, rule)


@pytest.mark.parametrize(
    ("damage", "rule"), [*COMMON.values(), *IN_CHECKPOINTS.values()], ids=[*COMMON, *IN_CHECKPOINTS]
)
def test_damaged_checkpoints_are_refused(damage: Damage, rule: str, published: Published, tmp_path: Path) -> None:
    path = tmp_path / "bundle.safetensors"
    path.write_bytes(published.checkpoints.read_bytes())
    damage(path)
    assert_refused(lambda p: read_checkpoints(p, published.task.card.fingerprint), path, rule)


def test_checkpoints_of_another_task_are_refused(published: Published) -> None:
    other = tiny_card(learning_rate=0.3).fingerprint
    assert_refused(lambda p: read_checkpoints(p, other), published.checkpoints, "expected " + other[:12])


def test_one_kind_of_bundle_is_not_taken_for_the_other(published: Published) -> None:
    assert_refused(read_ground_truth, published.checkpoints, "attriboard-checkpoints/1")
    assert_refused(lambda p: read_checkpoints(p, "0" * 64), published.truth, "attriboard-groundtruth/1")


def test_every_flipped_byte_of_a_bundle_is_noticed(published: Published, tmp_path: Path) -> None:
    """Except in the description: what the card says beside the task is the registry's digest to guard."""
    content, path = published.truth.read_bytes(), tmp_path / "bundle.safetensors"
    header = 8 + int.from_bytes(content[:8], "little")
    for position in [*range(8), *range(header, len(content), 37)]:
        altered = bytearray(content)
        altered[position] ^= 0x10
        path.write_bytes(altered)
        with pytest.raises(AttriboardError):
            read_ground_truth(path)


def test_the_sizes_of_a_bundle_are_those_of_its_arrays(published: Published) -> None:
    assert read_sizes(published.truth) == read_ground_truth(published.truth).seeds.shape
    with pytest.raises(FormatError, match="not a ground-truth bundle: it has no seeds"):
        read_sizes(published.checkpoints)
