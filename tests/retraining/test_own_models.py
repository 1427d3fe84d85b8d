"""Any model and loss: every trainer computes what they say, or the task is refused before any training."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from given_task import Given, Loss, far, request, trained
from tiny import N_INPUTS, N_TEST, N_TRAIN, tiny_card
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its customary name

from attriboard.base.errors import AttriboardError, CardError, InputError
from attriboard.contracts.task import Dataset, Examples
from attriboard.retraining.agreement import telling_rows
from attriboard.retraining.choosing import describe_training, trainer_class
from attriboard.retraining.engine import _measure, retrain
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.opening import check_task
from attriboard.retraining.optimisation import SGD
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacked_mlp import StackedMLPTrainer
from attriboard.retraining.store import RetrainStore
from attriboard.retraining.trainer import Trainer, initial_parameters
from attriboard.retraining.vmapped import VmapTrainer

LOSSES: dict[str, Loss] = {
    "label smoothing": lambda o, t: F.cross_entropy(o, t, label_smoothing=0.3, reduction="none"),
    "one class counts more": lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([1.0, 1.0, 5.0]), reduction="none"),
    "squared error": lambda o, t: ((o - F.one_hot(t, 3)) ** 2).sum(1),
    "clamped far from the start": lambda o, t: F.cross_entropy(o, t, reduction="none").clamp(max=2.5),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_an_own_loss_is_the_one_that_is_trained(loss: Loss) -> None:
    task = Given(loss=loss)
    kind = trainer_class(task)
    assert kind is not StackedMLPTrainer
    assert "StackedMLPTrainer is not used: its" in describe_training(task)
    requests = [request(k) for k in range(3)]
    for found, wanted in zip(trained(task, kind, *requests), trained(task, LoopTrainer, *requests), strict=True):
        assert far(found, wanted) < 1e-5


class Capped(nn.Sequential):
    """A perceptron by its parts, another function by its forward."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 3 * torch.tanh(super().forward(inputs) / 3)


def perceptron(kind: type[nn.Sequential] = nn.Sequential) -> nn.Sequential:
    return kind(nn.Linear(N_INPUTS, 7), nn.ReLU(), nn.Linear(7, 3))


def tied() -> nn.Sequential:
    shared = nn.Linear(N_INPUTS, N_INPUTS)
    return nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(N_INPUTS, 3))


def hooked() -> nn.Sequential:
    model = perceptron()
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return model


def frozen() -> nn.Sequential:
    model = perceptron()
    model[0].requires_grad_(False)
    return model


class BatchCentered(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs - inputs.mean(0))


class Counting(nn.Linear):
    """Its outputs shrink with every call, counted in a plain attribute."""

    calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(inputs) / self.calls


MODELS: dict[str, Callable[[], nn.Module]] = {
    "capped": lambda: perceptron(Capped),
    "a module called twice": tied,
    "a hook": hooked,
    "frozen": frozen,
    "depends on the batch": lambda: BatchCentered(N_INPUTS, 3),
    "counts its calls": lambda: Counting(N_INPUTS, 3),
    "weight norm": lambda: nn.utils.parametrizations.weight_norm(nn.Linear(N_INPUTS, 3)),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("recipe", [{}, {"weight_decay": 0.1, "clip_norm": 0.2}])
def test_an_own_model_is_the_one_that_is_trained(build: Callable[[], nn.Module], recipe: dict[str, Any]) -> None:
    task = Given(build, **recipe)
    kind = trainer_class(task)
    assert kind is not StackedMLPTrainer
    requests = [request(k) for k in range(3)]
    together, wanted = trained(task, kind, *requests), trained(task, LoopTrainer, *requests)
    alone = trained(task, kind, requests[1])[0]
    assert all(torch.equal(alone[name], value) for name, value in together[1].items())
    for found, other in zip(together, wanted, strict=True):
        assert far(found, other) < 1e-5


@pytest.mark.parametrize("trainer", [VmapTrainer, LoopTrainer])
@pytest.mark.parametrize(
    "optimizer", [{"weight_decay": 0.1}, {"optimizer": "adamw", "momentum": 0.0, "weight_decay": 0.1}]
)
def test_frozen_parameters_keep_the_values_that_the_seed_gives(
    trainer: type[Trainer], optimizer: dict[str, Any]
) -> None:
    task = Given(frozen, **optimizer)
    state, start = trained(task, trainer, request())[0], initial_parameters(task, request().seed)
    for name in ("0.weight", "0.bias"):
        assert torch.equal(state[name], start[name])
    assert not torch.equal(state["2.weight"], start["2.weight"])


class Noisy(nn.Linear):
    """Draws from one of the three global generators."""

    def __init__(self, source: str) -> None:
        super().__init__(N_INPUTS, 3)
        self.source = source

    def forward(self, inputs: Tensor) -> Tensor:
        noise = {
            "torch": lambda: torch.rand(3),
            "numpy": lambda: torch.from_numpy(np.random.rand(3).astype("f4")),  # noqa: NPY002 - what is tested
            "random": lambda: torch.tensor([random.random() for _ in range(3)]),
            "functional": lambda: F.dropout(torch.ones(3), 0.5),
        }[self.source]()
        return super().forward(inputs) * noise


@pytest.mark.parametrize("source", ["torch", "numpy", "random", "functional"])
def test_noise_in_training_comes_from_the_seed_in_any_order_and_leaves_the_callers_generators_alone(
    source: str,
) -> None:
    task = Given(lambda: Noisy(source))
    assert trainer_class(task) is LoopTrainer
    assert describe_training(task).endswith("VmapTrainer is not used: its training draws random numbers")
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    ahead = random.random(), np.random.rand(), torch.rand(1)  # noqa: NPY002
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    first, second = trained(task, LoopTrainer, request(0), request(1))
    assert (random.random(), np.random.rand(), torch.rand(1)) == ahead  # noqa: NPY002
    again = trained(task, LoopTrainer, request(1), request(0))
    assert far(again[0], second) == far(again[1], first) == 0
    data = task.load_data()
    margins = [_measure(task, data, first, seed)["outputs/margin"] for seed in (3, 3, 4)]
    assert np.array_equal(margins[0], margins[1])
    assert not np.array_equal(margins[0], margins[2])


class Writing(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        inputs -= 0.5
        return super().forward(inputs)


def test_a_forward_that_writes_into_its_input_changes_no_measurement_and_no_data(tmp_path: Path) -> None:
    task = Given(lambda: Writing(N_INPUTS, 3))
    data, before = task.load_data(), task.load_data()
    state = trained(task, LoopTrainer, request())[0]
    first, again = (_measure(task, data, state)["outputs/margin"] for _ in range(2))
    assert np.array_equal(first, again)
    kind = trainer_class(task)(task, data)
    kind.train([request()], (3,))
    assert torch.equal(data.train.inputs, before.train.inputs)
    assert torch.equal(data.test.inputs, before.test.inputs)
    other = RetrainStore(tmp_path, task.card.fingerprint)
    retrain(task, [request()], other)
    np.testing.assert_allclose(
        other.read("outputs/margin", [request().digest(task.card.fingerprint)])[0], first, rtol=1e-5
    )


class Flat(nn.Module):
    """A convolution whose outputs are flattened by `view`, which wants them contiguous."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes
        self.conv = getattr(nn, f"Conv{axes}d")(1, 4, (1,) * (axes - 1) + (3,), padding="same")
        self.head = nn.Linear(4 * N_INPUTS, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        n = len(inputs)
        return self.head(torch.relu(self.conv(inputs.view(n, 1, *(1,) * (self.axes - 1), N_INPUTS))).view(n, -1))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions_in_one_two_and_three_dimensions_are_trained(axes: int) -> None:
    task = Given(lambda: Flat(axes))
    check_task(task, task.load_data())
    assert trainer_class(task) is LoopTrainer
    start, end = initial_parameters(task, request().seed), trained(task, LoopTrainer, request())[0]
    assert far(start, end) > 0.01
    assert all(value.is_contiguous() for value in end.values())


def double(data: Dataset) -> Dataset:
    sides = [Examples(side.inputs.double(), side.targets) for side in (data.train, data.test)]
    return Dataset(*sides)


def test_a_float64_model_is_trained_kept_and_read_in_float64_with_float32_outputs(tmp_path: Path) -> None:
    from attriboard.groundtruth.build import build_checkpoints
    from attriboard.groundtruth.checkpoints import read_checkpoints

    task = Given(lambda: nn.Linear(N_INPUTS, 3).double(), data=double)
    store = RetrainStore(tmp_path / "store", task.card.fingerprint)
    build_checkpoints(task, tmp_path / "c.safetensors", store)
    read = read_checkpoints(tmp_path / "c.safetensors", task.card.fingerprint)
    assert {value.dtype for value in read[0].parameters.values()} == {torch.float64}
    wanted = trained(task, LoopTrainer, RetrainRequest(np.arange(N_TRAIN), 0))[0]
    assert far(dict(read[1].parameters), wanted) < 1e-12
    digest = RetrainRequest(np.arange(N_TRAIN), 0).digest(task.card.fingerprint)
    assert store.read("outputs/margin", [digest]).dtype == np.float32


def shared_module() -> Callable[[], nn.Module]:
    model = nn.Linear(N_INPUTS, 3)
    return lambda: model


def unseeded() -> nn.Module:
    model = nn.Linear(N_INPUTS, 3)
    model.weight.data += torch.from_numpy(np.random.default_rng().normal(size=(3, N_INPUTS)))
    return model


def spoiled(data: Dataset) -> Dataset:
    data.train.inputs[3, 1] = float("nan")
    return data


def relabelled(label: int) -> Callable[[Dataset], Dataset]:
    def change(data: Dataset) -> Dataset:
        data.train.targets[17] = label
        return data

    return change


def shortened(data: Dataset) -> Dataset:
    return Dataset(Examples(data.train.inputs, data.train.targets[:-1]), data.test)


REFUSED: dict[str, tuple[Given, str]] = {
    "bfloat16": (Given(lambda: nn.Linear(5, 3).bfloat16()), "parameter weight is torch.bfloat16, must be float32 or"),
    "lazy": (Given(lambda: nn.LazyLinear(3)), "lazy parameters without a shape; run it on one example first"),
    "nothing to train": (Given(lambda: nn.Linear(5, 3).requires_grad_(False)), "there is nothing to train"),
    "one module": (Given(shared_module()), "build_model gives the same weight twice"),
    "unseeded": (Given(unseeded), "build_model gives another weight for the same seed"),
    "two outputs": (Given(lambda: nn.Linear(5, 2)), r"loss .* raised \w+Error: .*"),
    "other inputs": (Given(lambda: nn.Linear(6, 3)), r"the model on 5 .*, inputs .* raised RuntimeError"),
    "label too high": (Given(data=relabelled(3)), r"targets torch.int64 \(\d+,\) from 0 to 3 raised"),
    "label negative": (Given(data=relabelled(-1)), r"targets torch.int64 \(\d+,\) from -1 to 2 raised"),
    "mean loss": (Given(loss=lambda o, t: F.cross_entropy(o, t)), r"gives torch.float32 \(\), must be one number per"),
    "broadcast": (Given(loss=lambda o, t: (o[:, :1] - t) ** 2), r"must be one number per example, \(5,\)"),
    "no gradient": (Given(loss=lambda o, t: (o.detach() ** 2).sum(1)), "the gradient of the loss"),
    "NaN in data": (Given(data=spoiled), "train inputs have NaN in 1 of 45 examples, the first is 3"),
    "lengths": (Given(data=shortened), "train has 45 inputs and 44 targets, the card says data.n_train = 45"),
    "infinite loss": (Given(loss=lambda o, t: o.sum(1) / 0), "before any training"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "why"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_go_together_is_refused_in_one_line_before_training(
    task: Given, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoopTrainer, "train", lambda *_: pytest.fail("something was trained"))
    with pytest.raises(InputError, match=f"^task tiny: .*{why}") as caught:
        retrain(task, [request()], RetrainStore(tmp_path, task.card.fingerprint))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_retrain_that_diverges_is_named_and_not_written(tmp_path: Path) -> None:
    task = Given(loss=lambda o, t: (o**2).sum(1) * 1e6, learning_rate=10.0)
    store = RetrainStore(tmp_path, task.card.fingerprint)
    with pytest.raises(AttriboardError, match=r"the retrain with seed 1000 on 22 examples .* diverged: lower"):
        retrain(task, [request()], store)
    assert len(store) == 0


def test_a_card_that_leaves_no_calibration_or_scoring_point_is_refused() -> None:
    card = tiny_card().model_dump(mode="json")
    for fraction, kind in ((0.01, "calibration"), (0.99, "scoring")):
        with pytest.raises(
            CardError, match=f"split.calibration = {fraction} of data.n_test = {N_TEST}: leaves no {kind}"
        ):
            tiny_card_of(card | {"split": {"calibration": fraction, "seed": 0}})


def tiny_card_of(card: dict[str, Any]) -> None:
    from attriboard.contracts.card import load_card

    load_card(card)


def test_rows_show_every_label_however_rare() -> None:
    targets = torch.zeros(1000, dtype=torch.int64)
    targets[777], targets[5] = 9, -100
    assert {9, -100, 0} == set(targets[telling_rows(targets)].tolist())
    blocks = torch.randint(0, 50, (40, 8))
    blocks[33, 7] = -100
    assert -100 in blocks[telling_rows(blocks)]


@pytest.mark.parametrize("options", [(0.0, 0.0), (0.9, 0.0), (0.9, 0.01), (0.0, 0.01)])
def test_the_sgd_is_pytorchs_to_the_last_bit(options: tuple[float, float]) -> None:
    torch.manual_seed(0)
    start, gradients = torch.randn(33, 7), torch.randn(5, 33, 7)
    results = []
    for kind in (SGD, torch.optim.SGD):
        parameter, unused = nn.Parameter(start.clone()), nn.Parameter(torch.ones(2))
        optimizer = kind([parameter, unused], lr=0.1, momentum=options[0], weight_decay=options[1])
        for gradient in gradients:
            optimizer.zero_grad()
            parameter.grad = gradient.clone()
            optimizer.param_groups[0]["lr"] *= 0.9
            optimizer.step()
        assert torch.equal(unused, torch.ones(2))
        results.append(parameter.detach())
    assert torch.equal(*results)
