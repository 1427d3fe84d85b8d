"""`attriboard groundtruth build` of several tasks and on a named device, `plan`, and `epochs`."""

import numpy as np
import pytest
import yaml
from safetensors import safe_open
from selecting import few_resamples, retrain_inline
from tiny import small_digits_yaml

from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.groundtruth.opening import open_bundles


@pytest.fixture(autouse=True)
def quickly(monkeypatch, tmp_path):
    few_resamples(monkeypatch)
    retrain_inline(monkeypatch)
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATTRIBOARD_DEVICE", "")  # so that it is restored


@pytest.fixture
def cards(tmp_path):
    """Two small tasks."""
    paths = []
    for name, seed in (("one", 0), ("two", 1)):
        path = small_digits_yaml(tmp_path / name, masks=4, repeats=1) if (tmp_path / name).mkdir() is None else None
        card = yaml.safe_load(path.read_text("utf-8"))
        card["name"], card["subsets"] = f"small_{name}", {"seed": seed}
        path.write_text(yaml.safe_dump(card), "utf-8")
        paths.append(path)
    return paths


def test_several_tasks_are_built_by_one_command_that_says_first_what_they_take(attriboard, cards, tmp_path):
    done = attriboard("groundtruth", "build", *cards, "--device", "cpu", "--out", tmp_path / "gt", "--json")
    assert done.code == 0
    assert [document["task"] for document in done.document] == ["small_one", "small_two"]
    listed = [(entry.task, entry.kind) for entry in BundleRegistry(tmp_path / "gt").entries]
    assert listed == [(f"small_{name}", kind) for name in ("one", "two") for kind in ("checkpoints", "groundtruth")]
    said = done.err.splitlines()
    for name in ("one", "two"):
        (expected,) = [n for n, line in enumerate(said) if f"small_{name}: 7 retrains of" in line]
        (measured,) = [n for n, line in enumerate(said) if f"small_{name}: the first 2 took" in line]
        assert expected < measured
        assert "A100" in said[expected]
        assert "for the other 5" in said[measured]
    again = attriboard("groundtruth", "build", *cards, "--device", "cpu", "--out", tmp_path / "gt")
    assert (again.code, "the first 2" in again.err) == (0, False)


def test_a_built_ground_truth_is_extended_by_the_same_command_with_more_masks(attriboard, cards, tmp_path):
    first = attriboard("groundtruth", "build", cards[0], "--masks", 3, "--out", tmp_path / "gt", "--json")
    more = attriboard("groundtruth", "build", cards[0], "--out", tmp_path / "gt", "--json")
    assert (first.code, more.code) == (0, 0), more.err
    entry = next(e for e in BundleRegistry(tmp_path / "gt").entries if e.kind == "groundtruth")
    info = attriboard("groundtruth", "info", cards[0], "--groundtruth", tmp_path / "gt", "--json")
    assert (info.document["n_masks"], info.document["sha256"]) == (4, entry.sha256)


def test_models_at_other_epochs_come_with_the_ground_truth_and_methods_can_ask_for_them(attriboard, cards, tmp_path):
    built = attriboard("groundtruth", "build", cards[0], "--out", tmp_path / "gt", "--json")
    asked = ("grad_dot", "--hp", "epoch=1", "--threads", "1", "--out", tmp_path / "records")
    refused = attriboard("run", cards[0], *asked, "--groundtruth", tmp_path / "gt")
    assert "attriboard groundtruth epochs" in refused.out
    command = ("groundtruth", "epochs", cards[0], "1", "--groundtruth", tmp_path / "gt", "--out", tmp_path / "epochs")
    made = attriboard(*command, "--json")
    assert (built.code, made.code) == (0, 0), made.err
    models, truth = (one["sha256"] for one in sorted(made.document["bundles"], key=lambda one: one["kind"]))
    (before,) = (one["sha256"] for one in built.document["bundles"] if one["kind"] == "groundtruth")
    assert truth == before
    with safe_open(tmp_path / "epochs" / "small_one-checkpoints.safetensors", framework="numpy") as file:
        epochs = {name.split("/")[1] for name in file.keys() if "/" in name}  # noqa: SIM118 - not a mapping
        (name,) = (name for name in file.keys() if name.endswith("/1/0.bias"))  # noqa: SIM118
        first, last = file.get_tensor(name), file.get_tensor(name.replace("/1/", "/2/"))
    assert epochs == {"1", "2"}
    assert not np.array_equal(first, last)
    folders = {"gt": (2,), "epochs": (1, 2)}
    assert {name: open_bundles(load_task(cards[0]), tmp_path / name).epochs for name in folders} == folders
    done = attriboard("run", cards[0], *asked, "--groundtruth", tmp_path / "epochs", "--json")
    assert done.document["checkpoints_sha256"] == models
    assert done.document["lds"] is not None


@pytest.mark.parametrize(
    ("epochs", "message"), [(("0",), "epoch 0 of small_one: must be from 1 to 2"), (("3",), "must be from 1 to 2")]
)
def test_epochs_that_a_recipe_does_not_have_are_refused(epochs, message, attriboard, cards, tmp_path):
    attriboard("groundtruth", "build", cards[0], "--out", tmp_path / "gt")
    done = attriboard("groundtruth", "epochs", cards[0], *epochs, "--groundtruth", tmp_path / "gt", "--out", tmp_path)
    assert (done.code, message in done.err.replace("\n", " ")) == (2, True)


def test_published_models_are_never_replaced_by_those_of_other_epochs(attriboard, cards, tmp_path):
    attriboard("groundtruth", "build", cards[0], "--out", tmp_path / "gt")
    before = {path.name: path.read_bytes() for path in (tmp_path / "gt").iterdir()}
    done = attriboard(
        "groundtruth", "epochs", cards[0], "1", "--groundtruth", tmp_path / "gt", "--out", tmp_path / "gt"
    )
    assert (done.code, "is published, and is damaged or has other models" in done.err.replace("\n", " ")) == (2, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "gt").iterdir()} == before


def test_a_copy_of_the_ground_truth_replaces_no_other(attriboard, cards, tmp_path):
    attriboard("groundtruth", "build", cards[0], "--masks", 3, "--out", tmp_path / "gt")
    command = ("groundtruth", "epochs", cards[0], "1", "--groundtruth", tmp_path / "gt", "--out", tmp_path / "epochs")
    assert attriboard(*command).code == 0
    assert attriboard(*command).code == 0, "the same again"
    before = {path.name: path.read_bytes() for path in (tmp_path / "epochs").iterdir()}
    attriboard("groundtruth", "build", cards[0], "--out", tmp_path / "gt")  # extends it
    done = attriboard(*command)
    assert (done.code, "name another folder" in done.err.replace("\n", " ")) == (2, True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "epochs").iterdir()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "gpu0"), "--device gpu0: must be a device that PyTorch can use here"),
        (("--device", "cpu", "--executor", "tcp://127.0.0.1:1"), "set ATTRIBOARD_DEVICE in their environment"),
        (("--held-out", "4"), "a file of secrets is of one task"),
        (("--held-out-file", "secret.safetensors"), "is for held-out masks; say how many with --held-out"),
        (("--held-out", "4", "--masks", "8"), "--held-out is the number of masks"),
    ],
)
def test_what_cannot_be_built_trains_nothing(options, message, attriboard, cards, tmp_path):
    done = attriboard("groundtruth", "build", *cards, *options, "--out", tmp_path / "gt")
    assert (done.code, message in done.err.replace("\n", " ")) == (2, True)
    assert not (tmp_path / "cache" / "retrains").exists()


def test_held_out_masks_are_of_the_usual_question_alone(attriboard, cards, tmp_path):
    asked = ("--held-out", "4", "--question", "10pct-fresh")
    done = attriboard("groundtruth", "build", cards[0], *asked, "--out", tmp_path / "gt")
    assert (done.code, "held-out masks are random halves" in done.err.replace("\n", " ")) == (2, True)


def test_a_cluster_takes_no_notice_of_the_device_of_this_machine(attriboard, cards, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTRIBOARD_DEVICE", "cpu")
    done = attriboard("groundtruth", "build", cards[0], "--executor", "tcp://127.0.0.1:1", "--out", tmp_path / "gt")
    assert (done.code, "ATTRIBOARD_DEVICE" in done.err) == (2, False)


def test_a_misspelled_second_task_is_found_before_the_first_is_trained(attriboard, cards, tmp_path):
    done = attriboard("groundtruth", "build", cards[0], "digits_mlq", "--out", tmp_path / "gt")
    assert done.code == 2
    assert not (tmp_path / "gt").exists()


def test_a_plan_says_retrains_operations_and_hours_and_trains_nothing(attriboard, cards, tmp_path):
    done = attriboard("groundtruth", "plan", *cards, "--masks", 5, "--repeats", 2, "--json")
    assert done.code == 0
    assert [(document["task"], document["retrains"]) for document in done.document] == [
        ("small_one", 13),
        ("small_two", 13),
    ]
    assert done.document[0]["flop"] > 0
    assert not (tmp_path / "cache" / "retrains").exists()
    shown = attriboard("groundtruth", "plan", cards[0])
    assert (shown.code, "H100" in shown.out) == (0, True)
