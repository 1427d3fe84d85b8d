"""More models for attributors: the published ones are the first of them, and λ is ξ's at every number."""

from pathlib import Path

import pytest
import torch
from selecting import list_bundles
from tiny import Published

from attriboard.base.errors import InputError
from attriboard.evaluation.ensembles import ensemble_bundle, ensemble_records, publish_models, with_models
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.checkpoints import read_checkpoints
from attriboard.leaderboard.plots.ensembles import draw_ensembles
from attriboard.retraining.executors import InProcess

pytestmark = pytest.mark.usefixtures("inline")


@pytest.fixture
def workspace(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Workspace, "executor", lambda self, heartbeat=None: InProcess())
    folder = tmp_path / "bundles"
    list_bundles(published, folder)
    return Workspace(published.task, folder, threads=1)


def test_the_published_models_are_the_first_and_the_task_is_the_same(
    workspace: Workspace, published: Published
) -> None:
    more = with_models(workspace.task, 4)
    assert more.card.fingerprint == workspace.task.card.fingerprint
    fingerprint, last = workspace.task.card.fingerprint, workspace.task.card.recipe.epochs
    found = read_checkpoints(ensemble_bundle(workspace, 4), fingerprint)
    assert len(found) == 8
    assert {checkpoint.epoch for checkpoint in found} == {last}
    known = [c for c in read_checkpoints(published.checkpoints, fingerprint) if c.epoch == last]
    by_seed = {checkpoint.seed: checkpoint for checkpoint in found}
    for checkpoint in known:
        for name, tensor in checkpoint.parameters.items():
            assert torch.equal(by_seed[checkpoint.seed].parameters[name], tensor)


def test_every_number_of_models_has_the_lambda_that_xi_chooses_there(workspace: Workspace, tmp_path: Path) -> None:
    records = ensemble_records(workspace, "iffim", tmp_path / "results", (3, 1))
    assert [record.hyperparameters["checkpoints"] for record in records] == [1, 3]
    job = workspace.job("iffim", [{"checkpoints": 3}], selectors=("surrogate",))
    job = job.model_copy(update={"checkpoints": ensemble_bundle(workspace, 3)})
    choice = next(event for event in workspace.runner.run(job) if hasattr(event, "selector"))
    assert records[1].hyperparameters["regularization"] == choice.values["regularization"]
    assert ensemble_records(workspace, "iffim", tmp_path / "results", (1, 3)) == records
    plain = ensemble_records(workspace, "grad_dot", tmp_path / "results", (2,))
    assert "regularization" not in plain[0].hyperparameters
    points = draw_ensembles([*records, *plain], "tiny")["layer"][1]["data"]["values"]
    assert [(p["series"], p["x"], p["y"]) for p in points] == [
        (r.attributor.name, float(r.hyperparameters["checkpoints"]), r.lds.mean) for r in (*records, *plain)
    ]


def test_published_models_are_used_where_there_are_enough_and_never_replaced(
    workspace: Workspace, published: Published, tmp_path: Path
) -> None:
    folder = tmp_path / "bundles"
    entry = publish_models(workspace, 3, folder)
    assert (entry.kind, entry.file, entry.fingerprint) == (
        "models",
        f"{published.task.card.name}-models.safetensors",
        published.task.card.fingerprint,
    )
    again = Workspace(published.task, folder, threads=1)
    assert [ensemble_bundle(again, count) for count in (1, 3)] == [(folder / entry.file).resolve()] * 2
    assert ensemble_bundle(again, 4).parent == tmp_path / "cache" / "checkpoints"
    assert again.job("iffim").checkpoints == workspace.job("iffim").checkpoints, "attributors get the usual ones"
    with pytest.raises(InputError, match="is published, and is damaged or has other models"):
        publish_models(again, 4, folder)


def test_a_figure_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="did not fail"):
        draw_ensembles([], "tiny")
