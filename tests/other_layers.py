"""Two tiny float64 problems with layers that are not linear: a network of convolutions, and GPT-2's architecture."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples

N, N_TEST, CLASSES, VOCABULARY, LENGTH = 24, 5, 3, 11, 6


class Convolutions(nn.Module):
    """Two convolutions with batch norm on images of two channels; one has a bias and a stride."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.second, self.second_norm = nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        hidden = torch.tanh(self.first_norm(self.first(images)))
        hidden = nn.functional.relu(self.second_norm(self.second(hidden)), inplace=True)
        logits: Tensor = self.head(hidden.mean((2, 3)))
        return logits


class TokenLogits(nn.Module):
    def __init__(self, gpt2: nn.Module) -> None:
        super().__init__()
        self.gpt2 = gpt2

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.gpt2(input_ids=tokens, use_cache=False).logits
        return logits


def class_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, reduction="none")


def class_margin(outputs: Tensor, targets: Tensor) -> Tensor:
    right = outputs.gather(1, targets[:, None]).squeeze(1)
    return right - outputs.scatter(1, targets[:, None], -torch.inf).logsumexp(1)


def token_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs[:, :-1].transpose(1, 2), targets[:, 1:], reduction="none").mean(1)


def token_margin(outputs: Tensor, targets: Tensor) -> Tensor:
    loss = token_loss(outputs, targets)
    return -loss - (-(-loss).expm1()).log()


def convolutions() -> Context:
    torch.manual_seed(0)
    train = Examples(torch.randn(N, 2, 6, 6).double(), torch.arange(N) % CLASSES)
    test = Examples(torch.randn(N_TEST, 2, 6, 6).double(), torch.arange(N_TEST) % CLASSES)
    return context_of(Convolutions(), train, test, class_loss, class_margin)


def language_model() -> Context:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_positions=LENGTH, n_embd=8, n_layer=1, n_head=2, use_cache=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=None, eos_token_id=None,
        attn_implementation="eager",
    )  # fmt: skip
    model = TokenLogits(transformers.GPT2LMHeadModel(config))
    train, test = (Examples(tokens, tokens) for tokens in torch.randint(VOCABULARY, (N + N_TEST, LENGTH)).split(N))
    return context_of(model, train, test, token_loss, token_margin)


PROBLEMS = [convolutions, language_model]


def context_of(model: nn.Module, train: Examples, test: Examples, loss: Any, margin: Any) -> Context:
    """With random running statistics, and larger parameters than new ones: gradients of one size in all layers."""
    model = model.double().eval().requires_grad_(False)
    parameters = {name: value.clone() + 0.3 * torch.randn_like(value) for name, value in model.named_parameters()}
    buffers = {
        name: torch.rand_like(value) + 0.5 if value.is_floating_point() else value.clone()
        for name, value in model.named_buffers()
    }
    checkpoints = (
        Checkpoint(dict(sorted(parameters.items())), epoch=1, seed=0, buffers=buffers),
        Checkpoint(parameters, epoch=1, seed=1, indices=torch.arange(0, len(train), 2), buffers=buffers),
    )
    return Context(train, test, model, checkpoints, loss, margin, margin)


def in_single_precision(context: Context) -> Context:
    """The same with float32 data and parameters."""

    def single(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor

    checkpoints = [
        replace(
            one,
            parameters={name: single(value) for name, value in one.parameters.items()},
            buffers={name: single(value) for name, value in one.buffers.items()},
        )
        for one in context.checkpoints
    ]
    train, test = (Examples(single(side.inputs), side.targets) for side in (context.train, context.test))
    return replace(context, model=context.model.float(), train=train, test=test, checkpoints=tuple(checkpoints))


def one_by_one(context: Context, function: Any, examples: Examples) -> dict[str, Tensor]:
    """Gradients (n, *shape) of every parameter: one ordinary backward pass for each example."""
    checkpoint = context.checkpoints[0]
    parameters = {name: value.clone().requires_grad_() for name, value in checkpoint.parameters.items()}
    rows = []
    for row in range(len(examples)):
        one = examples[row : row + 1]
        outputs = torch.func.functional_call(context.model, {**checkpoint.buffers, **parameters}, (one.inputs,))
        rows.append(torch.autograd.grad(function(outputs, one.targets).sum(), list(parameters.values())))
    stacked = {name: torch.stack(values) for name, values in zip(parameters, zip(*rows, strict=True), strict=True)}
    return {name: stacked[name] for name, _ in context.model.named_parameters()}


def flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.flatten(1) for value in gradients.values()], dim=1)
