"""A λ path with ξ on MNIST + MLP against a single λ, and against dattri's conjugate gradients on the same grid.

The checkpoints are the task's own. dattri redoes everything for every λ, so one λ is measured there, on a few test
points, and extrapolated: its time is a + b × test points (a: the gradients and set-up, b: solves and products of one
test point), measured at two sizes, and the grid takes that 25 times. The comparison's note carries both measurements.
"""

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

from attriboard.attribution.context import build_context
from attriboard.attributors.iffim import IFFIM
from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.opening import open_bundles
from attriboard.retraining.executors import LocalProcesses, usable_cores
from attriboard.scoring.split import split_test_points
from attriboard.toolkit.knobs import REGULARIZATION_GRID
from attriboard.toolkit.regularization import pick_by_xi
from bench.report import Comparison, Measured

DATTRI_POINTS = (2, 6)


def measure(
    repetitions: int = 3,
    task: str = "mnist_mlp",
    *,
    n_train: int | None = None,
    dattri_points: tuple[int, int] = DATTRI_POINTS,
) -> Measured:
    """Seconds of both.

    Args:
        repetitions: of ours, alternating single λ and path.
        task: an MLP task.
        n_train: training examples to use, for a trial run; all of them by default.
        dattri_points: the two numbers of test points that dattri is given.
    """
    live = load_task(task)
    checkpoints = open_bundles(live).checkpoints(lambda say: LocalProcesses())
    context = build_context(live, checkpoints)
    if n_train is not None:
        context = Context(**(vars(context) | {"train": context.train[:n_train]}))
    import torch

    calibration = torch.from_numpy(split_test_points(len(context.test), 0.2, 0).calibration)
    runs = [(_timed(lambda: _single(context)), _timed(lambda: _path(context, calibration))) for _ in range(repetitions)]
    paths = [path for _, path in runs]
    few, many = dattri_points
    _dattri(Context(**(vars(context) | {"train": context.train[:64]})), 1)  # imports and first calls, not counted
    seconds = [_timed(lambda n=n: _dattri(context, n)) for n in (few, many)]
    each = max(seconds[1] - seconds[0], 0.0) / (many - few)
    one_lambda = seconds[0] + each * (len(context.test) - few)
    grid = one_lambda * len(REGULARIZATION_GRID)
    n_lambda = len(REGULARIZATION_GRID)
    sizes = f"{len(context.train):,} train × {len(context.test)} test"
    measured_at = ", ".join(f"{taken:.0f} s for {points}" for taken, points in zip(seconds, dattri_points, strict=True))
    extrapolated = f"extrapolated from one λ and {few} and {many} test points ({measured_at}); measured once"
    return Measured(
        [
            Comparison(
                f"{n_lambda} λ with ξ, exact, {sizes}",
                "dattri 0.3.0 CG",
                [statistics.median(paths)],
                [grid],
                extrapolated,
            )
        ],
        {
            "path_to_single": statistics.median(path / single for single, path in runs),
            "threads": torch.get_num_threads(),
            "cores": usable_cores(),
        },
    )


def _single(context: Context) -> None:
    """One λ: fit and score."""
    attributor = IFFIM()
    state = attributor.fit(context, projection_dim=None, checkpoints=1, epoch=None)
    attributor.score(state, regularization=1e-3)


def _path(context: Context, calibration: Any) -> None:
    """Every λ of the grid, and ξ's pick."""
    attributor = IFFIM()
    state = attributor.fit(context, projection_dim=None, checkpoints=1, epoch=None)
    spectra = [spectrum.at(calibration) for spectrum in attributor.spectrum(state)]
    pick_by_xi(spectra, REGULARIZATION_GRID)
    for value in REGULARIZATION_GRID:
        attributor.score(state, regularization=value)


def _dattri(context: Context, n_test: int) -> None:
    """IFAttributorCG at its ten iterations, for one λ and the first few test points.

    The training set is one batch for the Hessian, which is cheapest there (a second one would double the solves), and
    batches of 1,000 for the gradients (every one of them solves for the test points again).
    """
    from dattri.algorithm.influence_function import IFAttributorCG
    from dattri.task import AttributionTask
    from torch.func import functional_call
    from torch.utils.data import DataLoader, TensorDataset

    (checkpoint,) = context.select_checkpoints(1)

    def function(evaluate: Callable[..., Any]) -> Callable[..., Any]:
        def at(parameters: Any, data: Any) -> Any:
            inputs, targets = data
            return evaluate(functional_call(context.model, parameters, (inputs,)), targets).mean()

        return at

    def loader(examples: Examples, batch_size: int) -> Any:
        return DataLoader(TensorDataset(examples.inputs, examples.targets), batch_size=batch_size)

    task = AttributionTask(
        loss_func=function(context.loss),
        target_func=function(context.target),
        model=copy.deepcopy(context.model).requires_grad_(True),  # it leaves out parameters without a gradient
        checkpoints=dict(checkpoint.parameters),
    )
    attributor = IFAttributorCG(task=task, regularization=1e-3, max_iter=10)
    attributor.cache(loader(context.train, len(context.train)))
    attributor.attribute(loader(context.train, 1000), loader(context.test[:n_test], n_test))


def _timed(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
