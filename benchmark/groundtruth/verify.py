"""Verification: retrain a few random rows of a bundle and see whether they are the rows that it holds.

On the same kind of machine a retrain repeats to the last bit. Elsewhere the order of floating-point sums
differs, and training may carry that as far as another seed would. So a row is judged in units of seed noise:
per test point, the standard deviation between repeats, pooled over masks. A row that repeats to the last bit
passes. Another one passes where the retrain and the published row, each by itself, are nearer to the other
repeats of their mask than to those of any other mask, and where they are no further apart than two fresh seeds
would be; where seed noise is larger than what masks do, that is asking too much, and only exact rows pass.
Moved rows fail the first; a wrong recipe, wrong data or a model that no longer trains fail one of the two.

Retrains with the same seed have no seed noise. Their unit is the standard deviation over masks, and a row may be
`SAME_SEED_SPREAD` of it away. Another order of sums alone moves far less: on `digits_mlp` the plain loop, one model at
a time, is .00001 to .015 away from what stacks of 55 gave, and the row of the nearest other mask .4 to 1.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from attriboard.base.errors import InputError
from attriboard.contracts.task import Task
from attriboard.groundtruth.bundle import GroundTruth
from attriboard.groundtruth.plan import kept_rows, truth_request, truth_seed
from attriboard.retraining.engine import Progress, retrain
from attriboard.retraining.executors import Executor
from attriboard.retraining.store import RetrainStore

# Two independent seeds are √2 apart in these units; the rest is for tails heavier than a normal's.
_MAX_DISTANCE = 2.0
SAME_SEED_SPREAD = 0.25
"""Largest distance between a retrain with the same seed on another machine and its row, in deviations over masks."""


@dataclass(frozen=True)
class RowCheck:
    """One retrained row against the bundle's.

    Attributes:
        mask, repeat: which row.
        exact: whether every output is the same to the last bit.
        rank_correlation: Spearman over test points between the two rows' deviations from the mean over masks.
        distance: root mean square over test points of the difference, in standard deviations of seed noise, or with the
            same seed over masks.
        max_abs_z: largest difference over test points, in the same unit.
        ok: whether the row passes.
    """

    mask: int
    repeat: int
    exact: bool
    rank_correlation: float
    distance: float
    max_abs_z: float
    ok: bool


def check_plan(truth: GroundTruth, task: Task) -> None:
    """Check that a bundle has the masks and seeds that its task's card determines.

    Raises:
        InputError: another task, or masks or seeds that are not the card's.
    """
    if truth.card.fingerprint != task.card.fingerprint:
        raise InputError(
            f"{truth.path}: ground truth of fingerprint {truth.card.fingerprint[:12]}…, "
            f"task {task.card.name} has {task.card.fingerprint[:12]}…; they do not belong together"
        )
    card, question = task.card, truth.question
    for k, mask in enumerate(truth.masks):
        if not np.array_equal(np.flatnonzero(mask), kept_rows(card, question, k)):
            raise InputError(f"{truth.path}: mask {k} is not the one that the task's card determines; rows were moved")
        seeds = truth.seeds[k].tolist()
        expected = [truth_seed(question, k, r) for r in range(truth.card.n_repeats)]
        if seeds != expected:
            raise InputError(f"{truth.path}: seeds of mask {k} are {seeds}, expected {expected}")


def choose_rows(truth: GroundTruth, count: int, seed: int | None) -> list[tuple[int, int]]:
    """Different random (mask, repeat) pairs, at most all of them; another choice each time without a seed."""
    n_repeats = truth.card.n_repeats
    total = truth.card.n_masks * n_repeats
    picks = np.random.default_rng(seed).choice(total, size=min(count, total), replace=False)
    return [divmod(int(pick), n_repeats) for pick in picks]


def choose_masks(truth: GroundTruth, count: int, seed: int | None) -> list[tuple[int, int]]:
    """Every repeat of different random masks, at most of all of them."""
    n_masks = truth.card.n_masks
    picks = np.random.default_rng(seed).choice(n_masks, size=min(count, n_masks), replace=False)
    return [(int(mask), repeat) for mask in sorted(picks) for repeat in range(truth.card.n_repeats)]


def verify_rows(
    truth: GroundTruth,
    task: Task,
    store: RetrainStore,
    rows: Sequence[tuple[int, int]],
    *,
    executor: Executor | None = None,
    progress: Progress = lambda done, total: None,
) -> list[RowCheck]:
    """Retrain rows and compare.

    Args:
        truth: the bundle.
        task: its task.
        store: an empty store: what is in it already would be believed, not retrained.
        rows: (mask, repeat) pairs.
        executor: see `retrain`.
        progress: see `retrain`.
    """
    requests = [truth_request(task.card, truth.question, k, r) for k, r in rows]
    retrain(task, requests, store, executor, progress)
    digests = [request.digest(task.card.fingerprint) for request in requests]
    fresh = {name: store.read(f"outputs/{name}", digests) for name in ("loss", "margin")}
    mean, noise = _seed_noise(truth.outputs["margin"])
    return [
        _check_row(truth, k, r, {name: array[row] for name, array in fresh.items()}, mean, noise)
        for row, (k, r) in enumerate(rows)
    ]


def _seed_noise(outputs: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over all rows, and standard deviation of one retrain around its mask's mean; both (n_test,).

    With one repeat the spread over masks is used: an upper bound of the noise.
    """
    values = outputs.astype(np.float64)
    n_repeats = values.shape[1]
    variance = values.var(axis=1, ddof=1).mean(axis=0) if n_repeats > 1 else values[:, 0].var(axis=0, ddof=1)
    return values.mean(axis=(0, 1)), np.sqrt(variance) + np.finfo(np.float64).tiny


def _check_row(
    truth: GroundTruth,
    mask: int,
    repeat: int,
    fresh: dict[str, NDArray[np.generic]],
    mean: NDArray[np.float64],
    noise: NDArray[np.float64],
) -> RowCheck:
    new = fresh["margin"].astype(np.float64)
    published = truth.outputs["margin"].astype(np.float64)
    row = published[mask, repeat]
    # Of as many repeats for every mask: a mean of fewer is further from everything.
    others = np.delete(published, repeat, axis=1) if published.shape[1] > 1 else published
    centres = others.mean(axis=1)  # (n_masks, n_test)
    identified = all(np.argmin(_distance(centres, outputs, noise)) == mask for outputs in (new, row))
    own = _distance(row, new, noise)
    limit = SAME_SEED_SPREAD if truth.question and truth.question.same_seed else _MAX_DISTANCE
    exact = all(np.array_equal(array, truth.outputs[name][mask, repeat]) for name, array in fresh.items())
    correlation = spearmanr(new - mean, row - mean).statistic
    return RowCheck(
        mask=mask,
        repeat=repeat,
        exact=exact,
        rank_correlation=float(correlation),
        distance=float(own),
        max_abs_z=float(np.abs((row - new) / noise).max()),
        ok=bool(exact or (identified and own <= limit)),
    )


def _distance(a: NDArray[np.float64], b: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square over test points of the difference in units of noise; (…, n_test) → (…)."""
    distance: NDArray[np.float64] = np.sqrt((((a - b) / noise) ** 2).mean(axis=-1))
    return distance
