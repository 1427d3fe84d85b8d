"""Metasmoothness of a task: do small changes of the training weights move the trained model steadily?

Engstrom et al., "Optimizing ML Training with Metagradient Descent" (arXiv 2503.13751), definition 2. Three trainings
with example weights 1, 1 + h v and 1 + 2 h v, v ~ N(0, I), give parameters θ₀, θ₁ and θ₂, and

    S = Σ_j d_j sign(θ₁ − θ₀)_j sign(θ₂ − θ₁)_j / Σ_j d_j,    d = |θ₂ − θ₀|,

1 where every parameter keeps its direction, 0 where the three models are independent draws. The same of the attributed
function on the test points says what attribution by gradients can hope for. All trainings have one seed.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from attriboard.base.errors import InputError
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.records.metasmoothness import Metasmoothness, SmoothnessRow
from attriboard.records.model import TaskInfo
from attriboard.records.provenance import provenance
from attriboard.retraining.engine import retrain
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.trainer import blank_model, state_parts

STEPS = (0.01, 0.1)
_STREAM = 9  # second key word of Philox


def sign_agreement(start: NDArray[np.floating], middle: NDArray[np.floating], end: NDArray[np.floating]) -> float:
    """S of three trainings; 1 where nothing moves at all.

    Args:
        start: θ₀, any shape.
        middle: θ₁, the same shape.
        end: θ₂, the same shape.
    """
    size = np.abs(end - start, dtype=np.float64)
    total = float(size.sum())
    return float((size * np.sign(middle - start) * np.sign(end - middle)).sum() / total) if total > 0 else 1.0


def metasmoothness(
    workspace: Workspace,
    steps: Sequence[float] = STEPS,
    n_directions: int = 3,
    *,
    store: Path | None = None,
) -> Metasmoothness:
    """Train, and compare.

    Args:
        workspace: the task.
        steps: h, each above 0 and at most ½.
        n_directions: random directions for each.
        store: folder of the task's retrains; the shared one by default.

    Raises:
        InputError: a step out of range, or a model whose examples have no weights of their own (batch norm).
    """
    if bad := [step for step in steps if not 0 < step <= 0.5]:
        raise InputError(f"step = {bad[0]}: must lie in (0, ½]: larger ones turn examples around")
    if n_directions < 1:
        raise InputError(f"directions = {n_directions}: must be at least 1")
    task, card = workspace.task, workspace.task.card
    everything, last = np.arange(card.data.n_train), card.recipe.epochs
    requests = [RetrainRequest(everything, 0, (last,), np.ones(len(everything)))]
    for step in steps:
        for direction in range(n_directions):
            v = draw_direction(len(everything), direction)
            requests += [RetrainRequest(everything, 0, (last,), 1 + times * step * v) for times in (1, 2)]
    kept = open_store(task, store)
    with workspace.display.progress(f"{len(requests)} trainings of {card.name}") as progress:
        retrain(task, requests, kept, workspace.executor(progress.say), progress)
    digests = [request.digest(card.fingerprint) for request in requests]
    names = [name for name, part in state_parts(blank_model(task)).items() if part == "parameters"]
    read = [kept.read(f"parameters/{last}/{name}", digests).reshape(len(digests), -1) for name in names]
    parameters = np.concatenate(read, axis=1).astype(np.float64)
    outputs = kept.read(f"outputs/{card.target_output[0]}", digests).astype(np.float64)

    def each(values: NDArray[np.float64], at: int) -> tuple[float, ...]:
        first = 1 + 2 * n_directions * at
        pairs = range(first, first + 2 * n_directions, 2)
        return tuple(round(sign_agreement(values[0], values[i], values[i + 1]), 6) for i in pairs)

    return Metasmoothness(
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        task=TaskInfo(name=card.name, version=card.version, fingerprint=card.fingerprint),
        rows=tuple(
            SmoothnessRow(step=step, parameters=each(parameters, at), outputs=each(outputs, at))
            for at, step in enumerate(steps)
        ),
        provenance=provenance(1),
    )


def draw_direction(n: int, direction: int) -> NDArray[np.float64]:
    """V ~ N(0, I), (n,), from raw Philox words, which numpy guarantees, by the inverse of the normal distribution."""
    generator = np.random.Philox(key=np.array([direction, _STREAM], dtype=np.uint64))
    uniform = ((generator.random_raw(n) >> np.uint64(11)) + 0.5) * 2.0**-53
    return np.asarray(ndtri(uniform))
