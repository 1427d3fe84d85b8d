"""Many small GPT-2 models trained at once on one core.

The parameters of M models are stacked, W (M, d_in, d_out), and every step is one forward and backward pass over all
of them: batched matrix products, attention over M·B blocks, and one fused AdamW update. The head, whose logits are
by far the largest array, never meets autograd: logits, softmax and both gradients are made chunk by chunk while
they are in the cache.

A model's bits do not depend on its stack, as with stacked perceptrons (`stacked_mlp`): its arithmetic never involves
another model's numbers, products have the same shapes whatever M is, and with a width that is a multiple of 32 each
model's share of every array is whole cache lines and whole steps of the vectorized loops, which would treat a
remainder differently. One thread is assumed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from torch import Tensor, nn

from attriboard.contracts.run import TrainingState
from attriboard.contracts.task import Dataset, Task
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacking import replay_stacked, train_stacked
from attriboard.retraining.trainer import State, blank_model

# A chunk of logits and its softmax should stay in the second-level cache.
_CHUNK_BYTES = 2**19
# Parameters, moments, gradients and activations of a stack; more models than this gain nothing.
_STACK_BYTES = 48 * 2**20


@dataclass(frozen=True)
class _Shape:
    """What the names and shapes of GPT-2's parameters do not say, and their common prefix."""

    prefix: str
    n_layers: int
    n_heads: int
    epsilon: float


class StackedGPT2Trainer:
    """Stacked training of Hugging Face's GPT-2 without dropout, under AdamW and mean next-token cross-entropy.

    Args:
        task: a language-modeling task whose model `supports` accepts.
        data: its data; inputs and targets are the same blocks (n, length) int64.
    """

    def __init__(self, task: Task, data: Dataset) -> None:
        shape = _shape(blank_model(task))
        assert shape is not None, "supports() was asked"
        self._task, self._data, self._shape = task, data, shape

    @staticmethod
    def supports(task: Task) -> bool:
        """Whether the task's model, loss and optimizer are what this trainer computes."""
        card, recipe = task.card, task.card.recipe
        if card.kind != "language_modeling" or (recipe.optimizer, recipe.precision) != ("adamw", "float32"):
            return False
        return _shape(blank_model(task)) is not None

    @staticmethod
    def stack_size(task: Task) -> int:
        """Models per stack, from the bytes that one model's training touches."""
        model = blank_model(task)
        config = _config(model)
        parameters: int = sum(parameter.numel() for parameter in model.parameters())
        activations: int = task.card.recipe.batch_size * config.n_positions * config.n_embd * 24 * config.n_layer
        return max(1, min(32, _STACK_BYTES // (4 * (4 * parameters + activations))))

    def train(self, requests: Sequence[RetrainRequest], epochs: Sequence[int]) -> list[dict[int, State]]:
        """See `Trainer`: requests of one subset size; returns epoch → state for each."""
        return train_stacked(self._task, requests, epochs, self._backward)

    def replay(self, request: RetrainRequest, start: TrainingState | None, stop: int) -> Iterator[TrainingState]:
        """See `Trainer`."""
        return replay_stacked(self._task, [request], start, stop, self._backward)

    def _backward(self, stacked: Mapping[str, Tensor], batch: Tensor, weights: Tensor | None) -> None:
        _backward(stacked, self._data.train.inputs[batch], self._shape, weights)


def _config(model: nn.Module) -> Any:
    """The configuration of the Hugging Face model inside, if there is one."""
    return getattr(getattr(model, "gpt2", None), "config", None)


def _shape(model: nn.Module) -> _Shape | None:
    """What `_hidden` needs to know, if the model is a GPT-2 that it computes."""
    config = _config(model)
    if getattr(config, "model_type", None) != "gpt2":
        return None
    plain = (
        config.activation_function == "gelu_new"
        and config.resid_pdrop == config.embd_pdrop == config.attn_pdrop == 0
        and config.n_inner in (None, 4 * config.n_embd)
        and config.scale_attn_weights
        and not (config.scale_attn_by_inverse_layer_idx or config.reorder_and_upcast_attn or config.add_cross_attention)
        and config.tie_word_embeddings
        and config.n_embd % 32 == 0
    )
    return _Shape("gpt2.transformer.", config.n_layer, config.n_head, config.layer_norm_epsilon) if plain else None


def _backward(stacked: Mapping[str, Tensor], tokens: Tensor, shape: _Shape, weights: Tensor | None = None) -> None:
    """Set the gradients of every model's mean loss on its batch.

    Args:
        stacked: name → parameters (M, …).
        tokens: (M, B, T) int64.
        shape: of the model.
        weights: (M, B), see `RetrainRequest`.
    """
    M, B, T = tokens.shape
    hidden = _hidden(stacked, tokens, shape)
    d = hidden.shape[-1]
    used = hidden.view(M, B, T, d)[:, :, :-1].reshape(M, B * (T - 1), d)
    table = stacked[f"{shape.prefix}wte.weight"]
    each = None if weights is None else weights.to(hidden.dtype).repeat_interleave(T - 1, dim=1)
    _Head.apply(used, table, tokens[:, :, 1:].reshape(M, -1), each).backward()  # type: ignore[no-untyped-call]


def _hidden(stacked: Mapping[str, Tensor], tokens: Tensor, shape: _Shape) -> Tensor:
    """GPT-2 up to and with its last layer norm, (M, B·T, d)."""
    M, B, T = tokens.shape
    p = {name.removeprefix(shape.prefix): value for name, value in stacked.items()}
    V, d = p["wte.weight"].shape[1:]
    own = tokens + V * torch.arange(M).view(M, 1, 1)
    h = F.embedding(own, p["wte.weight"].view(M * V, d)) + p["wpe.weight"][:, :T].unsqueeze(1)
    h = h.view(M, B * T, d)

    def norm(x: Tensor, name: str) -> Tensor:
        plain = F.layer_norm(x, (d,), eps=shape.epsilon)
        return torch.addcmul(p[f"{name}.bias"].unsqueeze(1), plain, p[f"{name}.weight"].unsqueeze(1))

    def affine(x: Tensor, name: str) -> Tensor:
        return torch.baddbmm(p[f"{name}.bias"].unsqueeze(1), x, p[f"{name}.weight"])

    for layer in (f"h.{i}" for i in range(shape.n_layers)):
        qkv = affine(norm(h, f"{layer}.ln_1"), f"{layer}.attn.c_attn").view(M * B, T, 3, shape.n_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(M, B * T, d)
        h = h + affine(mixed, f"{layer}.attn.c_proj")
        wide = F.gelu(affine(norm(h, f"{layer}.ln_2"), f"{layer}.mlp.c_fc"), approximate="tanh")
        h = h + affine(wide, f"{layer}.mlp.c_proj")
    return norm(h, "ln_f")


class _Head(torch.autograd.Function):
    """Sum over models of the mean cross-entropy of tied logits h Wᵀ; only its gradients are computed."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, table: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Hidden (M, N, d), table (M, V, d), targets (M, N), their weights (M, N) → 0."""
        M, N, _ = hidden.shape
        d_hidden, d_table = torch.empty_like(hidden), torch.zeros_like(table)
        rows = max(1, _CHUNK_BYTES // (table.element_size() * table.shape[1]))
        for m in range(M):
            for start in range(0, N, rows):
                h, right = hidden[m, start : start + rows], targets[m, start : start + rows]
                # d mean-loss / d logits = (softmax − onehot) / N
                delta = torch.softmax(h @ table[m].T, dim=1)
                delta[torch.arange(len(right)), right] -= 1
                if weights is not None:
                    delta.mul_(weights[m, start : start + rows].unsqueeze(1))
                torch.mm(delta, table[m], out=d_hidden[m, start : start + rows])
                d_table[m].addmm_(delta.T, h)
        ctx.save_for_backward(d_hidden.div_(N), d_table.div_(N))
        return hidden.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The gradients of the mean losses; upstream is 1."""
        d_hidden, d_table = ctx.saved_tensors
        return d_hidden, d_table, None, None
