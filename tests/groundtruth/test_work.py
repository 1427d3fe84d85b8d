"""Operations and memory of a retrain, counted without computing it."""

import pytest
import torch
from tiny import N_CLASSES, N_INPUTS, TinyTask, tiny_card, tiny_task

from attriboard.contracts.task import Examples, Task
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.work import CARDS, SHARE_OF_PEAK, STEP_SECONDS, Card, Work, work_of


def counted(task: Task) -> Work | None:
    return work_of(task, task.load_data().train)


def of_full_resnet(task: Task) -> Work | None:
    """With empty pictures: the data set is not needed."""
    return work_of(task, Examples(torch.zeros(64, 3, 32, 32), torch.zeros(64, dtype=torch.int64)))


def test_operations_of_a_network_of_linear_layers_are_those_of_its_products():
    task = tiny_task(hidden=[7], epochs=5)
    work = counted(task)
    batch = task.card.recipe.batch_size
    first, second = N_INPUTS * 7, 7 * N_CLASSES
    # Forward, the gradient of the weights, and that of the input, which the first layer does not need.
    assert work.products == 2 * batch * (2 * first + 3 * second)
    assert work.convolutions == 0
    assert work.flop(3 * batch) == 5 * 3 * work.products
    n_parameters = first + 7 + second + N_CLASSES
    assert work.state_bytes == 4 * n_parameters * 3  # parameters, gradient, momentum
    assert work.saved_bytes >= 4 * batch * (N_INPUTS + 7)
    assert work.memory == work.state_bytes + work.saved_bytes


def test_the_full_resnet_takes_the_operations_that_were_counted_by_hand():
    work = of_full_resnet(load_task("cifar2_resnet9"))
    assert work.flop(2500) == pytest.approx(64e12, rel=0.03)  # 6 epochs; 106 TFLOP for the 10 of version 1
    assert work.convolutions > 100 * work.products


def test_a_language_model_is_counted_as_six_operations_for_each_token_and_parameter():
    task = load_task("wikitext2_gpt2_mini")
    blocks, card = torch.zeros(16, 32, dtype=torch.int64), task.card
    work = work_of(task, Examples(blocks, blocks))
    tokens = card.recipe.epochs * card.subset_size * card.data.options["length"]
    # Attention adds to it; the embedding, which is no product, is the head as well.
    assert work.flop(card.subset_size) == pytest.approx(6 * 134_912 * tokens, rel=0.1)


def test_seconds_are_a_share_of_the_peak_of_what_computes():
    reduced = load_task("cifar2_resnet9")
    recipe = reduced.card.recipe.model_copy(update={"precision": "float32"})
    work = of_full_resnet(type(reduced)(reduced.card.model_copy(update={"recipe": recipe})))
    card = Card("fast at convolutions", 1e9, float32=1e9, convolution=1e13, bfloat16=1e14)
    expected = (work.products / 1e9 + work.convolutions / 1e13) * 6 * 2500 / 32 / SHARE_OF_PEAK
    assert work.seconds(2500, card) == pytest.approx(expected)
    assert of_full_resnet(reduced).seconds(2500, card) == pytest.approx(work.flop(2500) / 1e14 / SHARE_OF_PEAK)


def test_a_small_network_is_bound_by_its_steps():
    task = tiny_task()
    steps = task.card.recipe.epochs * 22 / task.card.recipe.batch_size
    assert all(counted(task).seconds(22, card) == pytest.approx(STEP_SECONDS * steps) for card in CARDS)


def test_a_model_that_looks_at_its_numbers_is_not_counted():
    class Looking(torch.nn.Module):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.model(inputs) if inputs.sum().item() > 0 else -self.model(inputs)

    class LookingTask(TinyTask):
        def build_model(self) -> torch.nn.Module:
            return Looking(super().build_model())

    assert counted(LookingTask(tiny_card())) is None
