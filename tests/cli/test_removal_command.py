"""`attriboard removal` on the embedded digits: documents, table, LaTeX, figure, resumption, exit codes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selecting import few_resamples, retrain_inline, run_inline, write_ridge
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.records.files import read_records
from attriboard.records.uses import RemovalRecord

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    retrain_inline(monkeypatch)
    few_resamples(monkeypatch)

    def invoke(*arguments: object, code: int = 0) -> Result:
        words = ["removal", "digits_mlp", *map(str, arguments), "--store", str(tmp_path / "store")]
        result = CliRunner().invoke(app, [*words, "--threads", "1", "--out", str(tmp_path / "out")])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def document(run: Run, *arguments: object, **more: Any) -> Any:
    return json.loads(run(*arguments, "--json", **more).stdout)


def test_rows_of_full_random_default_selected_and_oracle_and_a_second_run_from_records(
    run: Run, tmp_path: Path
) -> None:
    arguments = ("iffim", "random", "--rates", "0.1", ".5", "--seeds", 2)
    found = document(run, *arguments)
    assert set(found) >= {"task", "rows"}
    rows = found["rows"]
    keys = [(row["attributor"], row["variant"], row["rate"]) for row in rows]
    assert keys[:3] == [(None, "full", 0.0), (None, "random", 0.1), (None, "random", 0.5)]
    assert keys[3:] == [
        (name, variant, rate)
        for name, variants in (("iffim", ("default", "selected", "oracle")), ("random", ("default",)))
        for variant in variants
        for rate in (0.1, 0.5)
    ]
    for row in rows:
        assert row.keys() >= {"attributor", "variant", "rate", "accuracy", "n_seeds"}
        assert (row["n_seeds"], row["status"]) == (2, "ok")
        assert 0.5 < row["accuracy"]["mean"] <= 1
        assert row["accuracy"]["stderr"] >= 0
        assert row["perplexity"] is None
    by_key = dict(zip(keys, rows, strict=True))
    assert by_key["iffim", "selected", 0.5]["accuracy"]["mean"] < by_key["iffim", "default", 0.5]["accuracy"]["mean"]
    assert by_key["iffim", "selected", 0.5]["against_default"]["mean"] < 0
    # Selected and oracle agree on λ.
    asked, done = found["retrains"]["asked"], found["retrains"]["done"]
    assert asked == done == 2 + 4 + 3 * 4
    assert Path(found["figure"]).is_file()
    assert r"iffim & selected & $" in Path(found["latex"]).read_text(encoding="utf-8")
    # Beside them are the records of the selection, unless the published ones are of the same code.
    records = read_records(tmp_path / "out")
    assert sum(isinstance(record, RemovalRecord) for record in records) == 4

    again = document(run, *arguments)
    assert again["rows"] == rows
    assert again["retrains"]["done"] == 0
    assert read_records(tmp_path / "out") == records


def test_table_in_words_with_failures_balanced_and_harmful(run: Run, tmp_path: Path) -> None:
    path = write_ridge(tmp_path, broken=(0.0,))
    result = run(path, "random", "--rates", "0.2", "--seeds", 1, "--variant", "default", "--balanced",
                 "--direction", "harmful")  # fmt: skip
    assert "harmful examples removed, 1 seeds" in result.stdout
    assert re.search(r"ridge\s+│ default\s+│\s+failed: error: ZeroDivisionError: singular", result.stdout)
    assert re.search(r"random\s+│ default\s+│\s+\d\d\.\d\d %", result.stdout)
    assert "retrains needed" in result.stdout
    assert (tmp_path / "out" / "digits_mlp" / "removal-harmful-balanced.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("iffim", "--rates", "1.5"), "--rates 1.5: must be numbers between 0 and 1"),
        (("iffim", "--rates", "x"), "--rates x: must be numbers between 0 and 1"),
        (("iffim", "0.5"), "0.5: is not a method; rates follow --rates"),
        (("--rates", "0.5"), "METHOD: name at least one"),
        (("iffim", "--rates", "0.0001"), "rate = 0.0001: must lie in (0, 1) and remove 1 to 1296"),
        (("iffim", "--direction", "up"), "--direction up: must be helpful or harmful"),
        (("iffim", "--variant", "best"), "--variant best: must be among default, selected, oracle"),
        (("iffimm",), "did you mean iffim"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    found = document(run, *arguments, code=2) if arguments[0] != "--rates" else None
    if found is None:
        result = run("0.1", *arguments, "--json", code=2)
        found = json.loads(result.stdout)
    assert message in found["error"]
