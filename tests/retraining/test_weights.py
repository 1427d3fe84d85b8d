"""Weights of examples: in every trainer, in names of retrains, and on their way."""

from pathlib import Path

import numpy as np
import pytest
import torch
from given_task import Given, far, request, trained
from tiny import N_INPUTS, N_TRAIN, TinyTask
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its customary name

from attriboard.base.errors import InputError
from attriboard.retraining.engine import retrain
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from attriboard.retraining.store import RetrainStore
from attriboard.retraining.trainer import State, Trainer, initial_parameters
from attriboard.retraining.vmapped import VmapTrainer

WEIGHTS = np.linspace(-0.5, 2.0, 22)
WEIGHTS[3:6] = 0


def by_hand(task: TinyTask, wanted: RetrainRequest) -> State:
    """Momentum SGD on Σ w ℓ / B, with PyTorch's own optimizer."""
    from attriboard.retraining.request import epoch_order
    from attriboard.retraining.trainer import new_model

    model, data, recipe = new_model(task, wanted.seed), task.load_data().train, task.card.recipe
    optimizer = torch.optim.SGD(model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    assert wanted.weights is not None
    for epoch in (1, 2, 3):
        order = epoch_order(22, wanted.seed, epoch)
        for start in range(0, 22, recipe.batch_size):
            batch = order[start : start + recipe.batch_size]
            rows = wanted.indices[batch]
            losses = F.cross_entropy(model(data.inputs[rows]), data.targets[rows], reduction="none")
            optimizer.zero_grad()
            ((losses * torch.from_numpy(wanted.weights[batch])).sum() / len(batch)).backward()
            optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


@pytest.mark.parametrize("trainer", [StackedMLPTrainer, VmapTrainer, LoopTrainer])
def test_weights_multiply_each_examples_loss_and_not_the_batchs_size(trainer: type[Trainer]) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        task, requests = Given(), [request(0, WEIGHTS), request(1, WEIGHTS[::-1])]
        for found, wanted in zip(trained(task, trainer, *requests), requests, strict=True):
            assert far(found, by_hand(task, wanted)) < 1e-12
        ones, plain = trained(task, trainer, request(0, np.ones(22)))[0], trained(task, trainer, request(0))[0]
        assert far(ones, plain) < 1e-14
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("trainer", [StackedMLPTrainer, VmapTrainer, LoopTrainer])
def test_a_batch_of_zeros_still_makes_its_step(trainer: type[Trainer]) -> None:
    task = Given(batch_size=64, momentum=0.0, weight_decay=0.1)
    start, end = initial_parameters(task, request().seed), trained(task, trainer, request(0, np.zeros(22)))[0]
    for name in start:
        torch.testing.assert_close(end[name], start[name] * (1 - 0.1 * 0.1) ** 3)


@pytest.mark.parametrize("trainer", [StackedMLPTrainer, VmapTrainer, LoopTrainer])
def test_weighted_models_have_the_same_bits_alone_and_beside_others(trainer: type[Trainer]) -> None:
    task, zeros = Given(), np.ones(22)
    zeros[:8] = 0  # some batches have no example left
    requests = [request(k, np.roll(zeros, k)) for k in range(5)]
    for one, beside in zip(requests, trained(task, trainer, *requests), strict=True):
        assert far(trained(task, trainer, one)[0], beside) == 0


def test_weights_are_part_of_the_name_and_travel(tmp_path: Path) -> None:
    task, weighted = Given(), request(0, WEIGHTS)
    fingerprint = task.card.fingerprint
    assert request().digest(fingerprint) == RetrainRequest(request().indices, 1000, weights=None).digest(fingerprint)
    names = {r.digest(fingerprint) for r in (request(), weighted, request(0, np.ones(22)))}
    assert len(names) == 3
    back = RetrainRequest.from_json(weighted.to_json(N_TRAIN), N_TRAIN)
    assert back.digest(fingerprint) == weighted.digest(fingerprint)
    with pytest.raises(InputError, match=r"weights of a retrain: \(21,\), must be a finite number for each of 22"):
        request(0, WEIGHTS[:-1])
    store = RetrainStore(tmp_path, fingerprint)
    assert retrain(task, [request(), weighted, back], store) == 2
    outputs = store.read("outputs/margin", [request().digest(fingerprint), weighted.digest(fingerprint)])
    assert not np.array_equal(outputs[0], outputs[1])


def test_weights_with_batch_norm_are_refused(tmp_path: Path) -> None:
    task = Given(lambda: nn.Sequential(nn.BatchNorm1d(N_INPUTS), nn.Linear(N_INPUTS, 3)))
    with pytest.raises(InputError, match="examples of a model with batch norm have no weights of their own"):
        retrain(task, [request(0, WEIGHTS)], RetrainStore(tmp_path, task.card.fingerprint))
