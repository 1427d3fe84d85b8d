"""`parameters`: which parameters are attributed, the same in every call, in records and on the board."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from leaderboard_records import make_record, make_removal, make_selection
from selecting import few_resamples, retrain_inline, run_inline
from torch import nn
from typer.testing import CliRunner, Result

import attriboard as ab
from attriboard.base.errors import InputError
from attriboard.cli.app import app
from attriboard.contracts.task import Task
from attriboard.evaluation.sweeps import sweep_points
from attriboard.evaluation.workspace import Workspace
from attriboard.leaderboard.pages import render_site
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.site import Site
from attriboard.records.files import read_records

HEAD = "2.*"


def data(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(seed).normal(size=(n, 4)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(int)


def build() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def task(**changes: object) -> Task:
    recipe = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=3, batch_size=8)
    return ab.define_task(
        "halves", model=lambda: build(), train=data(30, 0), test=data(10, 1), recipe=recipe, **changes
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    few_resamples(monkeypatch)


def test_every_call_attributes_the_same_parameters() -> None:
    mine = task()
    every, head = (ab.attribute(mine, "grad_dot", parameters=p, threads=1) for p in ((), HEAD))
    body = ab.attribute(mine, "grad_dot", parameters=["0.weight", "0.bias"], threads=1)
    np.testing.assert_allclose(head + body, every, rtol=1e-4, atol=1e-6)
    assert not np.allclose(head, every)
    order = np.argsort(-head[3], kind="stable")
    top = ab.top(mine, "grad_dot", 3, k=2, parameters=HEAD, threads=1)
    assert list(top.helpful) == order[:2].tolist()
    whole = ab.self_influence(mine, "grad_dot", threads=1)
    assert (ab.self_influence(mine, "grad_dot", parameters=HEAD, threads=1) < whole).all()
    lambdas = [ab.select(mine, "iffim", parameters=p, threads=1) for p in ((), HEAD)]
    assert lambdas[0].xi != lambdas[1].xi


def test_a_task_has_parameters_of_its_own_which_a_call_replaces() -> None:
    given, own = task(), task(parameters=HEAD)
    np.testing.assert_array_equal(
        ab.attribute(own, "grad_dot", threads=1), ab.attribute(given, "grad_dot", parameters=HEAD, threads=1)
    )
    assert Workspace(own).parameters == (HEAD,)
    assert Workspace(own, parameters="0.*").parameters == ("0.*",)


def test_patterns_that_fit_nothing_are_refused_with_what_there_is() -> None:
    with pytest.raises(
        InputError, match=r"parameters = 'tail': fits no trained parameter of the model, which has 0.wei"
    ):
        ab.attribute(task(), "grad_dot", parameters="tail", threads=1)


def test_records_have_them_and_answer_no_question_about_others(tmp_path: Path) -> None:
    mine = task()
    ab.build_ground_truth(mine, masks=6, repeats=2, quiet=True)
    table = ab.evaluate(mine, ["grad_dot"], parameters=HEAD, threads=1, quiet=True)
    plain = ab.evaluate(mine, ["grad_dot"], threads=1, quiet=True)
    assert [row.lds for row in table.rows] != [row.lds for row in plain.rows]
    grids = [("regularization", ("0.1", "1"))]
    points = {
        patterns: sweep_points(
            Workspace(mine, parameters=patterns, threads=1), "iffim", grids, {}, tmp_path / "out", title=""
        )
        for patterns in ((), (HEAD,), ("0.*", HEAD), ())
    }
    for patterns, swept in points.items():
        assert [record.parameters for record in swept.records] == [patterns, patterns]
    assert len(read_records(tmp_path / "out")) == 6
    again = sweep_points(Workspace(mine, parameters=HEAD, threads=1), "iffim", grids, {}, tmp_path / "out", title="")
    assert [record.id for record in again.records] == [record.id for record in points[HEAD,].records]
    digests = {record.scores_sha256 for swept in points.values() for record in swept.records}
    assert len(digests) == 4  # 0.* and 2.* are all


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    run_inline(monkeypatch)
    retrain_inline(monkeypatch)

    def invoke(*arguments: object, out: str = "out", code: int = 0) -> Result:
        words = [*map(str, arguments), "--threads", "1", *(["--out", str(tmp_path / out)] if out else [])]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def test_commands_take_them_and_a_record_runs_again_with_them(run: Callable[..., Result], tmp_path: Path) -> None:
    some = ("--parameters", "2.weight", "--parameters", "4.*")
    assert "of parameters 2.weight, 4.*" in run("run", "digits_mlp", "grad_dot", *some).stdout
    (first,) = read_records(tmp_path / "out")
    assert first.parameters == ("2.weight", "4.*")
    run("run", tmp_path / "out" / first.path, out="again")
    (again,) = read_records(tmp_path / "again")
    assert (again.scores_sha256, again.parameters) == (first.scores_sha256, first.parameters)
    refused = run("run", tmp_path / "out" / first.path, *some, out="again", code=2)
    assert "--parameters: " in refused.stderr
    run("select", "digits_mlp", "iffim", "--grid", "0.01,1", *some, out="selected")
    run("removal", "digits_mlp", "grad_dot", "--rates", "0.2", "--seeds", "1", *some, out="removal")
    made = [*read_records(tmp_path / "selected"), *read_records(tmp_path / "removal")]
    assert {record.kind for record in made} == {"attribution", "selection", "removal"}
    assert {record.parameters for record in made} == {("2.weight", "4.*")}
    rows = [run("top", "digits_mlp", "grad_dot", "--test", 1, *p, out="").stdout for p in ((), some)]
    assert rows[0] != rows[1]


def test_a_part_of_the_parameters_is_a_row_of_its_own_on_the_board() -> None:
    records = [
        make_record("iffim", 0.4),
        make_record("iffim", 0.6, parameters=["head.*"]),
        make_selection("iffim", parameters=["head.*"]),
        make_removal("iffim", parameters=["head.*"]),
        make_removal("iffim"),
    ]
    site = Site([Entry(record, record.id, Path()) for record in records], [], {})
    study = site.tasks["digits_mlp"]
    whole, part = study.methods["iffim"], study.methods[records[1].row]
    assert (whole.title, part.title, part.attributor) == ("iffim", "iffim (head.*)", "iffim")
    assert (len(whole.attributions), len(part.attributions)) == (1, 1)
    assert (len(whole.selections), len(part.selections)) == (0, 1)
    rows = {row.heading.text: row for row in site.tables["digits_mlp"]["lds"].rows}
    assert rows["iffim"].cell("default").value == records[0].lds.mean
    assert rows["iffim (head.*)"].cell("default").value == records[1].lds.mean
    pages = dict(render_site(site))
    page = pages[f"attributors/{records[1].row}.html"]
    assert "attriboard run digits_mlp iffim --parameters &#39;head.*&#39;" in page
    assert "<code>head.*</code>" in pages[f"records/{records[1].id}.html"]
    assert "Parameters" not in pages[f"records/{records[0].id}.html"]
    assert "iffim (head.*)" in pages["data/digits_mlp.js"]
