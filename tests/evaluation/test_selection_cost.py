"""What choosing costs, from a ground truth: the record against its parts, and selectors beside retrains."""

from pathlib import Path

import numpy as np
import pytest
from selecting import list_bundles, write_ridge
from tiny import Published

from attriboard.base.errors import InputError
from attriboard.evaluation.choice_rules import positions
from attriboard.evaluation.selection_cost import run_grid, selection_cost
from attriboard.evaluation.workspace import Workspace
from attriboard.records import read_record, write_record

pytestmark = pytest.mark.usefixtures("inline")
GRID = [{}, *({"regularization": value} for value in (1e-4, 1e-2, 1.0))]


@pytest.fixture(scope="module")
def workspace(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("bundles") / "listed"
    list_bundles(published, folder)
    return Workspace(published.task, folder, threads=1)


def test_the_record_has_the_regret_of_every_selector_and_budget(workspace: Workspace, tmp_path: Path) -> None:
    record = selection_cost(workspace, "iffim", GRID, budgets=(2, 4), n_draws=20)
    grader = workspace.grader
    predictions = run_grid(workspace, workspace.job("iffim", GRID)).predictions
    lds = [grader.mean_lds(p, grader.split.scoring) for p in predictions]
    assert record.lds == pytest.approx(lds, abs=1e-6)
    assert record.swept == ("regularization",)
    assert set(record.rules) == {"best", "smoothed", "posterior", "pooled", "between"}
    assert record.headline == ("between", record.rules["between"])
    assert {"default", "surrogate", "oracle"} <= set(record.picks)
    default = record.picks["default"]
    assert default.regret == pytest.approx(max(lds) - lds[0], abs=2e-6)
    oracle = int(np.argmax([grader.mean_lds(p, grader.split.calibration) for p in predictions]))
    assert record.picks["oracle"].hyperparameters == record.configurations[oracle]
    on_the_grid = [rule for name, rule in record.rules.items() if name != "between"]
    assert all(regret >= 0 for rule in on_the_grid for regret in (*rule.mean, *rule.worst))
    assert record.hidden is not None
    assert record.hidden >= 0
    for rule in record.rules.values():
        assert all(low <= high <= worst for low, high, worst in zip(rule.p10, rule.p90, rule.worst, strict=True))
    assert read_record(write_record(record, tmp_path)) == record


def test_grid_points_that_fail_are_counted_and_left_out(workspace: Workspace, tmp_path: Path) -> None:
    method = write_ridge(tmp_path, broken=(1e-2,))
    record = selection_cost(workspace, method, GRID[1:], budgets=(2,), n_draws=5)
    assert record.n_failed == 1
    assert len(record.configurations) == 2
    with pytest.raises(InputError, match="1 of 2 grid points did not fail"):
        selection_cost(workspace, method, GRID[1:3], budgets=(2,), n_draws=5)


def test_grid_points_have_places_on_the_log_axis_of_lambda() -> None:
    points = [{"regularization": value} for value in (0.0, 1e-2, None, 1.0)]
    assert positions(points) == pytest.approx([-3, -2, float("nan"), 0], nan_ok=True)
    assert np.isnan(positions([{"d": 1}, {"d": 2}])).all()


def test_smoothing_and_places_between_points_need_a_grid_of_lambda_alone(workspace: Workspace) -> None:
    other = [{"checkpoints": 1}, {"checkpoints": 2}]
    assert set(selection_cost(workspace, "grad_dot", other, budgets=(2,), n_draws=3).rules) == {"best", "posterior"}
    both = [{"checkpoints": c, "regularization": value} for c in (1, 2) for value in (1e-3, 1e-1)]
    rules = selection_cost(workspace, "iffim", both, budgets=(2,), n_draws=3).rules
    assert set(rules) == {"best", "posterior", "pooled"}
