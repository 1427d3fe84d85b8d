"""Which seeds should the models of a query loss difference have? The noise of one point's difference, by design.

Every point's own top 1 % is removed with several seeds, beside random removals, in two ways: removed examples have
weight 0 in the same batches, or are left out of the training set. Printed are standard deviations of one point's
difference: over seeds where both models have one seed, over seeds where they have different ones, between random sets,
and between points.

    python -m bench.qld_design [--task digits_mlp] [--regularization 3.16228e-4] [--points 40] [--seeds 3] [--random 8]
"""

import argparse
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

import attriboard as ab
from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.plan import shuffled_points, shuffled_rows, split_of
from attriboard.retraining.engine import retrain
from attriboard.retraining.executors import LocalProcesses
from attriboard.retraining.request import RetrainRequest

_SEED, _SET = 2 * 10**12, 5000  # of no other retrain and random set


def spread(values: NDArray[np.float64], axis: int) -> float:
    """Root of the mean variance along an axis."""
    return float(np.sqrt(values.var(axis=axis, ddof=1).mean()))


def targets(task: Task, sets: Sequence[NDArray[np.int64]], seeds: Sequence[int], weighted: bool) -> NDArray[np.float64]:
    """Target at every test point without each of some sets, (n_seeds, n_sets, n_test)."""
    everything = np.arange(task.card.data.n_train)

    def request(gone: NDArray[np.int64], seed: int) -> RetrainRequest:
        if weighted:
            return RetrainRequest(everything, seed, weights=np.where(np.isin(everything, gone), 0.0, 1.0))
        return RetrainRequest(np.setdiff1d(everything, gone), seed)

    requests = [request(gone, seed) for seed in seeds for gone in sets]
    store = open_store(task, None)
    retrain(task, requests, store, LocalProcesses())
    name, sign = task.card.target_output
    found = store.read(f"outputs/{name}", [r.digest(task.card.fingerprint) for r in requests])
    values: NDArray[np.float64] = sign * found.astype(np.float64).reshape(len(seeds), len(sets), -1)
    return values


def main() -> None:
    """Print both designs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="digits_mlp")
    parser.add_argument("--regularization", type=float, default=3.16228e-4)
    for name, value in (("points", 40), ("seeds", 3), ("random", 8)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    task = load_task(asked.task)
    card = task.card
    size = round(0.01 * card.data.n_train)
    scores = ab.attribute(task, "iffim", regularization=asked.regularization)
    points = np.array([p for p in shuffled_points(card) if p in split_of(card).scoring][: asked.points])
    own = [np.argsort(-scores[point], kind="stable")[:size].astype(np.int64) for point in points]
    random = [shuffled_rows(card, _SET + j)[:size] for j in range(asked.random)]
    seeds = [_SEED + s for s in range(asked.seeds)]
    print("removed by   same seed   other seed   random sets   points")
    for weighted in (True, False):
        removed = targets(task, own, seeds, weighted)[:, np.arange(len(points)), points]
        controls = targets(task, random, seeds, weighted)[:, :, points]
        same = controls.mean(axis=1) - removed
        other = np.roll(controls, 1, axis=0).mean(axis=1) - removed
        numbers = (spread(same, 0), spread(other, 0), spread(controls, 1), float(same.mean(axis=0).std(ddof=1)))
        print(f"{'weight' if weighted else 'subset':<10}" + "".join(f"{number:12.3f}" for number in numbers))


if __name__ == "__main__":
    main()
