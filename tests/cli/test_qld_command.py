"""`attriboard qld` on the embedded digits and on a task of one's own: document, cost, table, figure, exit codes."""

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from selecting import PLAIN, retrain_inline, run_inline, write
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.records.files import read_records
from attriboard.records.uses import QldRecord

Run = Callable[..., Result]

OWN = """
import numpy as np
from torch import nn

import attriboard as ab

x = np.random.default_rng(0).normal(size=(50, 4)).astype("f4")
y = (x @ np.ones(4, "f4"))[:, None]

def build():
    return nn.Linear(4, 1)

recipe = ab.Recipe(optimizer="sgd", learning_rate=0.05, epochs=2, batch_size=5)
data = {"train": (x[:30], y[:30]), "test": (x[30:], y[30:])}
task = ab.define_task("mine", model=build, loss="squared_error", recipe=recipe, **data)
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    retrain_inline(monkeypatch)
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: object, code: int = 0) -> Result:
        words = ["qld", *map(str, arguments), "--threads", "1", "--out", str(tmp_path / "out")]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def test_the_cost_is_said_first_then_one_document_and_a_second_run_goes_on_from_the_records(
    run: Run, tmp_path: Path
) -> None:
    words = ("digits_mlp", "grad_dot", "random", "--points", 4, "--variant", "default")
    result = run(*words, "--json")
    said = result.stderr.splitlines()
    assert said[0].startswith(
        "query loss differences of digits_mlp: at most 33 retrains (4 points × 2 configurations + 25 random removals)"
    )
    assert "its 10 checkpoints took" in said[0]
    found = json.loads(result.stdout)
    assert [(row["attributor"]["name"], row["variant"]) for row in found["rows"]] == [
        ("grad_dot", "default"),
        ("random", "default"),
    ]
    assert found["retrains"]["done"] == 33
    for row in found["rows"]:
        assert (row["kind"], row["status"], row["n_removed"], len(row["test_points"])) == ("qld", "ok", 13, 4)
        assert row["ci95"][0] <= row["drop"] <= row["ci95"][1]
    assert found["rows"][0]["test_points"] == found["rows"][1]["test_points"]
    assert found["rows"][0]["random"] == found["rows"][1]["random"], "random removals serve all methods"
    assert Path(found["figure"]).is_file()
    records = read_records(tmp_path / "out")
    assert [type(record) for record in records] == [QldRecord] * 2
    assert json.loads(run(*words, "--json").stdout)["rows"] == found["rows"]
    text = run(*words[:3], "--variant", "default")
    assert re.search(r"random\s+│ default\s+│\s+-?\d\.\d{3} │\s+-\d", text.stdout), "4 points again, as in the records"
    assert "each without its own top 13 examples" in text.stdout
    assert "drop of margin ↑" in text.stdout
    assert "0 retrains needed, 0 trained" in text.stdout


def test_it_works_on_a_task_and_with_a_method_of_ones_own(run: Run, tmp_path: Path) -> None:
    task = tmp_path / "mine.py"
    task.write_text(textwrap.dedent(OWN))
    plugin = write(tmp_path / "plain.py", PLAIN)
    result = run(task, plugin, "--fraction", "0.1", "--repeats", 2)
    assert "(16 points × 2 configurations × 2 repeats + 24 random removals)" in result.stderr
    assert "one was trained to measure it" in result.stderr
    assert "each without its own top 3 examples" in result.stdout
    assert "drop of negative loss ↑" in result.stdout
    (record,) = read_records(tmp_path / "out")
    assert isinstance(record, QldRecord)
    assert (record.target, record.n_repeats, len(record.test_points)) == ("negative_loss", 2, 16)
    assert record.drop == pytest.approx(record.loss_rise, abs=1e-5), "the loss difference itself"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits_mlp", "iffim", "--fraction", "0"), "fraction = 0: must lie in (0, 1) and leave some of 1297"),
        (("digits_mlp", "iffim", "--fraction", "1.5"), "fraction = 1.5: must lie in (0, 1)"),
        (("digits_mlp", "iffim", "--variant", "best"), "--variant best: must be among default, selected, oracle"),
        (("digits_mlp", "random", "iffimm"), "did you mean iffim"),
        (("digits_mlp", "random", "--executor", "host:1"), "executor = 'host:1': must be tcp://host:port"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_line(run: Run, arguments: tuple[str, ...], message: str) -> None:
    document: Any = json.loads(run(*arguments, "--json", code=2).stdout)
    assert message in document["error"]


@pytest.mark.parametrize(("option", "value"), [("--points", "1"), ("--repeats", "0")])
def test_numbers_out_of_range_are_refused(run: Run, tmp_path: Path, option: str, value: str) -> None:
    result = run("digits_mlp", "random", option, value, code=2)
    assert option in result.stderr
    assert not (tmp_path / "out").exists()
