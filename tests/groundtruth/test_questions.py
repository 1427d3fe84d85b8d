"""Ground truths beside the usual one: what they remove, under which seeds, and what of it is checked."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny import N_TRAIN, NormedTinyTask, Published, tiny_card, tiny_task
from torch.nn import functional as F  # noqa: N812 - its customary name

from attriboard.base.errors import CardError, DataError, InputError
from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.question import Question
from attriboard.groundtruth.build import build_ground_truth, open_store
from attriboard.groundtruth.bundle import GroundTruth, read_ground_truth, write_ground_truth
from attriboard.groundtruth.estimate import estimate_ground_truth
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.groundtruth.plan import kept_rows, mask_indices, truth_request, truth_requests
from attriboard.groundtruth.verify import check_plan, verify_rows
from attriboard.retraining.executors import InProcess
from attriboard.retraining.request import epoch_order
from attriboard.retraining.trainer import new_model

GOLDEN = Path(__file__).parents[1] / "golden" / "groundtruth-v1-10pct-same.safetensors"
ASKED = ("one-same", "10pct-same", "50pct-same", "10pct-fresh")


def question(name: str) -> Question:
    return Question.parse(name)


@pytest.fixture(scope="module")
def truths(published: Published, tmp_path_factory: pytest.TempPathFactory) -> dict[str, GroundTruth]:
    folder, task = tmp_path_factory.mktemp("questions"), published.task
    store = open_store(task, folder / "store")
    for name in ASKED:
        build_ground_truth(task, folder / f"{name}.safetensors", store, question=question(name), n_masks=8)
    return {name: read_ground_truth(folder / f"{name}.safetensors") for name in ASKED}


def with_questions(**sizes: dict[str, int]) -> TaskCard:
    return load_card(tiny_card().model_dump(mode="json") | {"questions": sizes})


@pytest.mark.parametrize(
    ("name", "title", "kept"),
    [
        ("one-same", "one example removed, same seed", 999),
        ("1pct-same", "1 % removed, same seed", 990),
        ("0.1pct-fresh", "0.1 % removed, fresh seeds", 999),
        ("50pct-fresh", "50 % removed, fresh seeds", 500),
    ],
)
def test_a_name_is_read_and_written(name: str, title: str, kept: int) -> None:
    found = question(name)
    assert (found.name, found.title, found.n_kept(1000)) == (name, title, kept)


@pytest.mark.parametrize(
    "name", ["", "1pct", "1%-same", "one", "01pct-same", "1.0pct-same", "0pct-same", "100pct-same"]
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="must be Npct-same"):
        question(name)


def test_the_usual_question_has_a_name_and_needs_none() -> None:
    card = tiny_card()
    assert card.question("50pct-fresh") is card.question(None) is None
    assert card.question("50pct-same") == question("50pct-same")


def test_all_are_the_usual_one_and_those_that_the_card_names() -> None:
    one = {"n_masks": 5, "n_repeats": 1}
    card = with_questions(**{"10pct-same": one, "one-same": one, "10pct-fresh": {"n_masks": 5, "n_repeats": 2}})
    assert card.asked(["all"]) == [None, question("one-same"), question("10pct-same"), question("10pct-fresh")]
    assert card.asked([]) == [None]
    assert card.asked(["1pct-same", "50pct-fresh", "1pct-same"]) == [question("1pct-same"), None]
    assert card.size_of(question("10pct-fresh")).n_repeats == 2
    assert card.fingerprint == tiny_card().fingerprint


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("1%", {}, "question 1%: must be Npct-same"),
        ("50pct-fresh", {}, "is the usual ground truth already"),
        ("1pct-same", {"n_repeats": 2}, "repeats = 2 of 1pct-same: the same seed and order give the same model"),
        ("one-same", {"n_repeats": 1, "n_masks": N_TRAIN + 1}, "there are 45 examples to leave out"),
    ],
)
def test_questions_that_cannot_be_asked_are_refused(name: str, size: dict[str, int], message: str) -> None:
    with pytest.raises(CardError, match=message):
        with_questions(**{name: size})


def test_masks_remove_what_their_question_says(truths: dict[str, GroundTruth], published: Published) -> None:
    removed = {name: (~truth.masks).sum(axis=1).tolist() for name, truth in truths.items()}
    assert removed == {
        "one-same": [1] * 8,
        "10pct-same": [5] * 8,
        "50pct-same": [23] * 8,
        "10pct-fresh": [5] * 8,
    }
    assert len({int(np.flatnonzero(~mask)[0]) for mask in truths["one-same"].masks}) == 8, "other examples each time"
    masks = {mask.tobytes() for name in ASKED for mask in truths[name].masks}
    assert len(masks) == 8 * len(ASKED)
    assert not masks & {mask.tobytes() for mask in read_ground_truth(published.truth).masks}


def test_a_retrain_with_the_same_seed_is_the_full_data_run_with_weight_0_on_what_is_removed(
    truths: dict[str, GroundTruth], published: Published
) -> None:
    """A plain loop in float64: the loss of a batch is Σ over what stays, divided by the batch's size."""
    task, truth = published.task, truths["50pct-same"]
    recipe, data = task.card.recipe, task.load_data()
    model = new_model(task, 0).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    weights = torch.from_numpy(truth.masks[3]).double()
    for epoch in range(1, recipe.epochs + 1):
        order = torch.from_numpy(epoch_order(N_TRAIN, 0, epoch))
        for batch in order.split(recipe.batch_size):
            outputs = model(data.train.inputs[batch].double())
            losses = F.cross_entropy(outputs, data.train.targets[batch], reduction="none")
            optimizer.zero_grad()
            ((losses * weights[batch]).sum() / len(batch)).backward()
            optimizer.step()
    with torch.no_grad():
        margin = task.margin(model(data.test.inputs.double()), data.test.targets)
    np.testing.assert_allclose(truth.outputs["margin"][3, 0], margin.numpy(), rtol=2e-4, atol=2e-4)


def test_fresh_seeds_train_on_what_is_left_and_never_with_a_seed_of_another_purpose(
    truths: dict[str, GroundTruth], published: Published
) -> None:
    truth, card = truths["10pct-fresh"], published.task.card
    assert truth.outputs["margin"].shape[:2] == (8, 3)
    assert len(set(truth.seeds.ravel().tolist())) == 24
    assert truth.seeds.min() >= 10**15
    wanted = truth_request(card, question("10pct-fresh"), 2, 1)
    assert wanted.weights is None
    assert wanted.indices.tolist() == np.flatnonzero(truth.masks[2]).tolist()
    assert wanted.seed == truth.seeds[2, 1]
    assert set(truths["10pct-same"].seeds.ravel().tolist()) == {0}


def test_requests_of_the_usual_question_are_what_they_were(published: Published) -> None:
    card = published.task.card
    requests = truth_requests(card, 3, 2)
    assert [r.indices.tolist() for r in requests] == [mask_indices(card, k).tolist() for k in (0, 1, 2)] * 2
    assert all(request.weights is None for request in requests)
    assert kept_rows(card, None, 5).tolist() == mask_indices(card, 5).tolist()


def test_the_ceiling_is_1_for_the_same_seed_and_that_of_the_noise_for_fresh_ones(
    truths: dict[str, GroundTruth],
) -> None:
    assert truths["10pct-same"].ceiling.mean == 1.0
    fresh = truths["10pct-fresh"].ceiling.mean
    assert fresh is not None
    assert 0 <= fresh < 1
    assert "10 % removed, same seed" in repr(truths["10pct-same"])


@pytest.mark.parametrize("name", ASKED)
def test_every_bundle_verifies_bit_for_bit(
    name: str, truths: dict[str, GroundTruth], published: Published, tmp_path: Path
) -> None:
    truth, task = truths[name], published.task
    check_plan(truth, task)
    checks = verify_rows(truth, task, open_store(task, tmp_path), [(k, 0) for k in range(0, 8, 3)])
    assert all(check.exact and check.ok for check in checks)


@pytest.mark.parametrize(("moved", "ok"), [(0.1, True), (0.4, False)])
def test_rows_with_the_same_seed_may_be_within_the_stated_spread(
    moved: float, ok: bool, truths: dict[str, GroundTruth], published: Published, tmp_path: Path
) -> None:
    """As a retrain on another machine would be: every output is off by a share of its deviation over masks."""
    truth, task = truths["10pct-same"], published.task
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=truth.outputs["margin"].shape)
    outputs = {
        name: (array + moved * signs * array.std(axis=0, ddof=1)).astype(np.float32)
        for name, array in truth.outputs.items()
    }
    plain = {name: getattr(truth.card, name) for name in ("fingerprint", "task", "created", "retrain_seconds")}
    path = tmp_path / "elsewhere.safetensors"
    card = plain | {"provenance": truth.card.provenance, "question": "10pct-same"}
    write_ground_truth(path, truth.masks, truth.seeds, outputs, **card)
    checks = verify_rows(read_ground_truth(path), task, open_store(task, tmp_path / "s"), [(0, 0), (5, 0)])
    assert not any(check.exact for check in checks)
    assert [check.ok for check in checks] == [ok, ok]
    assert all(check.distance == pytest.approx(moved, rel=0.15) for check in checks)


def test_rows_that_were_moved_or_are_of_another_question_fail(
    truths: dict[str, GroundTruth], published: Published, tmp_path: Path
) -> None:
    task, truth, path = published.task, truths["10pct-same"], tmp_path / "moved.safetensors"
    plain = {name: getattr(truth.card, name) for name in ("fingerprint", "task", "created", "retrain_seconds")}
    card = plain | {"provenance": truth.card.provenance}
    rolled = {name: np.roll(array, 1, axis=0) for name, array in truth.outputs.items()}
    write_ground_truth(path, truth.masks, truth.seeds, rolled, question="10pct-same", **card)
    moved = read_ground_truth(path)
    check_plan(moved, task)
    assert not any(check.ok for check in verify_rows(moved, task, open_store(task, tmp_path / "s"), [(0, 0), (5, 0)]))
    other = tmp_path / "other.safetensors"
    write_ground_truth(other, truth.masks, truth.seeds, truth.outputs, question="50pct-same", **card)
    with pytest.raises(InputError, match="mask 0 is not the one that the task's card determines"):
        check_plan(read_ground_truth(other), task)
    with pytest.raises(ValidationError, match="question half: must be Npct-same"):
        write_ground_truth(other, truth.masks, truth.seeds, truth.outputs, question="half", **card)


def test_batch_norm_and_the_same_seed_do_not_go_together(tmp_path: Path) -> None:
    task = NormedTinyTask(tiny_card())
    store, path = open_store(task, tmp_path), tmp_path / "x.safetensors"
    with pytest.raises(InputError, match="question 10pct-same: its model has batch norm, so a removed example"):
        build_ground_truth(task, path, store, question=question("10pct-same"))
    build_ground_truth(task, path, store, question=question("10pct-fresh"), n_masks=3, n_repeats=1)
    assert read_ground_truth(path).card.question == "10pct-fresh"


@pytest.mark.parametrize(("name", "sizes"), [("10pct-same", {"n_repeats": 2}), ("one-same", {"n_masks": N_TRAIN + 1})])
def test_sizes_that_make_no_sense_are_refused(
    name: str, sizes: dict[str, int], published: Published, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"of {name}: "):
        build_ground_truth(
            published.task, tmp_path / "x", open_store(published.task, tmp_path), question=question(name), **sizes
        )


def test_the_cost_counts_the_retrains_of_the_question(published: Published, tmp_path: Path) -> None:
    store = open_store(published.task, tmp_path)
    cost = estimate_ground_truth(published.task, store, InProcess(), question=question("one-same"))
    assert (cost.n_masks, cost.n_repeats, cost.n_missing) == (N_TRAIN, 1, N_TRAIN - 1)


def test_a_registry_keeps_the_questions_of_a_task_apart(truths: dict[str, GroundTruth], tmp_path: Path) -> None:
    registry, card = BundleRegistry(tmp_path), tiny_task(hidden=[], epochs=10).card
    for name in ("10pct-same", "10pct-fresh"):
        path = tmp_path / registry.file_name(card, "groundtruth", question(name))
        assert path.name == f"tiny-groundtruth-{name}.safetensors"
        path.write_bytes(truths[name].path.read_bytes())
        registry.register(card, "groundtruth", question(name))
    again = BundleRegistry(tmp_path)
    assert [entry.question for entry in again.entries] == ["10pct-fresh", "10pct-same"]
    assert again.locate(card, "groundtruth", question("10pct-same")).name == "tiny-groundtruth-10pct-same.safetensors"
    assert again.find(card, "groundtruth") is None
    with pytest.raises(DataError, match=r"question 1pct-same, .* build tiny --question 1pct-same --out DIR"):
        again.locate(card, "groundtruth", question("1pct-same"))


def test_the_golden_ground_truth_of_a_question_keeps_loading() -> None:
    truth = read_ground_truth(GOLDEN)
    assert truth.question == question("10pct-same")
    assert truth.card.fingerprint == "81d9e35450d549b785f752e9871b60e1a4fb7958bae8affa768636f2e752038d"
    assert truth.outputs["margin"].shape == (4, 1, 13)
    assert (~truth.masks).sum(axis=1).tolist() == [5] * 4
    assert truth.card.content_sha256 == "a939d3f5210016896acf1ee899832e4d3bc7b29ef712895dfe74e80c21213e31"


def test_the_card_of_the_usual_question_is_written_as_before(published: Published) -> None:
    assert '"question"' not in read_ground_truth(published.truth).card.model_dump_json()
