"""Mislabel detection on a tiny task with wrong labels: self-influence through the attributor's own process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selecting
import torch
from selecting import make_job, write
from tiny import N_TRAIN, Published, TinyTask, tiny_card, tiny_task

from attriboard.base.errors import InputError
from attriboard.contracts.task import Dataset, Examples, TaskSpec
from attriboard.evaluation.mislabel import MislabelBench
from attriboard.evaluation.variants import Part, attribute_parts
from attriboard.leaderboard.plots.uses import draw_recall
from attriboard.records.files import read_record, write_record
from attriboard.scoring.mislabel import detect

pytestmark = pytest.mark.usefixtures("inline")
WRONG = torch.arange(N_TRAIN) % 9 == 0

# It knows which labels are wrong, and says so in its own way.
KNOWING = """
import torch
from attriboard import Attributor


class Knowing(Attributor):
    name = "knowing"

    def fit(self, context):
        assert len(context.test) == {n_test}, len(context.test)
        return torch.arange(len(context.train)) % 9 == 0

    def score(self, state):
        scores = torch.zeros({n_test}, len(state))
        {fill}
        return scores
"""


class FlippedTinyTask(TinyTask):
    """The tiny task with every ninth label wrong."""

    def load_data(self) -> Dataset:
        data = super().load_data()
        targets = torch.where(WRONG, (data.train.targets + 1) % 3, data.train.targets)
        return Dataset(Examples(data.train.inputs, targets), data.test, WRONG)


@pytest.fixture(scope="module")
def flipped(tmp_path_factory: pytest.TempPathFactory) -> Published:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(selecting, "tiny_task", lambda **changes: FlippedTinyTask(tiny_card(**changes)))
        return selecting.publish(tmp_path_factory.mktemp("published"))


def record_of(flipped: Published, attributor: str | Path, by: Any) -> Any:
    bench = MislabelBench(flipped.task, None, by)
    job = make_job(flipped, attributor).model_copy(update={"task": TaskSpec.of(flipped.task)})
    (attributed,) = attribute_parts(bench.question(job), [Part("default", None, {})], bench.detect)
    return bench, bench.record(attributed)


def test_self_influence_attributes_training_examples_to_themselves(flipped: Published, tmp_path: Path) -> None:
    fill = "scores[range(len(state)), range(len(state))] = state.float()"
    path = write(tmp_path / "knowing.py", KNOWING.format(n_test=N_TRAIN, fill=fill))
    bench, record = record_of(flipped, path, "self")
    assert (record.auc, record.average_precision, record.n_mislabelled) == (1.0, 1.0, 5)
    assert record.ground_truth is None
    assert bench.answers(record)
    assert not MislabelBench(flipped.task, None, "summed").answers(record)
    assert read_record(write_record(record, tmp_path / "out")) == record
    assert any("AUC 1.000" in row["series"] for row in draw_recall([record])["layer"][0]["data"]["values"])


def test_summed_influence_finds_what_harms_the_calibration_points(flipped: Published, tmp_path: Path) -> None:
    path = write(tmp_path / "knowing.py", KNOWING.format(n_test=13, fill="scores[:, state] = -1.0"))
    _, record = record_of(flipped, path, "summed")
    assert (record.auc, record.by) == (1.0, "summed")


def test_a_real_method_is_graded_by_its_diagonal(flipped: Published) -> None:
    _, record = record_of(flipped, "grad_dot", "self")
    job = make_job(flipped, "grad_dot").model_copy(update={"task": TaskSpec.of(flipped.task), "queries": "train"})
    kept: list[np.ndarray] = []
    list(attribute_parts(job, [Part("default", None, {})], lambda scores: kept.append(scores.copy())))
    assert kept[0].shape == (N_TRAIN, N_TRAIN)
    assert record.auc == detect(np.diagonal(kept[0]).astype(float), WRONG.numpy()).auc
    assert record.auc > 0.5


def test_nan_everywhere_is_a_failed_record(flipped: Published, tmp_path: Path) -> None:
    fill = "scores[range(len(state)), range(len(state))] = float('nan'); scores[0] = 0.0; scores[0, 0] = float('nan')"
    path = write(tmp_path / "knowing.py", KNOWING.format(n_test=N_TRAIN, fill=fill))
    _, record = record_of(flipped, path, "self")
    assert (record.status, record.auc, record.recall) == ("failed", None, None)
    assert record.reason.startswith("nan: ")


def test_a_task_without_wrong_labels_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"data\.options\.flipped, as in digits_mlp_flipped"):
        MislabelBench(tiny_task(), None, "self")
