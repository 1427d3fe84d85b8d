"""Per-example gradients of MNIST + MLP and their projection, against what the peers run.

dattri takes gradients by `vmap(grad)` and projects with a dense random matrix; traker's CPU projector does,
too. Both draw the matrix anew in blocks. Two things of ours are compared: gradients alone, and gradients
projected to 2,048 dimensions.
"""

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.functional import cross_entropy

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.gradients import per_example_gradients
from attriboard.toolkit.projection import FourierProjection
from bench.report import Comparison, Measured, interleaved

ROWS, BATCH, D_PROJ = 128, 64, 2048


def context_of_noise() -> Context:
    """An untrained model and random images: the time is the same."""
    torch.manual_seed(0)
    examples = Examples(torch.randn(ROWS, 784), torch.randint(0, 10, (ROWS,)))
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    loss = partial(cross_entropy, reduction="none")
    return Context(examples, examples, model.eval(), (Checkpoint(parameters, 1, 0),), loss, loss, loss)


def blocks(context: Context) -> list[Tensor]:
    """Ours, block by block; the last block is kept."""
    (checkpoint,) = context.checkpoints
    size = 4 * 4 * sum(value.numel() for value in checkpoint.parameters.values()) * BATCH
    return [
        block[:1].clone()
        for block in per_example_gradients(context, checkpoint, context.loss, context.train, memory_bytes=size)
    ]


def vmap_gradients(context: Context, use: Callable[[Tensor], object] = lambda block: None) -> None:
    """What dattri and traker do: `vmap(grad)` over batches, flattened."""
    (checkpoint,) = context.checkpoints
    evaluate = context.functional(context.loss)

    def scalar(parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        return evaluate(parameters, inputs, targets)

    gradient = vmap(grad(scalar), in_dims=(None, 0, 0))
    for start in range(0, ROWS, BATCH):
        batch = context.train[start : start + BATCH]
        found = gradient(dict(checkpoint.parameters), batch.inputs, batch.targets)
        use(torch.cat([value.flatten(1) for value in found.values()], dim=1))


def projected(context: Context, project: Callable[[Tensor], Tensor]) -> None:
    """Ours, projected block by block."""
    (checkpoint,) = context.checkpoints
    size = 4 * 4 * sum(value.numel() for value in checkpoint.parameters.values()) * BATCH
    for block in per_example_gradients(context, checkpoint, context.loss, context.train, memory_bytes=size):
        project(block)


def measure(repetitions: int = 5) -> Measured:
    """Gradients alone, then projected by each peer's means."""
    from dattri.func.projection import random_project

    context = context_of_noise()
    n_params = sum(value.numel() for value in context.checkpoints[0].parameters.values())
    fourier = FourierProjection(n_params, D_PROJ, seed=0)
    sample = torch.zeros(BATCH, n_params)
    normal = random_project(sample, BATCH, D_PROJ, 32, proj_type="normal")
    dense = random_project(sample, BATCH, D_PROJ, 32, proj_type="rademacher")
    size = f"{ROWS} gradients of {n_params:,}"
    found = [
        Comparison(
            size,
            "vmap(grad), as in dattri",
            *interleaved(lambda: blocks(context), lambda: vmap_gradients(context), repetitions),
        )
    ]
    peers: dict[str, Callable[[Tensor], object]] = {"dattri 0.3.0, normal": normal, "dattri 0.3.0, Rademacher": dense}
    if (traker := traker_projector(n_params)) is not None:
        peers["traker 0.3.2, Rademacher"] = traker
    for peer, project in peers.items():
        pairs = interleaved(
            lambda: projected(context, fourier), lambda project=project: vmap_gradients(context, project), repetitions
        )
        found.append(Comparison(f"{size}, projected to {D_PROJ:,}", peer, *pairs))
    return Measured(found, {"threads": torch.get_num_threads()})


def traker_projector(n_params: int) -> Callable[[Tensor], object] | None:
    """Traker's CPU projector, where traker is installed."""
    try:
        from trak.projectors import BasicProjector, ProjectionType
    except ImportError:
        return None
    projector = BasicProjector(n_params, D_PROJ, 0, ProjectionType.rademacher, torch.device("cpu"))
    return lambda block: projector.project(block, model_id=0)
