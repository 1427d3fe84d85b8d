"""A small real problem: digits and a network, with full-data and half-data models at two epochs."""

from dataclasses import replace

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from attriboard.contracts import Checkpoint, Context, Examples

N_TRAIN, N_TEST = 60, 12


def cross_entropy_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(outputs, targets, reduction="none")


def log_odds(outputs: Tensor, targets: Tensor) -> Tensor:
    right = outputs.gather(1, targets[:, None]).squeeze(1)
    return right - outputs.scatter(1, targets[:, None], -torch.inf).logsumexp(1)


def small_network() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 10))


def train_checkpoints(train: Examples, seed: int, indices: Tensor | None) -> list[Checkpoint]:
    torch.manual_seed(seed)
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    seen = train if indices is None else train[indices]
    kept = []
    for epoch in range(1, 61):
        optimizer.zero_grad()
        cross_entropy_loss(model(seen.inputs), seen.targets).mean().backward()
        optimizer.step()
        if epoch in (30, 60):
            parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
            kept.append(Checkpoint(parameters, epoch, seed, indices))
    return kept


@pytest.fixture(scope="session")
def context() -> Context:
    digits = load_digits()
    inputs = torch.from_numpy(digits.data / 16).float()
    targets = torch.from_numpy(digits.target)
    train = Examples(inputs[:N_TRAIN], targets[:N_TRAIN])
    test = Examples(inputs[N_TRAIN : N_TRAIN + N_TEST], targets[N_TRAIN : N_TRAIN + N_TEST])
    checkpoints = []
    for seed in range(5):
        half = torch.randperm(N_TRAIN, generator=torch.Generator().manual_seed(seed))[: N_TRAIN // 2].sort()[0]
        checkpoints += train_checkpoints(train, seed, None) + train_checkpoints(train, 100 + seed, half)
    return Context(
        train,
        test,
        small_network().eval(),
        tuple(checkpoints),
        cross_entropy_loss,
        log_odds,
        log_odds,
        seed=3,
    )


@pytest.fixture(scope="session")
def double_context(context: Context) -> Context:
    """The same in float64, one full-data and one half-data model: what dense oracles are compared with."""
    kept = [context.select_checkpoints(1, data=data)[0] for data in ("full", "half")]
    return replace(
        context,
        train=Examples(context.train.inputs.double(), context.train.targets),
        test=Examples(context.test.inputs.double(), context.test.targets),
        model=small_network().double().eval(),
        checkpoints=tuple(
            replace(c, parameters={name: value.double() for name, value in c.parameters.items()}) for c in kept
        ),
    )
