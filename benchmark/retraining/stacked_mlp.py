"""Many multilayer perceptrons trained at once on one core.

The layers of M models are stacked, W_l (M, d_in, d_out), and every step is a few batched matrix products over
all of them: forward, softmax cross-entropy, hand-written backward, and the momentum update fused into the
product that makes the gradient, V ← μV + XᵀΔ. What remains beside the products is one pass over the
parameters.

Arithmetic on one model never involves another one's numbers, and the products have the same shape whatever M is.
The library behind them still may sum in another order where a matrix starts at another offset from a 64-byte
boundary, or where a stack of one lets it take a matrix–vector path. So every model's matrices start at such a
boundary, and models with a layer one unit wide are left to another trainer. Then, with one thread, a model's
parameters are the same to the last bit in any stack.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from attriboard.contracts.run import TrainingState
from attriboard.contracts.schedule import learning_rate, n_steps, steps_per_epoch
from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.optimisation import finished_epochs
from attriboard.retraining.request import RetrainRequest, batches
from attriboard.retraining.stacking import stacked_weights
from attriboard.retraining.trainer import State, blank_model, initial_parameters, state_parts

# A stack's parameters, momenta and activations should stay in the cache that one core can count on. Measured
# on mnist_mlp: 4 to 8 models (5–11 MB) run at the same rate; 16 (22 MB) lose a tenth, 50 a quarter.
_STACK_BYTES = 8 * 2**20


class StackedMLPTrainer:
    """Stacked training of `nn.Sequential` models of Linear and ReLU layers under SGD and cross-entropy.

    Args:
        task: a classification task whose model `supports` accepts.
        data: its data; inputs (n, n_inputs) float32.
    """

    def __init__(self, task: Task, data: Dataset) -> None:
        self._task, self._data = task, data
        self._linears = _linear_names(blank_model(task))

    @staticmethod
    def supports(task: Task) -> bool:
        """Whether the task's model, loss and recipe are what this trainer computes."""
        recipe = task.card.recipe
        plain = (recipe.optimizer, recipe.clip_norm, recipe.precision) == ("sgd", None, "float32")
        return plain and task.card.kind == "classification" and _linear_names(blank_model(task)) != []

    @staticmethod
    def stack_size(task: Task) -> int:
        """Models per stack, from the bytes that one model's training touches."""
        shapes = [w.shape for w in blank_model(task).parameters() if w.dim() == 2]
        parameters = sum(d_out * (d_in + 1) for d_out, d_in in shapes)
        activations = task.card.recipe.batch_size * (shapes[0][1] + 3 * sum(d_out for d_out, _ in shapes))
        return max(1, min(128, _STACK_BYTES // (4 * (2 * parameters + 2 * activations))))

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, State]]:
        """See `Trainer`: requests of one subset size; returns epoch → state for each."""
        models = [initial_parameters(self._task, request.seed) for request in requests]
        stack = self._stack(models, None)
        per_epoch = steps_per_epoch(self._task.card.recipe, len(requests[0].indices))
        kept: list[dict[int, State]] = [{} for _ in requests]
        for epoch in finished_epochs(self._steps(requests, stack, 0, per_epoch * epochs[-1]), per_epoch, epochs):
            for m, states in enumerate(kept):
                states[epoch] = self._unstack(m, stack.weights, stack.biases)
        return kept

    def replay(self, request: RetrainRequest, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """See `Trainer`."""
        begin = initial_parameters(self._task, request.seed) if start is None else dict(start.parameters)
        stack = self._stack([begin], start)

        def state(step: int) -> TrainingState:
            velocity = self._unstack(0, stack.weight_velocities, stack.bias_velocities)
            moments = (velocity,) if self._task.card.recipe.momentum else ()
            return TrainingState(step, self._unstack(0, stack.weights, stack.biases), moments)

        yield from map(state, self._steps([request], stack, start.step if start else 0, stop))

    def _stack(self, models: Sequence[State], start: TrainingState | None) -> "_Stack":
        """Models side by side; nn.Linear keeps (d_out, d_in), the stack (M, d_in, d_out): products are plain then."""

        def weights(states: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
            return [_aligned(torch.stack([m[f"{name}.weight"].T for m in states]).contiguous()) for name in names]

        def biases(states: Sequence[Mapping[str, torch.Tensor]]) -> list[torch.Tensor]:
            return [torch.stack([m[f"{name}.bias"] for m in states]).unsqueeze(1) for name in names]

        names = self._linears
        W, b = weights(models), biases(models)
        if start is not None and start.moments:
            return _Stack(W, b, weights(start.moments), biases(start.moments))
        return _Stack(
            W, b, [_aligned(torch.zeros(w.shape, dtype=w.dtype)) for w in W], [torch.zeros_like(one) for one in b]
        )

    def _steps(self, requests: Sequence[RetrainRequest], stack: "_Stack", first: int, stop: int) -> Iterator[int]:
        """Update after update; yields how many have been made, `first` included."""
        recipe = self._task.card.recipe
        step = partial(
            _sgd_step,
            weights=stack.weights,
            biases=stack.biases,
            weight_velocities=stack.weight_velocities,
            bias_velocities=stack.bias_velocities,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        rows = torch.stack([torch.from_numpy(request.indices) for request in requests])  # [M, n]
        example_weights = stacked_weights(requests)
        inputs, targets = self._data.train.inputs, self._data.train.targets
        M, n = rows.shape
        buffer = torch.empty(M * min(recipe.batch_size, n), inputs.shape[1], dtype=inputs.dtype)
        total = n_steps(recipe, n)
        yield first
        orders = [batches(n, request.seed, recipe.batch_size, first, stop) for request in requests]
        for of_each in zip(*orders, strict=True):
            done, batch = of_each[0][0], torch.stack([order for _, order in of_each])
            flat = rows.gather(1, batch).reshape(-1)
            x = torch.index_select(inputs, 0, flat, out=buffer[: flat.numel()])
            of_batch = None if example_weights is None else example_weights.gather(1, batch).to(x.dtype)
            step(
                _aligned(x.view(M, -1, inputs.shape[1])),
                targets[flat],
                learning_rate=learning_rate(recipe, done, total),
                example_weights=of_batch,
            )
            yield done + 1

    def _unstack(self, m: int, weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor]) -> State:
        parameters = {}
        for name, w, b in zip(self._linears, weights, biases, strict=True):
            parameters[f"{name}.weight"] = w[m].T.contiguous()
            parameters[f"{name}.bias"] = b[m, 0].clone()
        return parameters


@dataclass(frozen=True)
class _Stack:
    """M models in training, layer by layer: weights (M, d_in, d_out), biases (M, 1, d_out) and their velocities."""

    weights: list[torch.Tensor]
    biases: list[torch.Tensor]
    weight_velocities: list[torch.Tensor]
    bias_velocities: list[torch.Tensor]


def _linear_names(model: nn.Module) -> list[str]:
    """Names of the Linear layers where the model is Linear (ReLU Linear)* as above, all of it trained; else nothing."""
    if type(model) is not nn.Sequential or len(model) % 2 == 0:
        return []
    for position, layer in enumerate(model):
        if position % 2 == 1 and type(layer) is not nn.ReLU:
            return []
        if position % 2 == 0 and not (
            type(layer) is nn.Linear and layer.bias is not None and min(layer.in_features, layer.out_features) > 1
        ):
            return []
    names = [str(position) for position in range(0, len(model), 2)]
    expected = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return names if trained == expected == state_parts(model).keys() else []


def _aligned_empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialized stack (M, rows, columns) in which each matrix starts at a 64-byte boundary."""
    M, rows, columns = shape
    unit = 64 // dtype.itemsize
    stride = -(-rows * columns // unit) * unit
    return torch.empty(M * stride, dtype=dtype).as_strided(shape, (stride, columns, 1))


def _aligned(stack: torch.Tensor) -> torch.Tensor:
    """A contiguous stack, copied where its matrices do not all start at 64-byte boundaries."""
    if stack[0].numel() * stack.element_size() % 64 == 0:
        return stack
    return _aligned_empty(tuple(stack.shape), stack.dtype).copy_(stack)


def _sgd_step(
    x: torch.Tensor,
    targets: torch.Tensor,
    *,
    weights: list[torch.Tensor],
    biases: list[torch.Tensor],
    weight_velocities: list[torch.Tensor],
    bias_velocities: list[torch.Tensor],
    momentum: float,
    weight_decay: float,
    learning_rate: float,
    example_weights: torch.Tensor | None = None,
) -> None:
    """One update of M models in place.

    Args:
        x: inputs (M, B, d_0).
        targets: class indices (M·B,), model after model.
        weights: per layer (M, d_in, d_out).
        biases: per layer (M, 1, d_out).
        weight_velocities: like `weights`.
        bias_velocities: like `biases`.
        momentum: as `torch.optim.SGD` means it.
        weight_decay: as `torch.optim.SGD` means it.
        learning_rate: as `torch.optim.SGD` means it, of this update.
        example_weights: (M, B), see `RetrainRequest`.
    """
    M, B, _ = x.shape
    activations = [x]
    for w, b in zip(weights[:-1], biases[:-1], strict=True):
        out = _aligned_empty((M, B, w.shape[2]), x.dtype)
        activations.append(torch.baddbmm(b, activations[-1], w, out=out).relu_())
    out = _aligned_empty((M, B, weights[-1].shape[2]), x.dtype)
    logits = torch.baddbmm(biases[-1], activations[-1], weights[-1], out=out)

    # d mean-loss / d logits = (softmax − onehot) / B
    delta = torch.softmax(logits, dim=2)
    delta.view(M * B, -1)[torch.arange(M * B), targets] -= 1
    delta.mul_(1 / B)
    if example_weights is not None:
        delta.mul_(example_weights.unsqueeze(2))

    deltas = [_aligned(delta)]
    for w, a in zip(reversed(weights[1:]), reversed(activations[1:]), strict=True):
        out = _aligned_empty((M, B, w.shape[1]), x.dtype)
        deltas.append(torch.bmm(deltas[-1], w.transpose(1, 2), out=out).mul_(a > 0))
    for layer, (a, delta) in enumerate(zip(activations, reversed(deltas), strict=True)):
        velocity, bias_velocity = weight_velocities[layer], bias_velocities[layer]
        # [M, d_in, B] @ [M, B, d_out] → [M, d_in, d_out], added onto μV in the same pass
        velocity.baddbmm_(a.transpose(1, 2), delta, beta=momentum)
        bias_velocity.mul_(momentum).add_(delta.sum(dim=1, keepdim=True))
        if weight_decay:
            velocity.add_(weights[layer], alpha=weight_decay)
            bias_velocity.add_(biases[layer], alpha=weight_decay)
    torch._foreach_add_(weights, weight_velocities, alpha=-learning_rate)
    torch._foreach_add_(biases, bias_velocities, alpha=-learning_rate)
