"""Rows of the zoo as tasks, and stochastic gradient descent written out."""

import torch
from tiny import TinyTask, tiny_card
from torch import Tensor, nn
from zoo import Row

from attriboard.contracts.task import Dataset, Examples
from attriboard.retraining.choosing import trainer_class
from attriboard.retraining.randomness import drawing_from
from attriboard.retraining.request import RetrainRequest, epoch_order
from attriboard.retraining.trainer import new_model

N_TRAIN, N_TEST, BATCH, RATE = 16, 9, 4, 0.05


class ZooTask(TinyTask):
    """A row of the zoo as a task."""

    measurements = ("loss", "margin")

    def __init__(self, row: Row) -> None:
        card = tiny_card(learning_rate=RATE, momentum=0.0, epochs=2, batch_size=BATCH)
        data = card.data.model_copy(update={"n_train": N_TRAIN, "n_test": N_TEST})
        super().__init__(card.model_copy(update={"data": data}))
        self._row = row
        torch.manual_seed(7)
        made = Examples(row.inputs(N_TRAIN + N_TEST), row.targets(N_TRAIN + N_TEST))
        self._data = Dataset(made[:N_TRAIN], made[N_TRAIN:])

    def load_data(self) -> Dataset:
        return self._data

    def build_model(self) -> nn.Module:
        return self._row.build()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self._row.loss(outputs, targets)

    def margin(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -self.loss(outputs, targets)

    def measure(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return {"loss": self.loss(outputs, targets), "margin": self.margin(outputs, targets)}


def plain_loop(task: ZooTask, request: RetrainRequest) -> dict[str, Tensor]:
    """Stochastic gradient descent, written out."""
    data = task.load_data().train
    with drawing_from(request.noise_seed):
        model = new_model(task, request.seed).train()
        trained = [p for p in model.parameters() if p.requires_grad]
        rows = torch.from_numpy(request.indices)
        for epoch in (1, 2):
            order = rows[torch.from_numpy(epoch_order(len(rows), request.seed, epoch))]
            for batch in order.split(BATCH):
                loss = task.loss(model(data.inputs[batch].clone()), data.targets[batch]).mean()
                gradients = torch.autograd.grad(loss, trained, allow_unused=True)
                with torch.no_grad():
                    for parameter, gradient in zip(trained, gradients, strict=True):
                        if gradient is not None:
                            parameter -= RATE * gradient
    return {name: value.detach() for name, value in model.named_parameters()}


def assert_trained_like_a_plain_loop(task: ZooTask, request: RetrainRequest) -> None:
    """By the trainer that is chosen for the task."""
    trainer = trainer_class(task)(task, task.load_data())
    (states,) = trainer.train([request], (2,))
    wanted = plain_loop(task, request)
    assert wanted.keys() <= states[2].keys()
    scale = max(float(value.abs().max()) for value in wanted.values())
    for name, value in wanted.items():
        torch.testing.assert_close(states[2][name], value, rtol=1e-4, atol=1e-5 * scale, msg=name)
