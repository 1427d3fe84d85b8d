"""The tiny task with a model, loss and data that a test gives."""

from collections.abc import Callable
from typing import Any

from tiny import N_TRAIN, TinyTask, tiny_card
from torch import Tensor, nn

from attriboard.contracts.task import Dataset
from attriboard.retraining.request import RetrainRequest, random_subset
from attriboard.retraining.trainer import State, Trainer

Loss = Callable[[Tensor, Tensor], Tensor]


class Given(TinyTask):
    """The tiny task with any model, loss and data."""

    def __init__(
        self, build: Callable[[], nn.Module] | None = None, loss: Loss | None = None, data: Any = None, **recipe: Any
    ) -> None:
        super().__init__(tiny_card(**recipe))
        self._build, self._loss, self._data = build, loss, data

    def load_data(self) -> Dataset:
        data = super().load_data()
        return self._data(data) if self._data else data

    def build_model(self) -> nn.Module:
        return self._build() if self._build else super().build_model()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._loss(outputs, targets) if self._loss else super().loss(outputs, targets)


def request(k: int = 0, weights: Any = None) -> RetrainRequest:
    return RetrainRequest(random_subset(N_TRAIN, 22, 0, k), 1000 + k, weights=weights)


def trained(task: TinyTask, trainer: type[Trainer], *requests: RetrainRequest) -> list[State]:
    return [epochs[3] for epochs in trainer(task, task.load_data()).train(list(requests), (3,))]


def far(a: State, b: State) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
