"""One run graded on the ground truths of several questions, against a NumPy loop."""

from pathlib import Path

import numpy as np
import pytest
from selecting import brute_lds, calls, make_job, write_ridge
from tiny import Published

import attriboard as ab
from attriboard.base.errors import InputError
from attriboard.contracts.question import Question
from attriboard.evaluation.catalog import load_oracle
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.selection import study_selections
from attriboard.groundtruth.build import build_ground_truth, open_store
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.records.model import AttributionRecord

pytestmark = pytest.mark.usefixtures("inline")
ASKED = ("one-same", "10pct-same", "10pct-fresh")


@pytest.fixture(scope="module")
def graders(published: Published, grader: Grader, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Grader]:
    folder = tmp_path_factory.mktemp("questions")
    found = {"": grader}
    for name in ASKED:
        path, store = folder / f"{name}.safetensors", open_store(published.task, published.store)
        build_ground_truth(published.task, path, store, question=Question.parse(name), n_masks=12)
        found[name] = Grader(read_ground_truth(path))
    return found


@pytest.mark.parametrize("name", ASKED)
def test_the_lds_of_a_question_is_that_of_a_loop(name: str, graders: dict[str, Grader]) -> None:
    truth = graders[name].truth
    scores = np.random.default_rng(0).standard_normal((truth.card.n_test, truth.masks.shape[1])).astype(np.float32)
    expected = brute_lds(scores, truth.masks, truth.target, truth.scoring)
    assert graders[name].grade(graders[name].predict(scores)).mean == pytest.approx(expected, abs=1e-12)


def test_leave_one_out_correlates_scores_with_what_leaving_each_example_out_takes_away(
    graders: dict[str, Grader],
) -> None:
    from scipy.stats import spearmanr

    truth = graders["one-same"].truth
    scores = np.random.default_rng(1).standard_normal((truth.card.n_test, truth.masks.shape[1])).astype(np.float32)
    left_out = (~truth.masks).argmax(axis=1)
    each = [spearmanr(scores[p, left_out], -truth.target[:, 0, p]).statistic for p in truth.scoring]
    assert graders["one-same"].grade(graders["one-same"].predict(scores)).mean == pytest.approx(np.mean(each))


def test_one_run_is_graded_on_every_ground_truth_and_xi_picks_the_same_everywhere(
    published: Published, graders: dict[str, Grader]
) -> None:
    job = make_job(published, "iffim", selectors=("surrogate",))
    found = study_selections(published.task, list(graders.values()), job, load_oracle(), candidates=(1e-4, 1e-2, 1.0))
    picks = set()
    for (name, grader), study in zip(graders.items(), found, strict=True):
        (selection,) = study.selections
        assert selection.selected is not None
        picks.add(selection.selected.hyperparameters["regularization"])
        assert {record.ground_truth.question for record in study.all_records} == {name}
        assert {record.ground_truth.sha256 for record in study.all_records} == {grader.truth.sha256}
        by_lambda = {r.hyperparameters["regularization"]: r for r in study.records}
        assert any(record.variant == "sweep" for record in study.records) == (name == "")
        best = next(record for record in study.records if record.variant == "oracle")
        assert best.calibration == max(record.calibration or -1 for record in by_lambda.values())
    assert len(picks) == 1


def test_several_ground_truths_take_no_second_run(
    published: Published, graders: dict[str, Grader], tmp_path: Path
) -> None:
    job = make_job(published, write_ridge(tmp_path), {"regularization": 0.1}, selectors=())
    study_selections(published.task, list(graders.values()), job, load_oracle())
    assert len(calls(tmp_path, "fit")) == 1


def test_a_question_is_a_field_that_old_records_do_not_have(published: Published, graders: dict[str, Grader]) -> None:
    scores = np.random.default_rng(0).standard_normal(published.task.score_shape).astype(np.float32)
    usual, other = (graders[name].record_of_scores(published.task, scores, "mine") for name in ("", "10pct-same"))
    assert "question" not in usual.to_json()["ground_truth"]
    assert other.to_json()["ground_truth"]["question"] == "10pct-same"
    assert AttributionRecord.model_validate(other.to_json()).id == other.id
    assert other.ceiling == 1.0


def test_python_names_the_question(published: Published, graders: dict[str, Grader]) -> None:
    task, truth = published.task, graders["10pct-same"].truth
    scores = np.random.default_rng(0).standard_normal(task.score_shape).astype(np.float32)
    assert (
        ab.lds(scores, task, groundtruth=truth, question="10pct-same").mean
        == ab.lds(scores, task, groundtruth=truth).mean
    )
    with pytest.raises(InputError, match="question = 1pct-same: the ground truth that is given asks 10pct-same"):
        ab.lds(scores, task, groundtruth=truth, question="1pct-same")


def test_python_builds_and_finds_the_ground_truth_of_a_question(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path))
    task = published.task
    built = ab.build_ground_truth(task, question="10pct-same", masks=5, workers=1, quiet=True)
    assert built.question == Question.parse("10pct-same")
    assert ab.load_ground_truth(task, question="10pct-same").sha256 == built.sha256
    scores = np.random.default_rng(0).standard_normal(task.score_shape).astype(np.float32)
    assert ab.lds(scores, task, question="10pct-same").n_scoring == len(built.scoring)
