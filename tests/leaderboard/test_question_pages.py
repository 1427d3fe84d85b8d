"""The plane of questions on the board: what is compared, what ranks, and what the pages say."""

import re
from pathlib import Path
from typing import Any

import pytest
from leaderboard_records import make_record, make_selection

from attriboard.base.errors import InputError
from attriboard.leaderboard.board import build_board
from attriboard.leaderboard.lds_table import lds_table
from attriboard.leaderboard.plots.questions import draw_questions
from attriboard.leaderboard.questions import (
    DEFAULT,
    SELECTED,
    Plane,
    correlation_table,
    matrix_table,
    method_matrix,
    picks_table,
    planes,
)
from attriboard.leaderboard.reading import read_entries
from attriboard.leaderboard.study import TaskStudy, question_of, studies
from attriboard.records.files import write_record

LEVELS = {
    "": {"iffim": 0.6, "trak": 0.4, "tracin": 0.2, "random": 0.0},
    "1pct-same": {"iffim": 0.3, "trak": 0.5, "tracin": 0.1, "random": 0.0},
    "1pct-fresh": {"iffim": 0.05, "trak": 0.04, "tracin": 0.06, "random": 0.0},
}
CEILINGS = {"": 0.9, "1pct-same": 1.0, "1pct-fresh": 0.2}


def asked(question: str) -> dict[str, Any]:
    sha256 = {"": "a", "1pct-same": "b", "1pct-fresh": "c"}[question] * 64
    return {"ground_truth__question": question, "ground_truth__sha256": sha256}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for question, levels in LEVELS.items():
        for method, level in levels.items():
            write_record(make_record(method, level, ceiling=CEILINGS[question], **asked(question)), folder)
        best = 0.01 if question == "1pct-same" else 0.1
        oracle = {"hyperparameters": {"regularization": best}, "lds": 0.52}
        write_record(make_selection("iffim", oracle=oracle, **asked(question)), folder)
    write_record(make_record("alone", 0.5, **asked("")), folder)
    return folder


@pytest.fixture(scope="module")
def study(results: Path) -> TaskStudy:
    return studies(read_entries([results]), [])["digits_mlp"]


@pytest.fixture(scope="module")
def plane(study: TaskStudy) -> Plane:
    (found,) = planes([study])
    return found


def test_records_of_other_questions_are_not_on_the_usual_leaderboard(study: TaskStudy) -> None:
    table = lds_table(study)
    assert table is not None
    shown = {row.name: row.cell("default").value for row in table.rows}
    assert shown["iffim"] == pytest.approx(0.6, abs=0.1)
    assert set(study.questions) == {"1pct-same", "1pct-fresh"}
    assert study.all_superseded == []


def test_ground_truths_stand_in_order_and_methods_that_were_graded_on_several(plane: Plane) -> None:
    assert [truth.name for truth in plane.truths] == ["1pct-same", "1pct-fresh", "50pct-fresh"]
    assert plane.methods == ["iffim", "trak", "tracin", "random"]
    assert plane.compared(SELECTED) == ["iffim", "trak", "tracin"]


def test_a_ceiling_below_three_tenths_is_shown_and_ranks_no_method(plane: Plane) -> None:
    table = matrix_table(plane, DEFAULT)
    rows = {row.name: row for row in table.rows}
    assert [truth.ranks for truth in plane.truths] == [True, False, True]
    assert rows["iffim"].cell("1pct-fresh").value == pytest.approx(0.05, abs=0.1)
    assert {row.cell("1pct-fresh").detail for row in table.rows} == {""}
    assert rows["trak"].cell("1pct-same").detail == "rank 1"
    assert rows["iffim"].cell("50pct-fresh").detail == "rank 1"
    assert rows["ceiling"].cell("1pct-fresh").text == "0.200"
    (hint,) = (column.hint for column in table.columns if column.key == "1pct-fresh")
    assert "it ranks no method" in hint


def test_rankings_are_compared_between_questions_with_intervals(plane: Plane) -> None:
    found = plane.correlations(DEFAULT)
    assert found["1pct-same", "50pct-fresh"].value == pytest.approx(0.5)  # two of three methods swap
    table = correlation_table(plane, DEFAULT)
    assert table is not None
    cell = table.rows[0].cell("50pct-fresh")
    assert cell.text == "0.50"
    assert re.fullmatch(r"−?\d\.\d\d to \d\.\d\d", cell.note)


def test_what_one_lambda_gives_away_is_said_for_every_question(plane: Plane) -> None:
    table = picks_table(plane)
    assert table is not None
    (row,) = table.rows
    assert row.cell("pick").text == "λ = 0.01"
    assert row.cell("1pct-same").text == "λ = 0.01"
    assert row.cell("50pct-fresh").text == "λ = 0.1"
    assert row.cell("50pct-fresh").note == "ξ: −0.020"


def test_a_method_has_a_small_matrix_of_its_own(plane: Plane) -> None:
    matrix = method_matrix(plane, "trak")
    assert matrix is not None
    assert [variant for variant, _ in matrix.rows] == ["default"]
    assert [cell.text != "—" for cell in matrix.rows[0][1]] == [True] * 3
    assert method_matrix(plane, "alone") is None


def test_the_figure_has_a_line_for_each_method_and_an_interval_at_each_question(plane: Plane) -> None:
    chart = draw_questions(plane, "Digits")
    rows = chart["layer"][0]["data"]["values"]
    assert len(rows) == 9
    assert all(row["low"] <= row["rank"] <= row["high"] for row in rows)
    first = {row["series"]: row["rank"] for row in rows[:3]}
    assert first == {"iffim": 2, "trak": 1, "tracin": 3}
    down = draw_questions(plane, "Digits", (186, 215), down=True)
    assert (down["width"], down["height"]) == (215, 186)
    assert down["layer"][1]["encoding"]["x"]["field"] == "rank"
    assert down["layer"][0]["data"] == chart["layer"][0]["data"]
    assert down["layer"][1]["encoding"]["y"]["scale"]["domain"] == [2.5, -0.5], "the first question on top"
    alone = Plane(plane.task, plane.truths[:0])
    with pytest.raises(InputError, match="at least two methods"):
        draw_questions(alone, "Digits")


def test_the_pages_show_it(results: Path, tmp_path: Path) -> None:
    build_board([results], tmp_path)
    page = (tmp_path / "questions.html").read_text(encoding="utf-8")
    assert "Which question are you asking?" in page
    assert "Do two questions rank alike on digits_mlp?" in page
    assert page.count("rank 1") >= 2
    method = (tmp_path / "attributors" / "trak.html").read_text(encoding="utf-8")
    assert "Which question?" in method
    assert "ranks nothing" in method
    assert "Which question?" not in (tmp_path / "attributors" / "alone.html").read_text(encoding="utf-8")
    entries = [entry for entry in read_entries([results]) if question_of(entry.record) == "1pct-fresh"]
    text = (tmp_path / "records" / f"{entries[0].id}.html").read_text(encoding="utf-8")
    assert "Question: 1 % removed, fresh seeds" in text


def test_without_other_questions_the_page_says_how_to_ask_one(tmp_path: Path) -> None:
    write_record(make_record("iffim"), tmp_path / "results")
    build_board([tmp_path / "results"], tmp_path / "site")
    page = (tmp_path / "site" / "questions.html").read_text(encoding="utf-8")
    assert "attriboard select digits_mlp iffim --question all" in page
