"""Cards with your own data and model: npz files, Hugging Face data sets, functions beside the card, more kinds."""

import hashlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import yaml

from attriboard.base.digests import digest_file
from attriboard.base.errors import CardError, DataError, InputError
from attriboard.contracts.task import Task, TaskSpec
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.identity import check_identity
from attriboard.retraining.engine import retrain

X = np.random.default_rng(0).normal(size=(24, 3)).astype("f4")
LABELS = (X[:, :2] > 0).astype("i8")
TARGETS = {
    "regression": X[:, 0] - X[:, 1],
    "binary": LABELS[:, 0],
    "multilabel": LABELS,
    "classification": LABELS[:, 0],
}
MODEL = """
from torch import nn

def build(hidden, n_outputs=1):
    return nn.Sequential(nn.Linear(3, hidden), nn.{activation}(), nn.Linear(hidden, n_outputs))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("ATTRIBOARD_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.delenv("ATTRIBOARD_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def write(folder: Path, kind: str = "regression", data: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A card with an npz file and a module beside it."""
    module = f"parts_of_{hashlib.md5(str(folder).encode(), usedforsecurity=False).hexdigest()}"  # one for each test
    (folder / f"{module}.py").write_text(MODEL.replace("{activation}", changes.pop("activation", "Tanh")))
    y = TARGETS[kind]
    np.savez(folder / "data.npz", train_inputs=X[:16], train_targets=y[:16], test_inputs=X[16:], test_targets=y[16:])
    n_outputs = 1 if kind in ("regression", "binary") else 2
    card = {
        "name": "mine",
        "title": "Mine",
        "description": "From a card.",
        "licence": "my own",
        "kind": kind,
        "target": "negative_loss",
        "data": data
        or {
            "dataset": "npz",
            "n_train": 16,
            "n_test": 8,
            "options": {"file": "data.npz"},
            "sha256": {"file": digest_file(folder / "data.npz")},
        },
        "model": {"architecture": f"{module}:build", "options": {"hidden": 4, "n_outputs": n_outputs}},
        "recipe": {"optimizer": "sgd", "learning_rate": 0.1, "epochs": 2, "batch_size": 5},
        "checkpoints": {"full": 2, "half": 1, "epochs": [2]},
    }
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(card | changes))
    return path


@pytest.mark.parametrize("kind", TARGETS)
def test_a_card_of_each_kind_is_trained_and_measured(kind: str, tmp_path: Path) -> None:
    task = load_task(write(tmp_path, kind))
    data = task.load_data()
    np.testing.assert_array_equal(data.test.inputs.numpy(), X[16:])
    outputs = torch.randn(8, *task.build_model()(data.test.inputs).shape[1:], dtype=torch.float64)
    y = torch.from_numpy(TARGETS[kind][16:]).double()
    binary = torch.nn.functional.binary_cross_entropy_with_logits
    expected = {
        "regression": lambda: (outputs[:, 0] - y) ** 2,
        "binary": lambda: binary(outputs[:, 0], y, reduction="none"),
        "multilabel": lambda: binary(outputs, y, reduction="none").mean(1),
        "classification": lambda: torch.nn.functional.cross_entropy(outputs, y.long(), reduction="none"),
    }[kind]()
    torch.testing.assert_close(task.loss(outputs, data.test.targets), expected)
    margin = task.margin(outputs, data.test.targets)
    if kind in ("regression", "multilabel"):
        torch.testing.assert_close(margin, -expected)
        assert task.error(outputs, data.test.targets).tolist() == [1] * 8
    else:
        p = (-expected).exp()
        torch.testing.assert_close(margin, p.log() - (1 - p).log())
        torch.testing.assert_close(task.error(outputs, data.test.targets), 1 - p)
    measured = task.measure(outputs, data.test.targets)
    assert set(measured) == set(task.measurements)
    assert ("correct" in measured) == (kind in ("binary", "classification"))


def trained(task: Task, folder: Path) -> int:
    from attriboard.groundtruth.plan import truth_requests
    from attriboard.retraining.executors import LocalProcesses
    from attriboard.retraining.store import RetrainStore

    return retrain(
        task, truth_requests(task.card, 3, 1), RetrainStore(folder, task.card.fingerprint), LocalProcesses(1)
    )


def test_data_and_model_beside_a_card_are_found_in_other_processes(tmp_path: Path, monkeypatch: Any) -> None:
    task = load_task(write(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    spec = TaskSpec.model_validate_json(TaskSpec.of(task).model_dump_json())
    assert spec.load().load_data().train.inputs.equal(task.load_data().train.inputs)
    assert trained(task, tmp_path / "store") == 3


def huggingface(folder: Path, **options: Any) -> dict[str, Any]:
    """The data of a card on two parquet files in a folder."""
    (folder / "table").mkdir(exist_ok=True)
    for split, rows in (("train", slice(0, 16)), ("test", slice(16, 24))):
        columns = {"features": X[rows].tolist(), "first": X[rows, 0].tolist(), "second": X[rows, 1].tolist()}
        columns |= {"answer": TARGETS["regression"][rows].tolist(), "text": ["a"] * len(X[rows])}
        datasets.Dataset.from_dict(columns).to_parquet(str(folder / "table" / f"{split}-0.parquet"))
    given = {"name": "table", "inputs": "features", "targets": "answer"} | options
    names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return {
        "dataset": "huggingface",
        "n_train": 16,
        "n_test": 8,
        "options": given,
        "sha256": dict.fromkeys(names),
    }


def test_a_hugging_face_folder_is_pinned_by_what_it_has(tmp_path: Path) -> None:
    data = huggingface(tmp_path)
    with pytest.raises(DataError, match=r"nothing pins this data; write sha256: \{train_inputs: [0-9a-f]{64}") as told:
        load_task(write(tmp_path, data=data)).load_data()
    data["sha256"] = yaml.safe_load(str(told.value).partition("write sha256: ")[2])
    task = load_task(write(tmp_path, data=data))
    assert task.data_available()
    np.testing.assert_allclose(task.load_data().train.inputs.numpy(), X[:16])
    np.testing.assert_allclose(task.load_data().test.targets.numpy(), TARGETS["regression"][16:])
    other = data | {"sha256": data["sha256"] | {"test_targets": "0" * 64}}
    with pytest.raises(DataError, match=r"data.sha256.test_targets: the data has"):
        load_task(write(tmp_path, data=other)).load_data()


def test_columns_side_by_side_are_one_input(tmp_path: Path) -> None:
    data = huggingface(tmp_path, inputs="first, second")
    with pytest.raises(DataError) as told:
        load_task(write(tmp_path, data=data)).load_data()
    data["sha256"] = yaml.safe_load(str(told.value).partition("write sha256: ")[2])
    np.testing.assert_allclose(load_task(write(tmp_path, data=data)).load_data().train.inputs.numpy(), X[:16, :2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "nothing"}, "there is no column nothing; there are features, first"),
        ({"inputs": "text"}, "column text has .*, not numbers of one shape; encode it first"),
        ({"train_split": "validation"}, "cannot read split validation"),
    ],
)
def test_columns_and_splits_that_there_are_not_are_named(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_task(write(tmp_path, data=huggingface(tmp_path, **options))).load_data()


def test_what_is_wrong_in_a_card_is_one_line(tmp_path: Path) -> None:
    for changes, message in (
        ({"target": "margin"}, "kind regression has no margin; use negative_loss"),
        ({"model": {"architecture": "nowhere.at_all:build"}}, "raised ModuleNotFoundError.*beside the card"),
        ({"model": {"architecture": "json:loads", "options": {"s": "3"}}}, r"returned int; it must return a torch\.nn"),
        ({"model": {"architecture": "json:loads", "options": {"x": 3}}}, "calling it with x = 3 raised TypeError"),
        ({"model": {"architecture": "a b:c"}}, "model.architecture"),
        (
            {"data": huggingface(tmp_path, name="someone/table")},
            "data.options.revision = '': give the full commit hash",
        ),
        ({"data": huggingface(tmp_path) | {"sha256": {}}}, "data.sha256 names"),
    ):
        with pytest.raises((CardError, InputError), match=message) as caught:
            load_task(write(tmp_path, **changes)).build_model()
        assert "\n" not in str(caught.value)


def test_a_file_that_changed_is_noticed(tmp_path: Path) -> None:
    task = load_task(write(tmp_path))
    np.savez(tmp_path / "data.npz", train_inputs=X)
    with pytest.raises(DataError, match=r"data.sha256.file: the data has .*, the card pins"):
        task.load_data()
    (tmp_path / "data.npz").unlink()
    assert not task.data_available()
    with pytest.raises(DataError, match=r"there is no .*the path is relative to the card"):
        task.load_data()


def test_another_model_under_the_same_card_never_gets_the_old_retrains(tmp_path: Path) -> None:
    task = load_task(write(tmp_path))
    check_identity(task, tmp_path / "store")
    check_identity(task, tmp_path / "store")
    module = task.card.model.architecture.partition(":")[0]
    import sys

    del sys.modules[module]
    changed = load_task(write(tmp_path, activation="ReLU6"))
    assert changed.card.fingerprint == task.card.fingerprint
    with pytest.raises(InputError, match=r"outputs on training examples was .* and is .* now"):
        check_identity(changed, tmp_path / "store")
