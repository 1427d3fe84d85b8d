"""`ab.qld` on a task from a script: a table that prints itself, its records, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

import attriboard as ab
from attriboard.base.errors import InputError, UnknownNameError
from attriboard.records.files import read_records


def build() -> nn.Module:
    return nn.Linear(4, 2)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("f4")
    labels = (x[:, 0] > 0).astype(int)
    recipe = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=3, batch_size=5)
    return ab.define_task("mine", model=build, train=(x[:40], labels[:40]), test=(x[40:], labels[40:]), recipe=recipe)


def test_a_table_prints_itself_and_a_second_call_goes_on_from_the_records(
    task: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"fraction": 0.1, "points": 8, "results": tmp_path / "out", "threads": 1, "workers": 1}
    table = ab.qld(task, ["grad_dot", "iffim"], **asked)
    assert "at most 56 retrains (8 points × 4 configurations + 24 random removals)" in capsys.readouterr().err
    assert [(row.method, row.variant) for row in table.rows] == [
        ("grad_dot", "default"),
        ("iffim", "default"),
        ("iffim", "selected"),
    ]
    assert table.retrains <= 24 + 3 * 8
    for row, record in zip(table.rows, table.records, strict=True):
        assert (row.drop, row.ci95, row.share_harmed) == (record.drop, record.ci95, record.share_harmed)
        assert row.drop == pytest.approx(np.mean(record.drops), abs=1e-5)
    lines = str(table).splitlines()
    assert lines[0].startswith("mine: drop of margin without a point's own top 4 examples, 8 points; higher is better")
    assert len(lines) == 2 + 3
    assert f"{table.rows[2].drop:.3f}" in lines[4]
    assert {record.kind for record in read_records(tmp_path / "out")} == {"qld"}
    again = ab.qld(task, ["grad_dot", "iffim"], quiet=True, **asked)
    assert (again.retrains, again.records) == (0, table.records)
    assert capsys.readouterr().err == ""
    alone = ab.qld(task, "grad_dot", fraction=0.1, points=8, quiet=True, threads=1, workers=1)
    assert (alone.retrains, alone.rows) == (0, table.rows[:1]), "retrains are kept without a folder of records too"


def test_what_cannot_be_asked_is_refused_before_anything_is_trained(task: Any, tmp_path: Path) -> None:
    asked: list[tuple[dict[str, Any], str]] = [
        ({"methods": []}, "name at least one"),
        ({"methods": "grad_dot", "points": 1}, "at least two points"),
        ({"methods": "grad_dot", "fraction": 1.0}, "fraction = 1: must lie in"),
        ({"methods": "grad_dot", "fraction": "1 %"}, "fraction = '1 %': must be a number"),
    ]
    for arguments, message in asked:
        with pytest.raises(InputError, match=message):
            ab.qld(task, quiet=True, **arguments)
    with pytest.raises(UnknownNameError, match="did you mean iffim"):
        ab.qld(task, "iffimm", quiet=True)
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
