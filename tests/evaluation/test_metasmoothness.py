"""Metasmoothness: the definition by hand, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kstest
from tiny import Published

from attriboard.base.errors import FormatError, InputError
from attriboard.evaluation.metasmoothness import draw_direction, metasmoothness, sign_agreement
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.records.metasmoothness import read_metasmoothness, write_metasmoothness
from attriboard.retraining.executors import InProcess
from attriboard.retraining.request import RetrainRequest


@pytest.fixture
def workspace(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(Workspace, "executor", lambda self, heartbeat=None: InProcess())
    return Workspace(published.task, published.truth.parent, threads=1)


def test_the_agreement_of_signs_is_weighted_by_the_whole_way() -> None:
    start, middle = np.array([0.0, 0.0, 0.0, 0.0]), np.array([3.0, -1.0, 2.0, 0.0])
    end = np.array([4.0, -3.0, 1.0, 5.0])  # ways 4, 3, 1 and 5: two go on, one turns back, one stood still at first
    assert sign_agreement(start, middle, end) == pytest.approx((4 + 3 - 1) / 13)
    assert sign_agreement(start, middle, 2 * middle) == 1.0
    assert sign_agreement(start, middle, middle / 2) == -1.0
    assert sign_agreement(end, end, end) == 1.0


def test_independent_models_have_metasmoothness_zero() -> None:
    models = np.random.default_rng(0).normal(size=(3, 100_000))
    assert abs(sign_agreement(*models)) < 0.02


def test_it_is_what_three_trainings_by_hand_give(workspace: Workspace, tmp_path: Path) -> None:
    found = metasmoothness(workspace, (0.01, 0.1), 2, store=tmp_path)
    small, large = found.rows
    assert (small.step, len(small.parameters), len(large.outputs)) == (0.01, 2, 2)
    card = workspace.task.card
    assert (found.task.name, found.task.fingerprint) == (card.name, card.fingerprint)
    store = open_store(workspace.task, tmp_path)
    name, _ = card.target_output
    # Trainings that the store has: the base, and steps of 0.1 in the first direction.
    everything = np.arange(card.data.n_train)
    weights = [1 + times * 0.1 * draw_direction(len(everything), 0) for times in (0, 1, 2)]
    digests = [RetrainRequest(everything, 0, (), w).digest(card.fingerprint) for w in weights]
    a, b, c = store.read(f"outputs/{name}", digests).astype(np.float64)
    by_hand = (np.abs(c - a) * np.sign(b - a) * np.sign(c - b)).sum() / np.abs(c - a).sum()
    assert large.outputs[0] == pytest.approx(by_hand, abs=1e-6)
    path = write_metasmoothness(found, tmp_path / "results")
    assert read_metasmoothness([tmp_path / "results"]) == {card.fingerprint: found}
    path.write_text(path.read_text().replace('"step": 0.01', '"step": 0.02'))
    with pytest.raises(FormatError, match="altered or renamed"):
        read_metasmoothness([tmp_path / "results"])


def test_directions_are_standard_normal() -> None:
    v = draw_direction(100_000, 0)
    assert kstest(v, "norm").pvalue > 0.01
    assert abs(np.corrcoef(v, draw_direction(100_000, 1))[0, 1]) < 0.02


def test_steps_out_of_range_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step = 0.6"):
        metasmoothness(workspace, (0.1, 0.6), store=tmp_path)
    with pytest.raises(InputError, match="directions = 0"):
        metasmoothness(workspace, (0.1,), 0, store=tmp_path)
