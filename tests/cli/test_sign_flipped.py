"""The control that negates the best record's scores."""

from collections.abc import Callable
from pathlib import Path

import pytest
from leaderboard_records import make_record
from selecting import few_resamples, run_inline
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.cli.sign_flipped import best_record
from attriboard.cli.workbench import Workbench
from attriboard.errors import InputError
from attriboard.leaderboard import board
from attriboard.records import read_records, write_record

Run = Callable[..., Result]


@pytest.fixture
def bench() -> Workbench:
    return Workbench("digits_mlp", None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    few_resamples(monkeypatch)
    monkeypatch.setattr(board, "published_results", lambda: tmp_path / "published")

    def invoke(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "out")])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def test_lds_is_minus_the_best_and_the_record_names_whose_scores_were_negated(run: Run, tmp_path: Path) -> None:
    run("run", "digits_mlp", "grad_dot", "--threads", "1")
    run("run", "digits_mlp", "input_similarity")  # a control: never the best
    printed = run("run", "digits_mlp", "sign_flipped", "--threads", "1").stdout
    records = {record.attributor.name: record for record in read_records(tmp_path / "out")}
    best, flipped = records["grad_dot"], records["sign_flipped"]
    assert flipped.lds.mean == pytest.approx(-best.lds.mean, abs=1e-9)
    assert flipped.lds.per_test == pytest.approx([-value for value in best.lds.per_test], abs=1e-6)
    assert flipped.negates.model_dump() == {
        "record": best.id,
        "attributor": "grad_dot",
        "hyperparameters": best.hyperparameters,
    }
    assert flipped.attributor.family == "control"
    assert flipped.attributor.digest == best.attributor.digest
    assert f"the scores of grad_dot, record {best.id}, negated" in printed


def test_without_a_record_it_says_what_to_run_first(run: Run) -> None:
    assert (
        "run an attributor first: attriboard run digits_mlp iffim"
        in run("run", "digits_mlp", "sign_flipped", code=2).stderr
    )


@pytest.mark.parametrize("option", [("--hp", "regularization=1"), ("--seed", "3")])
def test_options_that_are_the_best_records_are_refused(run: Run, option: tuple[str, str]) -> None:
    assert "those of the best record" in run("run", "digits_mlp", "sign_flipped", *option, code=2).stderr


def test_it_cannot_be_swept(run: Run) -> None:
    stderr = run("sweep", "digits_mlp", "sign_flipped", "--grid", "a=1", code=2).stderr
    assert "attriboard run TASK sign_flipped makes it" in stderr


def test_the_best_is_what_ranks_and_can_be_run_again(bench: Workbench, tmp_path: Path, run: Run) -> None:
    own = {
        "ground_truth__sha256": bench.grader.truth.sha256,
        "task__fingerprint": bench.task.card.fingerprint,
        "task__name": "digits_mlp",
        "variant": "default",
    }
    for changes in (
        {"attributor": "iffim", "level": 0.4},
        {"attributor": "trak", "level": 0.1},
        {"attributor": "trak", "level": 0.5, "variant": "selected", "selector": "surrogate"},
        {"attributor": "trak", "level": 0.9, "variant": "oracle", "selector": "oracle"},
        {"attributor": "input_similarity", "level": 0.9},
        {"attributor": "made_elsewhere", "level": 0.9, "attributor__origin": "scores"},
        {"attributor": "ekfac", "level": 0.9, "attributor__origin": "file"},
        {"attributor": "grad_dot", "level": 0.9, "ground_truth__sha256": "0" * 64},
        {"attributor": "tracin", "level": 0.9, "status": "failed", "reason": "timeout"},
    ):
        write_record(make_record(**{**own, **changes}), tmp_path / "results")
    best, name = best_record(bench, tmp_path / "results")
    assert (name, best.record.variant) == ("trak", "selected")
    with pytest.raises(InputError, match="run an attributor first"):
        best_record(bench, tmp_path / "elsewhere")
