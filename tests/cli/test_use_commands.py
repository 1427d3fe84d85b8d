"""`attriboard brittleness` and `attriboard mislabel` on the embedded digits: documents, tables, figures, exit codes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selecting import calls, retrain_inline, run_inline, write_ridge
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.records.files import read_records
from attriboard.records.uses import BrittlenessRecord, MislabelRecord

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    retrain_inline(monkeypatch)
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))

    def invoke(*arguments: object, code: int = 0) -> Result:
        words = [*map(str, arguments), "--threads", "1", "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def document(run: Run, *arguments: object, **more: Any) -> Any:
    return json.loads(run(*arguments, "--json", **more).stdout)


def test_brittleness_prints_one_document_and_goes_on_from_its_records(run: Run, tmp_path: Path) -> None:
    words = ("brittleness", "digits_mlp", "grad_dot", "random", "--points", 2, "--seeds", 1, "--confirm", 2)
    found = document(run, *words)
    assert [(row["attributor"]["name"], row["variant"]) for row in found["rows"]] == [
        ("grad_dot", "default"),
        ("random", "default"),
    ]
    for row in found["rows"]:
        assert row["n_eligible"] > 300
        assert (row["sizes"][0], row["sizes"][-1]) == (1, 648)
        assert (row["status"], len(row["points"])) == ("ok", 2)
    assert Path(found["figure"]).is_file()
    records = read_records(tmp_path / "out")
    assert [type(record) for record in records] == [BrittlenessRecord] * 2
    assert [record.model_dump(mode="json") for record in records] == found["rows"]
    again = document(run, *words)
    assert again["rows"] == found["rows"]
    assert again["retrains"]["done"] == 0
    text = run(*words).stdout
    assert re.search(r"grad_dot\s+│ default\s+│\s+[>\d]", text)
    assert "flipped within 648" in text


@pytest.mark.parametrize(
    "words",
    [
        ("mislabel", "digits_mlp_flipped", "--by", "summed"),
        ("brittleness", "digits_mlp", "--points", 1, "--seeds", 1, "--confirm", 0),
    ],
    ids=["without ground truth", "with it"],
)
def test_what_could_not_be_chosen_is_a_failed_record_and_is_not_run(
    run: Run, tmp_path: Path, words: tuple[object, ...]
) -> None:
    path = write_ridge(tmp_path, grid=())
    command, task, *options = words
    found = document(run, command, task, path, *options, "--variant", "selected")
    ((status, reason),) = [(row["status"], row["reason"]) for row in found["rows"]]
    assert status == "failed"
    assert reason == "not_applicable: regularization: its grid has no positive number to choose from; add some"
    assert calls(tmp_path, "") == []


def test_mislabel_prints_one_document_and_goes_on_from_its_records(run: Run, tmp_path: Path) -> None:
    path = write_ridge(tmp_path, broken=(0.0,))
    found = document(run, "mislabel", "digits_mlp_flipped", path, "random", "--by", "summed")
    assert {(row["task"]["name"], row["by"], row["n_mislabelled"]) for row in found["rows"]} == {
        ("digits_mlp_flipped", "summed", 130)
    }
    keys = [(row["attributor"]["name"], row["variant"], row["status"]) for row in found["rows"]]
    assert keys == [("ridge", "default", "failed"), ("ridge", "selected", "ok"), ("random", "default", "ok")]
    (row,) = found["rows"][2:]
    assert row["ci95"][0] < 0.5 < row["ci95"][1] or abs(row["auc"] - 0.5) < 0.1
    assert len(row["recall"]) > 5
    assert Path(found["figure"]).is_file()
    before = len(calls(tmp_path, ""))
    assert document(run, "mislabel", "digits_mlp_flipped", path, "random", "--by", "summed")["rows"] == found["rows"]
    kinds = {type(record) for record in read_records(tmp_path / "out")}
    assert kinds == {MislabelRecord}
    assert len(calls(tmp_path, "score")) - before <= 1, "finished rows are not scored again"
    assert (
        "130 wrong labels, by summed influence"
        in run("mislabel", "digits_mlp_flipped", "random", "--by", "summed").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("brittleness", "digits_mlp", "iffim", "--seeds", "4"), "an odd number of seeds"),
        (("brittleness", "digits_mlp", "iffim", "--largest", "1.5"), "largest = 1.5: must lie in (0, 1)"),
        (("brittleness", "digits_mlp", "iffim", "--variant", "best"), "--variant best: must be among"),
        (("brittleness", "digits_mlp", "random", "iffimm"), "did you mean iffim"),
        (("mislabel", "digits_mlp_flipped", "iffim", "--variant", "oracle"), "must be among default, selected"),
        (("mislabel", "digits_mlp", "iffim"), "has no wrong labels to detect"),
        (("mislabel", "digits_mlp_flipped", "iffim", "--by", "guess"), "--by guess: must be self or summed"),
        (("mislabel", "digits_mlp_flipped", "iffimm"), "did you mean iffim"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    assert message in document(run, *arguments, code=2)["error"]
