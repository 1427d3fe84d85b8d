"""Loss and margin of blocks of tokens against float64 brute force, and under torch.func."""

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from language_tasks import tiny_card
from torch.func import functional_call, grad, vmap

from attriboard.base.errors import CardError
from attriboard.contracts.card import load_card
from attriboard.tasks.language_modeling import LanguageModelingTask

TASK = LanguageModelingTask(tiny_card())


def exact(logits: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """Loss and margin of one block in extended precision."""
    z = logits.astype(np.longdouble)
    losses = []
    for t in range(len(tokens) - 1):
        shifted = z[t] - z[t, tokens[t + 1]]
        losses.append(shifted.max() + np.log(np.exp(shifted - shifted.max()).sum()))
    loss = np.mean(losses)
    return float(loss), float(-np.log(np.expm1(loss)) if loss < 1 else -loss - np.log1p(-np.exp(-loss)))


@given(arrays(np.float64, (4, 5), elements=st.floats(-50, 50)), arrays(np.int64, (4,), elements=st.integers(0, 4)))
def test_loss_and_margin_are_exact_in_float64(logits, tokens):
    loss, margin = exact(logits, tokens)
    outputs, targets = torch.from_numpy(logits)[None], torch.from_numpy(tokens)[None]
    assert TASK.loss(outputs, targets).item() == pytest.approx(loss, rel=1e-12, abs=1e-12)
    if loss > 1e-3:  # below, the loss itself has lost the digits that its logarithm needs
        assert TASK.margin(outputs, targets).item() == pytest.approx(margin, rel=1e-9, abs=1e-9)


def test_the_loss_is_hugging_faces_for_one_block():
    model, block = TASK.build_model().eval(), torch.randint(TASK.card.model.options["vocabulary"], (1, 8))
    theirs = model.gpt2(input_ids=block, labels=block).loss
    torch.testing.assert_close(TASK.loss(model(block), block)[0], theirs)


def test_the_last_tokens_logits_and_the_first_token_do_not_count():
    outputs, targets = torch.randn(2, 6, 9), torch.randint(9, (2, 6))
    other = outputs.clone()
    other[:, -1] += torch.randn(2, 9)
    changed = targets.clone()
    changed[:, 0] = (changed[:, 0] + 1) % 9
    assert torch.equal(TASK.loss(other, targets), TASK.loss(outputs, targets))
    assert torch.equal(TASK.loss(outputs, changed), TASK.loss(outputs, targets))


def test_every_measure_is_a_float32_per_block():
    measured = TASK.measure(torch.randn(3, 6, 9, dtype=torch.float64), torch.randint(9, (3, 6)))
    assert set(measured) == set(TASK.measurements)
    assert all(value.dtype == torch.float32 and value.shape == (3,) for value in measured.values())


@pytest.mark.parametrize("target", ["margin", "negative_loss"])
def test_the_target_is_oriented_so_that_higher_is_better(target):
    task = LanguageModelingTask(load_card(yaml.safe_load(tiny_card().model_dump_json()) | {"target": target}))
    tokens = torch.tensor([[0, 1, 2]])
    right = torch.nn.functional.one_hot(torch.tensor([[1, 2, 0]]), 3).float()
    assert task.target(4 * right, tokens) > task.target(-4 * right, tokens)


def test_per_example_gradients_under_vmap_are_those_of_single_blocks():
    model = TASK.build_model().eval().double()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    blocks = torch.randint(TASK.card.model.options["vocabulary"], (3, 8))

    def loss(parameters, block):
        return TASK.loss(functional_call(model, parameters, (block[None],)), block[None])[0]

    together = vmap(grad(loss), in_dims=(None, 0))(parameters, blocks)
    for row, block in enumerate(blocks):
        alone = torch.autograd.grad(TASK.loss(model(block[None]), block[None])[0], list(model.parameters()))
        for name, gradient in zip(parameters, alone, strict=True):
            torch.testing.assert_close(together[name][row], gradient)


@pytest.mark.parametrize(("name", "value"), [("vocabulary", 255), ("length", 7)])
def test_a_model_with_fewer_tokens_or_positions_than_the_data_is_refused(name, value):
    options = dict(tiny_card().model.options) | {name: value}
    with pytest.raises(CardError, match=rf"model\.options\.{name} = {value}: the data has data\.options\.{name}"):
        LanguageModelingTask(tiny_card(model={"options": options}))
