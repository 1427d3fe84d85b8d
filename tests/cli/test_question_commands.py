"""`--question` of run, score, select and groundtruth, and `report questions`, on the embedded digits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leaderboard_records import make_record
from safetensors.numpy import save_file
from selecting import few_resamples, run_inline

from attriboard.records.files import read_records, write_record

Attriboard = Callable[..., Any]


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    run_inline(monkeypatch)
    few_resamples(monkeypatch)


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    path = tmp_path / "mine.safetensors"
    save_file({"scores": np.random.default_rng(0).standard_normal((500, 1297)).astype(np.float32)}, path)
    return path


def test_score_grades_on_every_question_that_is_asked(attriboard: Attriboard, scores: Path, tmp_path: Path) -> None:
    asked = ("--question", "1pct-same", "--question", "50pct-fresh", "--question", "1pct-fresh")
    done = attriboard("score", "digits_mlp", scores, *asked, "--out", tmp_path / "out", "--json")
    assert [d["ground_truth"]["question"] for d in done.document] == ["1pct-same", "", "1pct-fresh"]
    assert done.document[0]["ceiling"] == 1.0
    assert len(read_records(tmp_path / "out")) == 3
    shown = attriboard("score", "digits_mlp", scores, *asked, "--out", tmp_path / "out").out
    assert "mine on digits_mlp, 1 % removed, same seed: LDS" in shown
    assert "a ceiling below 0.3: mostly noise of single retrains; it ranks no method" in shown


def test_one_question_is_one_document(attriboard: Attriboard, scores: Path, tmp_path: Path) -> None:
    done = attriboard("score", "digits_mlp", scores, "--question", "10pct-same", "--out", tmp_path, "--json")
    assert done.document["ground_truth"]["n_masks"] == 100


@pytest.mark.parametrize(
    ("question", "message"),
    [("half", "question half: must be Npct-same"), ("7pct-same", "build it: attriboard groundtruth build digits_mlp")],
)
def test_a_question_without_ground_truth_says_how_to_build_it(
    attriboard: Attriboard, scores: Path, question: str, message: str
) -> None:
    done = attriboard("score", "digits_mlp", scores, "--question", question)
    assert done.code == 2
    assert message in done.err.replace("\n", " ")


def test_info_and_list_name_the_questions(attriboard: Attriboard) -> None:
    documents = attriboard("groundtruth", "info", "digits_mlp", "--question", "all", "--json").document
    assert [d["question"] for d in documents][:2] == ["50pct-fresh", "one-same"]
    assert len(documents) == 7
    shown = attriboard("groundtruth", "info", "digits_mlp", "--question", "1pct-same").out
    assert "1.000, because retrains with the same seed repeat" in shown
    entries = attriboard("groundtruth", "list", "--json").document
    assert {e.get("question", "") for e in entries if e["task"] == "digits_mlp"} >= {"", "1pct-same", "10pct-fresh"}


def test_pull_takes_the_usual_ground_truth_and_those_that_are_asked_for(attriboard: Attriboard, tmp_path: Path) -> None:
    truth = ("--kind", "groundtruth", "--json")
    usual = attriboard("groundtruth", "pull", "digits_mlp", *truth).document
    assert [d.get("question", "") for d in usual] == [""]
    asked = attriboard("groundtruth", "pull", "digits_mlp", "--question", "1pct-same", "--out", tmp_path, *truth)
    (found,) = asked.document
    assert Path(found["path"]) == tmp_path / "digits_mlp-groundtruth-1pct-same.safetensors"
    missing = attriboard("groundtruth", "pull", "digits_mlp", "--question", "7pct-same")
    assert missing.code == 2
    assert "lists nothing of question 7pct-same for digits_mlp" in missing.err.replace("\n", " ")


def test_a_budget_and_a_question_exclude_each_other(attriboard: Attriboard) -> None:
    done = attriboard("select", "digits_mlp", "iffim", "--budget", "4", "--question", "1pct-same")
    assert done.code == 2
    assert "a budget trains models of its own" in done.err.replace("\n", " ")


def test_report_questions_prints_the_matrix_and_draws_it(attriboard: Attriboard, tmp_path: Path) -> None:
    results = tmp_path / "results"
    for question, sha256, levels in (("", "91", (0.6, 0.4, 0.2)), ("1pct-same", "bb", (0.2, 0.5, 0.3))):
        for method, level in zip(("iffim", "trak", "tracin"), levels, strict=True):
            truth = {"ground_truth__question": question, "ground_truth__sha256": sha256 * 32}
            write_record(make_record(method, level, **truth), results)
    empty = tmp_path / "bundles"
    empty.mkdir()
    options = ("--results", results, "--groundtruth", empty, "--out", tmp_path / "report")
    document = attriboard("report", "questions", "digits_mlp", *options, "--json").document
    assert [truth["question"] for truth in document["questions"]] == ["1pct-same", "50pct-fresh"]
    assert document["selected"]["trak"]["1pct-same"]["detail"] == "rank 1"
    assert document["agreement"]["1pct-same"]["50pct-fresh"]["value"] == pytest.approx(-0.5)
    assert Path(document["figure"]).is_file()
    shown = attriboard("report", "questions", "digits_mlp", *options).out
    assert "Do two questions rank alike on digits_mlp?" in shown
    alone = attriboard("report", "questions", "mnist_lr", *options)
    assert alone.code == 2
    assert "--question all" in alone.err
    assert json.dumps(document)
