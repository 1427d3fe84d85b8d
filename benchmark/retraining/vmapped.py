"""Many small modules of any kind trained at once on one core, by `torch.func.vmap`.

Every step is one vectorised forward and backward pass over the stacked parameters (M, …) of M models, and one update.
What a small module costs one at a time is mostly Python and kernel launches, which a stack shares: 2.2 times the speed
of `loop.py` for a perceptron of 11,000 parameters, 1.1 times at 109,386 parameters, where memory is the limit; beyond
that stacking is not tried. Modules with state that examples share, with dropout or with convolutions, which choose
another algorithm for another number of models, are left to the plain trainer; `obstacle` says why.

A model's bits do not depend on its stack. Behind the last model stands a copy of it that is thrown away: the vectorised
loops of elementwise functions treat the end of an array in another way, and a stack of one would take other kernels.
"""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacking import train_stacked
from attriboard.retraining.trainer import State, state_parts

STACK = 16
MAX_PARAMETERS = 150_000
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)


class VmapTrainer:
    """Stacked training of any module for which there is no `obstacle`, under every recipe in float32.

    Args:
        task: a task that `supports` accepts.
        data: its data.

    What vmap refuses when it is tried on two examples is trained one by one, with a warning that says why.
    """

    def __init__(self, task: Task, data: Dataset) -> None:
        self._task, self._data = task, data
        self._module = task.build_model().train()
        refusal = self._try()
        self._alone = None if refusal is None else LoopTrainer(task, data)
        if refusal is not None:
            warnings.warn(f"{task.card.name}: trains one model after another: {refusal}", stacklevel=2)

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
        if self._alone is not None:
            return self._alone.train(requests, epochs)
        return train_stacked(self._task, [*requests, requests[-1]], epochs, self._backward)[:-1]

    def _backward(self, stacked: Mapping[str, Tensor], batch: Tensor) -> None:
        """Add the gradients of every model's mean loss on its batch, (M, B) rows of the training set."""

        def loss(parameters: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
            outputs = functional_call(self._module, dict(parameters), (inputs,))
            return self._task.loss(outputs, targets).mean()

        train = self._data.train
        losses: Tensor = vmap(loss)(dict(stacked), train.inputs[batch], train.targets[batch])
        losses.sum().backward()  # type: ignore[no-untyped-call]

    def _try(self) -> str | None:
        """Two models on two examples: an operation without a batching rule, or one that looks at values, fails here."""
        parameters = dict(self._module.named_parameters())
        stacked = {name: torch.stack([value.detach()] * 2).requires_grad_() for name, value in parameters.items()}
        try:
            self._backward(stacked, torch.tensor([[0, 1], [1, 0]]))
        except (RuntimeError, ValueError, TypeError) as error:
            return str(error).strip().splitlines()[0]
        return None


def obstacle(task: Task) -> str | None:
    """Why a task's models cannot be stacked, or would gain nothing, as far as can be seen without running them."""
    if task.card.recipe.precision != "float32":
        return f"its products are in {task.card.recipe.precision}"
    model = task.build_model()
    n_params = sum(parameter.numel() for parameter in model.parameters())
    if not 0 < n_params <= MAX_PARAMETERS:
        return f"{n_params:,} parameters are {'more than gain from it' if n_params else 'nothing to train'}"
    for name, module in model.named_modules():
        if isinstance(module, DROPOUTS) and module.p > 0:
            return f"{name or 'the model'} draws random numbers"
        if isinstance(module, CONVOLUTIONS):
            return f"the convolution {name or 'itself'} has other bits beside other models"
    buffers = [name for name, part in state_parts(model).items() if part == "buffers"]
    return f"training may change the buffer {buffers[0]}" if buffers else None
