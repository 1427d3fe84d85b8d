"""`attriboard sweep … --metric removal` on the embedded digits: both curves, records of either kind, one fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selecting import calls, few_resamples, retrain_inline, run_inline, write_ridge
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.records.files import read_records
from attriboard.records.model import AttributionRecord
from attriboard.records.uses import RemovalRecord

Run = Callable[..., Result]
REMOVAL = ("--metric", "removal", "--seeds", "2")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    retrain_inline(monkeypatch)
    few_resamples(monkeypatch)

    def invoke(*arguments: object, code: int = 0) -> Result:
        words = ["sweep", "digits_mlp", *map(str, arguments), "--threads", "1", "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, [*words, "--store", str(tmp_path / "store")])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def sweep(run: Run, *arguments: object, **more: Any) -> Any:
    return json.loads(run(*arguments, "--json", **more).stdout)


def test_both_metrics_come_from_one_fit_and_a_second_sweep_from_records(run: Run, tmp_path: Path) -> None:
    path = write_ridge(tmp_path, broken=(0.1,))
    found = sweep(run, path, "--grid", "regularization=0.01,0.1,1", *REMOVAL)
    assert len(calls(tmp_path, "fit")) == 1
    assert found["retrains"]["done"] == 8
    first, broken, last = found["points"]
    for point in (first, last):
        assert -1 < point["lds"]["mean"] < 1
        (removed,) = point["removal"]["points"]
        assert removed["rate"] == 0.5
        assert len(removed["measured"]["correct"]) == 2
        assert all(0.5 < accuracy < 1 for accuracy in removed["measured"]["correct"])
    assert (broken["status"], broken["removal"]["status"]) == ("failed", "failed")
    assert broken["removal"]["points"] == []
    svg = Path(found["figure"]).with_suffix(".svg").read_text(encoding="utf-8")
    for text in ("LDS", "with 50 % removed", "selected (ξ) = ", "default = 0", "mean ξ"):
        assert text in svg

    records = read_records(tmp_path / "out")
    assert [sum(isinstance(r, kind) for r in records) for kind in (AttributionRecord, RemovalRecord)] == [3, 3]
    again = sweep(run, path, "--grid", "regularization=0.01,0.1,1", *REMOVAL)
    assert again["points"] == found["points"]
    assert (again["retrains"]["done"], len(calls(tmp_path, "fit"))) == (0, 1)

    wider = sweep(run, path, "--grid", "regularization=0.01,10", *REMOVAL)
    assert wider["points"][0] == first
    assert wider["retrains"]["done"] == 2


def test_lds_records_of_an_earlier_sweep_are_kept_and_only_removal_is_added(run: Run, tmp_path: Path) -> None:
    path = write_ridge(tmp_path)
    grid = ("--grid", "regularization=0.01,1")
    plain = json.loads(run(path, *grid, "--json").stdout)
    both = sweep(run, path, *grid, *REMOVAL)
    assert [p["lds"] for p in both["points"]] == [p["lds"] for p in plain["points"]]
    assert all(p["removal"]["status"] == "ok" for p in both["points"])
    assert len(calls(tmp_path, "fit")) == 2


def test_table_in_words(run: Run, tmp_path: Path) -> None:
    result = run(write_ridge(tmp_path), "--grid", "regularization=0.01,1", "--rate", "0.2", *REMOVAL)
    assert "accuracy with 20 % removed" in result.stdout
    assert "retrains needed, 8 trained" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "both"), "--metric both: must be lds or removal"),
        (("--rate", "0.5"), "--rate 0.5: goes with --metric removal; add that, or leave --rate out"),
        (("--metric", "removal", "--rate", "1.5"), "rate = 1.5: must lie in (0, 1)"),
        (("--metric", "removal", "--direction", "up"), "--direction up: must be helpful or harmful"),
    ],
)
def test_bad_input_ends_with_code_2(run: Run, arguments: tuple[str, ...], message: str) -> None:
    assert message in sweep(run, "iffim", "--grid", "regularization=1,2", *arguments, code=2)["error"]
