"""Many small modules of any kind trained at once on one core, by `torch.func.vmap`.

Every step is one vectorized forward and backward pass over the stacked parameters (M, …) of M models, and one update.
What a small module costs one at a time is mostly Python and kernel launches, which a stack shares: 2.2 times the speed
of `loop.py` for a perceptron of 11,000 parameters, 1.1 times at 109,386 parameters, where memory is the limit; beyond
that stacking is not tried. Modules with state that examples share, with dropout or with convolutions, which choose
another algorithm for another number of models, are left to the plain trainer; `obstacle` says why.

A model's bits do not depend on its stack. Behind the last model stands a copy of it that is thrown away: the vectorized
loops of elementwise functions treat the end of an array in another way, and a stack of one would take other kernels.
"""

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor, nn
from torch.func import functional_call, vmap

from attriboard.contracts.run import TrainingState
from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.loop import weighted_mean
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacking import Backward, replay_stacked, train_stacked
from attriboard.retraining.trainer import State, blank_model, state_parts

STACK = 16
MAX_PARAMETERS = 150_000
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class VmapTrainer:
    """Stacked training of any module for which there is no `obstacle`, under every recipe in float32.

    What vmap cannot do shows when it is tried: see `attriboard.retraining.agreement`.

    Args:
        task: a task that `supports` accepts.
        data: its data.
    """

    def __init__(self, task: Task, data: Dataset) -> None:
        self._task, self._data = task, data

    @staticmethod
    def supports(task: Task) -> bool:
        """Whether nothing that can be seen from outside speaks against it."""
        return obstacle(task) is None

    @staticmethod
    def stack_size(task: Task) -> int:
        """Sixteen; more share nothing more."""
        return STACK

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, State]]:
        """See `Trainer`: requests of one subset size; returns epoch → state for each."""
        return train_stacked(self._task, [*requests, requests[-1]], epochs, self._backward())[:-1]

    def replay(self, request: RetrainRequest, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """See `Trainer`."""
        return replay_stacked(self._task, [request, request], start, stop, self._backward())

    def _backward(self) -> Backward:
        module = blank_model(self._task).train()  # a new one each time: it may keep count of its calls
        train = self._data.train

        def loss(parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
            losses = self._task.loss(functional_call(module, dict(parameters), (inputs,)), targets)
            return losses.mean() if weights is None else weighted_mean(losses, weights)

        def backward(stacked: Mapping[str, Tensor], batch: Tensor, weights: Tensor | None) -> None:
            of_each = vmap(loss, in_dims=(0, 0, 0, None if weights is None else 0))
            losses: Tensor = of_each(dict(stacked), train.inputs[batch], train.targets[batch], weights)
            losses.sum().backward()  # type: ignore[no-untyped-call]

        return backward


def obstacle(task: Task) -> str | None:
    """Why a task's models cannot be stacked, or would gain nothing, as far as can be seen without running them."""
    if task.card.recipe.precision != "float32":
        return f"its products are in {task.card.recipe.precision}"
    model = blank_model(task)
    n_params = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if not 0 < n_params <= MAX_PARAMETERS:
        return f"{n_params:,} parameters are {'more than gain from it' if n_params else 'nothing to train'}"
    for name, module in model.named_modules():
        if isinstance(module, DROPOUTS) and module.p > 0:
            return f"{name or 'the model'} draws random numbers"
        if isinstance(module, CONVOLUTIONS):
            return f"the convolution {name or 'itself'} has other bits beside other models"
    buffers = [name for name, part in state_parts(model).items() if part == "buffers"]
    return f"training may change the buffer {buffers[0]}" if buffers else None
