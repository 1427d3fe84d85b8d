"""Metasmoothness of a task: do small changes of the training weights move the trained model steadily?

Engstrom et al., "Optimizing ML Training with Metagradient Descent" (arXiv 2503.13751), definition 2. Three trainings
with example weights 1, 1 + h v and 1 + 2 h v give two successive differences of the trained parameters,

    Δ₁ = A(1 + h v) − A(1),    Δ₂ = A(1 + 2 h v) − A(1 + h v),

and metasmoothness is the agreement of their signs, weighted by the size of the first:

    S = Σ_j |Δ₁_j| sign(Δ₁_j) sign(Δ₂_j) / Σ_j |Δ₁_j|,

1 where every parameter keeps its direction, 0 where the second difference tells nothing of the first. (The paper's text
was not at hand; the form is the one that its definition is known by.) The same of the attributed function on the test
points says what attribution by gradients can hope for. Directions v are random signs. All trainings have one seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import InputError
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.retraining.engine import retrain
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.trainer import blank_model, state_parts

STEPS = (0.01, 0.1)
_STREAM = 9  # second key word of Philox


@dataclass(frozen=True)
class Metasmoothness:
    """Of one task and step, a number per direction.

    Attributes:
        step: h.
        parameters: S of the trained parameters.
        outputs: S of the attributed function on the test points.
    """

    step: float
    parameters: tuple[float, ...]
    outputs: tuple[float, ...]


def sign_agreement(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """S of two successive differences; 1 where nothing moves at all.

    Args:
        first: Δ₁, any shape.
        second: Δ₂, the same shape.
    """
    size = np.abs(first, dtype=np.float64)
    total = float(size.sum())
    return float((size * np.sign(first) * np.sign(second)).sum() / total) if total > 0 else 1.0


def metasmoothness(
    workspace: Workspace,
    steps: Sequence[float] = STEPS,
    n_directions: int = 3,
    *,
    store: Path | None = None,
) -> list[Metasmoothness]:
    """Train, and compare.

    Args:
        workspace: the task.
        steps: h, each above 0 and at most ½, so that no weight is negative.
        n_directions: random directions for each.
        store: folder of the task's retrains; the shared one by default.

    Raises:
        InputError: a step out of range, or a model whose examples have no weights of their own (batch norm).
    """
    if bad := [step for step in steps if not 0 < step <= 0.5]:
        raise InputError(f"step = {bad[0]}: must lie in (0, ½], so that 1 + 2 h v is no negative weight")
    if n_directions < 1:
        raise InputError(f"directions = {n_directions}: must be at least 1")
    task, card = workspace.task, workspace.task.card
    everything, last = np.arange(card.data.n_train), card.recipe.epochs
    requests = [RetrainRequest(everything, 0, (last,), np.ones(len(everything)))]
    for step in steps:
        for direction in range(n_directions):
            v = _signs(len(everything), direction)
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
        return tuple(
            sign_agreement(values[i] - values[0], values[i + 1] - values[i])
            for i in range(first, first + 2 * n_directions, 2)
        )

    return [Metasmoothness(step, each(parameters, at), each(outputs, at)) for at, step in enumerate(steps)]


def _signs(n: int, direction: int) -> NDArray[np.float64]:
    """Random signs (n,), from raw Philox words."""
    generator = np.random.Philox(key=np.array([direction, _STREAM], dtype=np.uint64))
    return np.where(generator.random_raw(n) % np.uint64(2) == 0, -1.0, 1.0)
