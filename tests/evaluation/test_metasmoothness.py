"""Metasmoothness: the definition by hand, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from tiny import Published

from attriboard.base.errors import InputError
from attriboard.evaluation.metasmoothness import _signs, metasmoothness, sign_agreement
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.retraining.executors import InProcess
from attriboard.retraining.request import RetrainRequest


@pytest.fixture
def workspace(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setattr(Workspace, "executor", lambda self, heartbeat=None: InProcess())
    return Workspace(published.task, published.truth.parent, threads=1)


def test_the_agreement_of_signs_is_weighted_by_the_first_difference() -> None:
    first, second = np.array([3.0, -1.0, 2.0, 0.0]), np.array([0.1, -9.0, -1e-9, 5.0])
    assert sign_agreement(first, second) == pytest.approx((3 + 1 - 2) / 6)
    assert sign_agreement(first, first) == 1.0
    assert sign_agreement(first, -first) == -1.0
    assert sign_agreement(np.zeros(3), first[:3]) == 1.0
    random = np.random.default_rng(0)
    assert abs(sign_agreement(random.normal(size=10_000), random.normal(size=10_000))) < 0.05


def test_it_is_what_three_trainings_by_hand_give(workspace: Workspace, tmp_path: Path) -> None:
    (small, large) = metasmoothness(workspace, (0.01, 0.1), 2, store=tmp_path)
    assert (small.step, len(small.parameters), len(large.outputs)) == (0.01, 2, 2)
    assert all(-1 <= value <= 1 for row in (small, large) for value in (*row.parameters, *row.outputs))
    card = workspace.task.card
    store = open_store(workspace.task, tmp_path)
    name, _ = card.target_output
    # Trainings that the store has: the base, and steps of 0.1 in the first direction.
    everything = np.arange(card.data.n_train)
    weights = [1 + times * 0.1 * _signs(len(everything), 0) for times in (0, 1, 2)]
    digests = [RetrainRequest(everything, 0, (), w).digest(card.fingerprint) for w in weights]
    a, b, c = store.read(f"outputs/{name}", digests).astype(np.float64)
    by_hand = (np.abs(b - a) * np.sign(b - a) * np.sign(c - b)).sum() / np.abs(b - a).sum()
    assert large.outputs[0] == pytest.approx(by_hand)


def test_steps_out_of_range_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"step = 0.6"):
        metasmoothness(workspace, (0.1, 0.6), store=tmp_path)
    with pytest.raises(InputError, match="directions = 0"):
        metasmoothness(workspace, (0.1,), 0, store=tmp_path)
