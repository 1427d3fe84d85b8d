"""Choosing with a handful of retrains: against a loop by hand, without a look at the ground truth."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from selecting import list_bundles, write_ridge
from tiny import Published

from attriboard.base.errors import AttriboardError, FormatError, InputError
from attriboard.evaluation.budget import choose_by_budget
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.plan import checkpoint_requests, mask_indices, retrain_seed, tuning_requests
from attriboard.retraining.engine import retrain
from attriboard.retraining.executors import InProcess
from attriboard.retraining.store import RetrainStore
from attriboard.scoring.split import split_test_points

pytestmark = pytest.mark.usefixtures("inline")
GRID = [{"regularization": value} for value in (1e-6, 1e-3, 1e-1, 10.0)]


@pytest.fixture
def workspace(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """The tiny task with its checkpoints, and a ground truth that must not be opened."""
    monkeypatch.setattr(Workspace, "grader", property(lambda self: pytest.fail("the ground truth was opened")))
    monkeypatch.setattr(Workspace, "executor", lambda self, heartbeat=None: InProcess())
    return Workspace(published.task, published.truth.parent, threads=1)


def test_the_curve_is_what_retraining_and_correlating_by_hand_gives(workspace: Workspace, tmp_path: Path) -> None:
    method = write_ridge(tmp_path)
    found = choose_by_budget(workspace, method, GRID, 6, store=tmp_path / "store")
    card = workspace.task.card
    requests = tuning_requests(card, 6)
    store = RetrainStore(tmp_path / "by-hand", card.fingerprint)
    retrain(workspace.task, requests, store)
    margins = store.read("outputs/margin", [r.digest(card.fingerprint) for r in requests])
    points = split_test_points(card.data.n_test, card.split.calibration, card.split.seed).calibration
    for configuration, lds in zip(GRID, found.lds, strict=True):
        (outcome,) = workspace.runner.run(workspace.job(method, [configuration]))
        sums = np.stack([outcome.scores[:, r.indices].sum(axis=1, dtype=np.float64) for r in requests])
        by_hand = [spearmanr(sums[:, t], margins[:, t]).statistic for t in points]
        assert lds == pytest.approx(np.mean(by_hand), abs=1e-6)
    assert found.trained == 6
    assert found.hyperparameters in found.configurations
    assert found.rule == "pooled"
    assert found.xi_pick in [configuration["regularization"] for configuration in GRID]
    between = choose_by_budget(workspace, method, GRID, 6, between=True, store=tmp_path / "store")
    assert between.nearest == found.hyperparameters
    assert between.lds == found.lds


def test_a_damaged_ground_truth_is_never_noticed(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever reads a listed bundle checks its digest first, so garbage in its place would raise."""
    monkeypatch.setattr(Workspace, "executor", lambda self, heartbeat=None: InProcess())
    folder = tmp_path / "bundles"
    registry = list_bundles(published, folder)
    method = write_ridge(tmp_path)
    before = choose_by_budget(Workspace(published.task, folder, threads=1), method, GRID, 6, store=tmp_path / "store")
    marked = folder / registry.file_name(published.task.card, "groundtruth")
    marked.write_bytes(b"marker" + marked.read_bytes()[6:])
    workspace = Workspace(published.task, folder, threads=1)
    with pytest.raises(FormatError):
        _ = workspace.grader
    after = choose_by_budget(workspace, method, GRID, 6, store=tmp_path / "store")
    assert (after.hyperparameters, after.lds, after.omega) == (before.hyperparameters, before.lds, before.omega)


def test_a_larger_budget_keeps_the_models_of_a_smaller_one(workspace: Workspace, tmp_path: Path) -> None:
    method = write_ridge(tmp_path)
    assert choose_by_budget(workspace, method, GRID, 3, store=tmp_path / "store").trained == 3
    assert choose_by_budget(workspace, method, GRID, 5, store=tmp_path / "store").trained == 2
    assert choose_by_budget(workspace, method, GRID, 5, store=tmp_path / "store").trained == 0


def test_the_models_are_nobody_elses(published: Published) -> None:
    card = published.task.card
    mine = {r.digest(card.fingerprint) for r in tuning_requests(card, 50)}
    truth = {(mask_indices(card, k).tobytes(), retrain_seed(k, r)) for k in range(50) for r in range(5)}
    assert not mine & {r.digest(card.fingerprint) for r in checkpoint_requests(card)}
    assert not {(r.indices.tobytes(), r.seed) for r in tuning_requests(card, 50)} & truth


def test_grid_points_that_fail_are_left_out_with_their_reason(workspace: Workspace, tmp_path: Path) -> None:
    found = choose_by_budget(
        workspace, "trak", [{"checkpoints": 1}, {"checkpoints": 99}, {"checkpoints": 2}], 4, store=tmp_path
    )
    assert [c["checkpoints"] for c in found.configurations] == [1, 2]
    assert len(found.failed) == 1
    assert found.rule == "posterior"
    assert found.xi_pick is found.omega is None


def test_what_cannot_be_chosen_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="budget = 1"):
        choose_by_budget(workspace, "iffim", GRID, 1, store=tmp_path)
    with pytest.raises(InputError, match="a grid of 1 configuration leaves nothing to choose"):
        choose_by_budget(workspace, "iffim", GRID[:1], 4, store=tmp_path)
    with pytest.raises(AttriboardError, match="every configuration failed"):
        choose_by_budget(workspace, "trak", [{"checkpoints": 98}, {"checkpoints": 99}], 4, store=tmp_path)
