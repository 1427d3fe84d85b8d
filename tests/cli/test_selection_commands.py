"""`attriboard sweep` and `attriboard select` on the embedded digits: documents, tables, figures, exit codes."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selecting import PLAIN, few_resamples, run_inline, write, write_ridge
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.cli.selection import show_budget_choice
from attriboard.evaluation.budget import BudgetChoice
from attriboard.records.files import read_records
from attriboard.records.model import AttributionRecord

Run = Callable[..., Result]
SMALL = ("--hp", "projection_dim=48", "--threads", "1")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    few_resamples(monkeypatch)

    def invoke(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def sweep(run: Run, *arguments: str, **more: Any) -> Any:
    return json.loads(run("sweep", "digits_mlp", "iffim", *SMALL, *arguments, "--json", **more).stdout)


def test_sweep_prints_one_document_and_goes_on_from_its_records(run: Run, tmp_path: Path) -> None:
    document = sweep(run, "--grid", "regularization=1e-4:1:3log")
    assert set(document) >= {"task", "attributor", "points", "seconds", "figure"}
    points = document["points"]
    assert [p["hyperparameters"]["regularization"] for p in points] == [1e-4, 1e-2, 1.0]
    assert all(p["status"] == "ok" and 0 <= p["criteria"]["surrogate"] <= 1 for p in points)
    assert all(p["lds"]["ci95"][0] <= p["lds"]["mean"] <= p["lds"]["ci95"][1] for p in points)
    figure = Path(document["figure"])
    assert figure.is_file()
    svg = figure.with_suffix(".svg").read_text(encoding="utf-8")
    assert "default = 0" in svg
    assert "oracle = " in svg
    assert "selected (ξ) = " in svg

    wider = sweep(run, "--grid", "regularization=1,1e-4,1e-2,10")
    assert [p["hyperparameters"]["regularization"] for p in wider["points"]] == [1.0, 1e-4, 1e-2, 10.0]
    by_value = {p["hyperparameters"]["regularization"]: p for p in wider["points"]}
    assert [by_value[p["hyperparameters"]["regularization"]] for p in points] == points
    assert len(list(read_records(tmp_path / "out"))) == 4


def test_select_writes_no_point_of_a_sweep_that_is_on_record(run: Run, tmp_path: Path) -> None:
    sweep(run, "--grid", "regularization=1e-4:1:3log")
    swept = {record.id for record in read_records(tmp_path / "out")}
    run("select", "digits_mlp", "iffim", *SMALL, "--grid", "regularization=1e-4:10:6log")
    made = [record for record in read_records(tmp_path / "out") if record.id not in swept]
    points = [r for r in made if isinstance(r, AttributionRecord)]
    again = [r for r in points if r.variant == "sweep" and r.hyperparameters["regularization"] in (1e-4, 1e-2, 1.0)]
    assert not again
    assert {r.variant for r in points} == {"custom", "sweep"}  # it started from a size that is not the default
    assert sum(r.variant == "sweep" for r in points) == 3


def test_sweep_over_two_hyperparameters_draws_a_surface(run: Run, tmp_path: Path) -> None:
    result = run(
        "sweep", "digits_mlp", "iffim", "--threads", "1", "--grid", "projection_dim=16,48",
        "--grid", "regularization=0,0.01", "--figure", str(tmp_path / "my.surface"),
    )  # fmt: skip
    assert (tmp_path / "my.surface.png").is_file()
    assert (tmp_path / "my.surface.svg").is_file()
    assert re.search(r"projection_dim\s+┃\s+regularization\s+┃\s+LDS", result.stdout)


def test_sweep_lists_failures_and_draws_no_figure_of_nothing(run: Run, tmp_path: Path) -> None:
    path = write_ridge(tmp_path, broken=(0.0, 1.0))
    document = json.loads(
        run("sweep", "digits_mlp", str(path), "--grid", "regularization=0,1", "--json", "--threads", "1").stdout
    )
    assert document["figure"] is None
    assert [p["status"] for p in document["points"]] == ["failed", "failed"]
    assert document["points"][0]["reason"] == "error: ZeroDivisionError: singular"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--grid: give at least one"),
        (("--grid", "regularization=1:2"), "must be NAME=LO:HI:N"),
        (("--grid", "regularizaton=1,2"), "iffim has no hyperparameter 'regularizaton'"),
        (
            ("--grid", "regularization=1,2", "--hp", "regularization=3"),
            "--grid regularization: fixed by --hp regularization=3 as well; leave one of them out",
        ),
        (("--grid", "regularization=-1,2"), "regularization = -1.0: must be at least 0"),
    ],
)
def test_bad_sweeps_end_with_code_2_and_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("sweep", "digits_mlp", "iffim", *arguments, "--json", code=2)
    assert message in json.loads(result.stdout)["error"]


def test_select_prints_default_selected_and_oracle(run: Run, tmp_path: Path) -> None:
    result = run("select", "digits_mlp", "iffim", *SMALL, "--grid", "1e-4:1:3log", "--json")
    document = json.loads(result.stdout)
    assert set(document) >= {
        "task", "attributor", "selector", "default", "selected", "oracle", "regret", "gap_closed", "rank_correlation",
    }  # fmt: skip
    assert document["selector"] == "surrogate"
    assert document["default"]["hyperparameters"]["regularization"] == 0.0
    for part in ("selected", "oracle"):
        assert document[part]["hyperparameters"]["regularization"] in (1e-4, 1e-2, 1.0)
    assert document["regret"]["mean"] == pytest.approx(document["oracle"]["lds"] - document["selected"]["lds"])
    kinds = [record.kind for record in read_records(tmp_path / "out")]
    assert kinds.count("selection") == 1
    assert kinds.count("attribution") >= 4


def test_select_with_several_selectors_prints_a_list_and_a_table(run: Run, tmp_path: Path) -> None:
    path = write_ridge(tmp_path, grid=(0.01, 1.0))
    text = run("select", "digits_mlp", str(path), "--selector", "surrogate", "--selector", "default", "--threads", "1")
    assert "ridge on digits_mlp, oracle at regularization" in text.stdout
    assert "(transferred)" in text.stdout
    plain = write(tmp_path / "plain.py", PLAIN)
    both = run(
        "select", "digits_mlp", str(plain), "--selector", "surrogate", "--selector", "gcv", "--json", "--threads", "1"
    )  # fmt: skip
    documents = json.loads(both.stdout)
    assert [d["selector"] for d in documents] == ["surrogate", "gcv"]
    assert {d["reason"] for d in documents} == {"not_applicable: the method has no regularization to choose"}


def test_a_record_that_cannot_be_read_is_named_before_the_work(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out" / "digits_mlp").mkdir(parents=True)
    (tmp_path / "out" / "digits_mlp" / "torn.json").write_text("{")
    plain = write(tmp_path / "method.py", "raise AssertionError('it was run')")
    assert "torn.json" in run("select", "digits_mlp", str(plain), code=2).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--selector", "oracle"), "no selector named 'oracle'"),
        (("--selector", "surogate"), "did you mean surrogate"),
        (("--grid", "1:2"), "must be NAME=LO:HI:N"),
        (("--budget", "2", "--grid", "regularization=1", "--grid", "regularization=2"), "given 2 times; put all"),
        (("--budget", "2", "--grid", "regularization=1,2", "--hp", "regularization=1"), "fixed by --hp"),
    ],
)
def test_bad_selections_end_with_code_2_and_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("select", "digits_mlp", "iffim", *arguments, "--json", code=2)
    assert message in json.loads(result.stdout)["error"]


def test_report_writes_a_page_with_the_verdict_and_a_figure_and_reuses_its_records(run: Run, tmp_path: Path) -> None:
    arguments = ("report", "sensitivity", "digits_mlp", "--panel", "a", "--results", str(tmp_path / "results"))
    first = json.loads(run(*arguments, "--threads", "1", "--json").stdout)
    (panel,) = first["panels"]
    assert (panel["attributor"], panel["points"], panel["failed"], panel["holds"]) == ("iffim", 25, 0, True)
    page = Path(first["page"]).read_text(encoding="utf-8")
    assert "The finding holds here. 25 points." in page
    assert page.count("\n| ") == 2 + 25  # a head, and each point is a row
    assert (tmp_path / "out" / panel["figure"]).is_file()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")}
    assert "the regularization: holds here." in run(*arguments, "--threads", "1").stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*.json")} == before


def test_report_refuses_an_unknown_panel(run: Run) -> None:
    result = run("report", "sensitivity", "digits_mlp", "--panel", "z", code=2)
    assert "--panel z: must be among a, b, c, d, e, f" in result.stderr


def test_a_budget_of_retrains_chooses_any_hyperparameter(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    command = ("select", "digits_mlp", "grad_dot", "--budget", "2", "--grid", "checkpoints=1,2", "--threads", "1")
    document = json.loads(run(*command, "--workers", "1", "--json").stdout)
    assert document["budget"] == document["trained"] == 2
    assert document["hyperparameters"]["checkpoints"] in (1, 2)
    assert len(document["lds"]) == 2
    again = run(*command).stdout
    assert "2 retrains, 0 done now" in again
    assert "expected regret" in again
    assert not list((tmp_path / "out").rglob("*.json"))


@pytest.mark.parametrize(("choice", "mark"), [(0.1, "chosen"), (0.2, "nearest to the choice")])
def test_a_choice_between_grid_points_is_not_said_to_be_one(
    choice: float, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = BudgetChoice(
        hyperparameters={"regularization": choice},
        configurations=({"regularization": 0.1}, {"regularization": 1.0}),
        lds=(0.4, 0.2),
        rule="best",
        budget=2,
        expected_regret=0.01,
        halving_budget=None,
        xi_pick=None,
        omega=None,
        omega_ci95=None,
        warning="",
        failed=(),
        trained=0,
        seconds=1.0,
    )
    show_budget_choice("digits_mlp", "iffim", found)
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "0.400" in line)
    assert mark in row


def test_what_a_budget_is_needed_for_is_said(run: Run) -> None:
    refused = run("select", "digits_mlp", "grad_dot", "--grid", "checkpoints=1,2", code=2)
    assert "give --budget" in refused.stderr
    one = run("select", "digits_mlp", "grad_dot", "--budget", "2", "--grid", "checkpoints=1", code=2)
    assert "a grid of 1 configuration leaves nothing to choose; give at least 2" in one.stderr
    both = run("select", "digits_mlp", "iffim", "--budget", "2", "--selector", "gcv", code=2)
    assert "leave it or --budget out" in both.stderr


def test_the_cost_of_a_choice_is_a_table_a_figure_and_a_record(run: Run, tmp_path: Path) -> None:
    method = write_ridge(tmp_path, grid=(1e-3, 1.0, 1e3))
    results = tmp_path / "results"
    command = ("report", "selection-cost", "digits_mlp", "--method", str(method), "--results", str(results))
    document = json.loads(run(*command, "--json").stdout)
    (record,) = document["records"]
    assert record["kind"] == "selection_cost"
    assert {point["regularization"] for point in record["configurations"]} >= {1e-3, 1.0, 1e3}
    assert Path(document["figure"]).is_file()
    assert len(read_records(results)) == 1
    assert "oracle" in run(*command).stdout
    assert len(read_records(results)) == 1
