"""dattri's attributors, as its users run them (dattri 0.3.0; Deng et al., NeurIPS 2024, arXiv 2410.04555).

The library gets the task's model, checkpoints, loss and f, and computes; nothing of ours touches its numerics. What is
translated: the sign (dattri's influence and TracIn scores are ⟨∇L, …∇f⟩, ours are minus that), the axes (ours are
(n_test, n_train)), and λ, which is always added to the curvature that is normalized by 1/n:

    dattri:trak    its Gram is ΦᵀΦ of gradients divided by √n_params: its regularization = λ · n_train / n_params
    dattri:if_cg   the same λ; with several cache batches it adds up the inverses of the batches' Hessians
    dattri:ekfac   the same λ

Batch sizes are those of its benchmark script on MNIST. `dattri:ekfac` estimates its curvature with the training loss
and is then given f as its target.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from attriboard.attributors.adapters import require_whole_model
from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context, Hyperparameter
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs
from attriboard.toolkit.averaging import FixedScores
from attriboard.toolkit.gradients import count_parameters

try:
    from dattri.algorithm.influence_function import IFAttributorCG, IFAttributorEKFAC
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask
except ImportError as error:
    raise ImportError(f"needs pip install 'attriboard[dattri]' ({error})") from error

LIBRARY = "dattri 0.3.0"
SCRIPT = "dattri 0.3.0 experiments/benchmark_result.py on MNIST"

BATCH_SIZE = Hyperparameter(
    "batch_size", 500, SCRIPT, minimum=1, description="examples per batch of gradients; memory grows with it"
)
CACHE_BATCH_SIZE = Hyperparameter(
    "cache_batch_size", 5000, SCRIPT, minimum=1, description="training examples per batch of the curvature"
)


def regularization(
    source: str, grid: tuple[float, ...] = knobs.REGULARIZATION_GRID, aliases: tuple[str, ...] = ()
) -> Hyperparameter:
    """λ; every value is a run of its own there."""
    return Hyperparameter(
        "regularization",
        0.0,
        source,
        grid=grid,
        minimum=0.0,
        description="λ, absolute, added to the curvature normalized by 1/n",
        aliases=aliases,
    )


class Adapter(FixedScores):
    """Everything happens in `fit`: dattri has no cheap second λ."""

    paper = "arXiv:2410.04555"
    family = "dattri"


class DattriTRAK(Adapter):
    """dattri's TRAKAttributor."""

    name = "dattri-trak"
    hyperparameters = (
        regularization(f"{LIBRARY} TRAKAttributor: regularization=0.0"),
        knobs.projection_dim(512, f"{LIBRARY} TRAKAttributor: proj_dim=512"),
        knobs.checkpoints(5, "its benchmark averages half-data models; five is what a task card offers"),
        knobs.epoch(),
        BATCH_SIZE,
    )

    def fit(
        self,
        context: Context,
        *,
        regularization: float,
        projection_dim: int,
        checkpoints: int,
        epoch: int | None,
        batch_size: int,
    ) -> Tensor:
        """Cache the training set, attribute the test set."""
        models = context.select_checkpoints(checkpoints, epoch=epoch, data="half")
        model = copied(context)
        attributor = TRAKAttributor(
            task=task(model, models, context.margin, context.target, single=True),
            # 1/(1 + e^−m), also where the loss is no likelihood.
            correct_probability_func=scalar(model, lambda *batch: torch.sigmoid(context.margin(*batch)), single=True),
            projector_kwargs=projector(context, projection_dim),
            device=context.device,
            regularization=regularization * len(context.train) / count_parameters(context),
        )
        attributor.cache(loader(context.train, batch_size))
        with torch.no_grad():
            return translated(attributor.attribute(loader(context.test, batch_size)))


class DattriTracIn(Adapter):
    """dattri's TracInAttributor with weights of one: Grad-Dot, and with `normalize` Grad-Cos."""

    name = "dattri-tracin"
    hyperparameters = (
        knobs.projection_dim(512, f"{LIBRARY} TracInAttributor: proj_dim=512"),
        Hyperparameter("normalize", False, SCRIPT, grid=(False, True), description="whether gradients have length one"),
        knobs.checkpoints(1, SCRIPT + ", Grad-Dot"),
        knobs.epoch(),
        BATCH_SIZE,
    )

    def fit(
        self,
        context: Context,
        *,
        projection_dim: int,
        normalize: bool,
        checkpoints: int,
        epoch: int | None,
        batch_size: int,
    ) -> Tensor:
        """Attribute."""
        models = context.select_checkpoints(checkpoints, epoch=epoch)
        attributor = TracInAttributor(
            task=task(copied(context), models, context.loss, context.target, single=True),
            weight_list=torch.ones(checkpoints),
            normalized_grad=normalize,
            projector_kwargs=projector(context, projection_dim),
            device=context.device,
        )
        with torch.no_grad():
            scores = attributor.attribute(loader(context.train, batch_size), loader(context.test, batch_size))
        return translated(-scores)


class DattriCG(Adapter):
    """dattri's IFAttributorCG."""

    name = "dattri-if_cg"
    curvature = "hessian"
    hyperparameters = (
        regularization(f"{LIBRARY} IFAttributorCG: regularization=0.0"),
        Hyperparameter(
            "max_iterations", 10, f"{LIBRARY} IFAttributorCG: max_iter=10", minimum=1, description="CG iterations"
        ),
        knobs.checkpoints(1, SCRIPT),
        knobs.epoch(),
        BATCH_SIZE,
        CACHE_BATCH_SIZE,
    )

    def fit(
        self,
        context: Context,
        *,
        regularization: float,
        max_iterations: int,
        checkpoints: int,
        epoch: int | None,
        batch_size: int,
        cache_batch_size: int,
    ) -> Tensor:
        """Cache the training set, attribute."""
        models = context.select_checkpoints(checkpoints, epoch=epoch)
        attributor = IFAttributorCG(
            task=task(copied(context), models, context.loss, context.target),
            device=context.device,
            max_iter=max_iterations,
            regularization=regularization,
        )
        attributor.cache(loader(context.train, cache_batch_size))
        with torch.no_grad():
            scores = attributor.attribute(loader(context.train, batch_size), loader(context.test, batch_size))
        return translated(-scores)


class DattriEKFAC(Adapter):
    """dattri's IFAttributorEKFAC."""

    name = "dattri-ekfac"
    hyperparameters = (
        regularization(f"{LIBRARY} IFAttributorEKFAC: damping=0.0", aliases=("damping",)),
        knobs.epoch(),
        BATCH_SIZE,
        CACHE_BATCH_SIZE,
    )

    def fit(
        self, context: Context, *, regularization: float, epoch: int | None, batch_size: int, cache_batch_size: int
    ) -> Tensor:
        """Estimate the curvature of the loss, then attribute f."""
        models = context.select_checkpoints(1, epoch=epoch)
        model = copied(context)
        attributor = IFAttributorEKFAC(
            task=task(model, models, context.loss, context.loss), device=context.device, damping=regularization
        )
        attributor.cache(loader(context.train, cache_batch_size))
        attributor.task = task(model, models, context.loss, context.target)
        with torch.no_grad():
            scores = attributor.attribute(loader(context.train, batch_size), loader(context.test, batch_size))
        return translated(-scores)


def task(
    model: torch.nn.Module,
    models: tuple[Checkpoint, ...],
    loss: BatchFunction,
    target: BatchFunction,
    *,
    single: bool = False,
) -> Any:
    """The task as dattri sees it.

    Args:
        model: into which dattri loads checkpoints.
        models: the checkpoints.
        loss: trained on.
        target: attributed.
        single: whether dattri passes one example without a batch axis, as it does in TRAK and TracIn.
    """
    return AttributionTask(
        loss_func=scalar(model, loss, single),
        target_func=scalar(model, target, single),
        model=model,
        checkpoints=[dict(one.parameters) | dict(one.buffers) for one in models],
    )


def scalar(
    model: torch.nn.Module, function: BatchFunction, single: bool
) -> Callable[[Mapping[str, Tensor], tuple[Tensor, Tensor]], Tensor]:
    """A function of (parameters, (inputs, targets)) → mean over the batch."""

    def evaluate(parameters: Mapping[str, Tensor], data: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = (part.unsqueeze(0) for part in data) if single else data
        outputs = torch.func.functional_call(model, dict(parameters), (inputs,))
        return function(outputs, targets).mean()

    return evaluate


def copied(context: Context) -> torch.nn.Module:
    """A model for dattri to load checkpoints into and to hook."""
    require_whole_model(context, "dattri")
    return copy.deepcopy(context.model).requires_grad_(True)


def projector(context: Context, projection_dim: int) -> dict[str, Any]:
    """All of dattri's projector arguments: those left out are what its last caller gave."""
    return {
        "proj_dim": projection_dim,
        "proj_max_batch_size": 32,
        "proj_seed": context.seed,
        "device": context.device,
    }


def loader(examples: Examples, batch_size: int) -> DataLoader[tuple[Tensor, ...]]:
    """The examples in their order."""
    dataset = TensorDataset(examples.inputs, examples.targets)
    return DataLoader(dataset, batch_size=min(batch_size, len(examples)), shuffle=False)


def translated(scores: Tensor) -> Tensor:
    """(n_train, n_test) → (n_test, n_train), float32."""
    return scores.detach().T.float().contiguous()
