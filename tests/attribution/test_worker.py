"""What the worker makes of scores, and how it measures memory."""

import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from selecting import few_resamples, make_job, write
from tiny import Published

from attriboard.attribution import worker
from attriboard.attribution.executors import OwnProcess
from attriboard.attribution.runner import Runner
from attriboard.attribution.worker import InvalidScoresError, checked_scores
from attriboard.evaluation.grader import Grader, evaluate

SCALED = """
import torch
from attriboard import Attributor, Hyperparameter


class Scaled(Attributor):
    name = "scaled"
    hyperparameters = (Hyperparameter("factor", 1.0, source="here", stage="score"),)

    def fit(self, context):
        return -context.test.inputs.double() @ context.train.inputs.double().T

    def score(self, state, factor):
        return state * factor
"""


def test_float64_scores_reach_the_grader_as_they_are(
    published: Published, grader: Grader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What float32 would make zero or infinite changes no rank."""
    few_resamples(monkeypatch)
    plugin = write(tmp_path / "scaled.py", SCALED)
    factors = [1.0, 1e-50, 1e36, 1e300]
    job = make_job(published, plugin, *({"factor": factor} for factor in factors), selectors=())
    outcomes = list(Runner(OwnProcess()).run(job))
    assert {outcome.scores.dtype for outcome in outcomes} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(outcomes[1].scores, outcomes[0].scores * 1e-50)
    records = list(evaluate(published.task, grader, job, ["custom"] * 4, Runner(OwnProcess())))
    assert len({record.lds.mean for record in records}) == 1
    assert records[0].lds.mean != 0


AVERAGED = """
import torch
from attriboard import Attributor, Hyperparameter


class Averaged(Attributor):
    name = "averaged"
    hyperparameters = (
        Hyperparameter("checkpoints", 5, source="a paper", minimum=1),
        Hyperparameter("checkpoint_data", "half", source="a paper", choices=("full", "half")),
    )

    def fit(self, context, checkpoints, checkpoint_data):
        context.select_checkpoints(checkpoints, data=checkpoint_data)
        return torch.full((len(context.test), len(context.train)), float(checkpoints))

    def score(self, state):
        return state
"""


def test_a_default_of_more_models_than_the_task_has_is_all_of_them(published: Published, tmp_path: Path) -> None:
    kept = published.task.card.checkpoints
    assert 0 < kept.half < 5
    job = make_job(published, write(tmp_path / "averaged.py", AVERAGED), {}, {"checkpoints": 5}, selectors=())
    default, asked = Runner(OwnProcess()).run(job)
    assert default.hyperparameters["checkpoints"] == kept.half
    assert (default.scores == kept.half).all()
    assert asked.reason == f"not_applicable: checkpoints = 5: there are 1 to {kept.half} half-data checkpoints"


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (torch.rand(3, 4), np.float32),
        (torch.rand(3, 4).double(), np.float64),
        (torch.rand(3, 4).half(), np.float32),
        (torch.rand(3, 4).bfloat16(), np.float32),
        (torch.rand(4, 3).T, np.float32),
        (torch.rand(3, 4, requires_grad=True) * 2, np.float32),
        (torch.rand(3, 4).to_sparse(), np.float32),
    ],
)
def test_scores_of_every_kind_of_tensor_are_taken(given: torch.Tensor, dtype: type) -> None:
    found = checked_scores(given, (3, 4))
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, given.detach().to_dense().double().numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 4)), "score returned ndarray, must be a torch.Tensor"),
        (torch.zeros(4, 3), r"scores are \(4, 3\), must be \(n_test, n_train\) = \(3, 4\)"),
        (torch.zeros(3, 4, dtype=torch.int64), "must be floating point"),
        (torch.zeros(3, 4, dtype=torch.cfloat), "must be floating point"),
        (torch.full((3, 4), torch.nan), "all 3 rows have scores that are NaN or infinite"),
    ],
)
def test_what_is_no_score_matrix_is_refused(given: object, message: str) -> None:
    with pytest.raises(InvalidScoresError, match=message):
        checked_scores(given, (3, 4))


@pytest.mark.parametrize(("platform", "size"), [("darwin", 4096), ("freebsd", 4096 * 1024)])
def test_the_peak_is_in_bytes_where_the_system_counts_in_bytes(
    platform: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """macOS gives bytes, others kibibytes; Linux has a file of its own."""

    def missing(self: Path, *_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(worker.sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=4096))
    assert worker._peak() == size
