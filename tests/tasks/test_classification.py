"""Loss and margin against float64 brute force, and under torch.func."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.func import functional_call, grad, jacrev, vmap

from attriboard.base.errors import CardError
from attriboard.contracts.card import load_card
from attriboard.tasks.catalogue import digits_mlp, mnist_lr, mnist_mlp, task_from_card
from attriboard.tasks.models.mlp import mlp

TASK = digits_mlp()


def exact(logits: np.ndarray, label: int) -> tuple[float, float]:
    """Loss and margin of one example in extended precision, relative to the right logit."""
    shifted = logits.astype(np.longdouble) - np.longdouble(logits[label])
    others = np.delete(shifted, label)
    top = others.max()
    log_others = top + np.log(np.exp(others - top).sum())
    return float(np.logaddexp(np.longdouble(0), log_others)), float(-log_others)


LOGITS = arrays(np.float64, (10,), elements=st.floats(-1e4, 1e4))


@given(LOGITS, st.integers(0, 9))
def test_loss_and_margin_are_exact_in_float64_for_any_logits(logits, label):
    outputs, targets = torch.from_numpy(logits)[None], torch.tensor([label])
    loss, margin = exact(logits, label)
    assert TASK.loss(outputs, targets).item() == pytest.approx(loss, rel=1e-12, abs=1e-11)
    assert TASK.margin(outputs, targets).item() == pytest.approx(margin, rel=1e-12, abs=1e-11)


@given(arrays(np.float64, (10,), elements=st.floats(-15, 15)), st.integers(0, 9))
def test_the_margin_is_the_log_odds_of_the_softmax(logits, label):
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    odds = np.log(p[label]) - np.log(np.delete(p, label).sum())
    margin = TASK.margin(torch.from_numpy(logits)[None], torch.tensor([label]))
    assert margin.item() == pytest.approx(odds, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("gap", [0.0, 17.0, 60.0, 1e3, 1e5, -1e5])
def test_the_float32_margin_keeps_its_value_where_the_probability_rounds_to_one(gap):
    outputs = torch.tensor([[gap, 0.0]])
    assert TASK.margin(outputs, torch.tensor([0])).item() == gap
    assert TASK.loss(outputs, torch.tensor([0])).item() == pytest.approx(np.logaddexp(0, -gap), abs=1e-6)


def test_the_loss_is_torchs_cross_entropy():
    outputs, targets = torch.randn(50, 10), torch.randint(10, (50,))
    expected = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    torch.testing.assert_close(TASK.loss(outputs, targets), expected)


def test_every_measure_is_a_float32_per_example():
    outputs, targets = torch.randn(7, 10, dtype=torch.float64), torch.randint(10, (7,))
    measured = TASK.measure(outputs, targets)
    assert set(measured) == {"loss", "margin", "correct"}
    assert all(value.dtype == torch.float32 and value.shape == (7,) for value in measured.values())
    assert torch.equal(measured["correct"] == 1, outputs.argmax(1) == targets)


def test_a_positive_margin_means_more_than_half_of_the_probability():
    outputs = torch.tensor([[1.0, 0.9, 0.9], [3.0, 0.0, 0.0]])
    measured = TASK.measure(outputs, torch.tensor([0, 0]))
    assert measured["correct"].tolist() == [1, 1]
    assert (measured["margin"] > 0).tolist() == [False, True]


@pytest.mark.parametrize("target", ["margin", "negative_loss"])
def test_the_target_is_oriented_so_that_higher_is_better(target):
    raw = TASK.card.model_dump(mode="json") | {"target": target}
    task = task_from_card(load_card(raw))
    right, wrong = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    assert task.target(right, torch.tensor([0])) > task.target(wrong, torch.tensor([0]))


@pytest.mark.parametrize("function", [TASK.loss, TASK.margin], ids=["loss", "margin"])
def test_vmapped_gradients_equal_a_loop_of_backward_passes(function):
    torch.manual_seed(0)
    model = mlp({"n_inputs": 6, "hidden": [5], "n_classes": 4}).double()
    inputs, targets = torch.randn(9, 6).double(), torch.randint(4, (9,))
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def one(parameters, x, y):
        return function(functional_call(model, parameters, (x[None],)), y[None])[0]

    batched = vmap(grad(one), (None, 0, 0))(parameters, inputs, targets)
    for i in range(9):
        model.zero_grad()
        function(model(inputs[i : i + 1]), targets[i : i + 1]).sum().backward()
        for name, value in model.named_parameters():
            torch.testing.assert_close(batched[name][i], value.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("function", [TASK.loss, TASK.margin], ids=["loss", "margin"])
def test_gradients_match_finite_differences(function):
    torch.manual_seed(0)
    outputs, targets = torch.randn(5, 10).double().requires_grad_(), torch.randint(10, (5,))
    assert torch.autograd.gradcheck(lambda z: function(z, targets), outputs)
    assert torch.autograd.gradgradcheck(lambda z: function(z, targets), outputs)


@pytest.mark.parametrize("function", [TASK.loss, TASK.margin], ids=["loss", "margin"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_and_hessians_stay_finite_at_extreme_logits(function, scale):
    outputs = torch.linspace(-scale, scale, 10)
    for label in range(10):
        gradient = grad(lambda z, y: function(z[None], y[None])[0])
        assert gradient(outputs, torch.tensor(label)).isfinite().all()
        assert jacrev(gradient)(outputs, torch.tensor(label)).isfinite().all()


def test_models_stack_under_vmap():
    outputs, targets = torch.randn(3, 8, 10), torch.randint(10, (8,))
    stacked = vmap(TASK.measure, (0, None))(outputs, targets)
    for i in range(3):
        for name, value in TASK.measure(outputs[i], targets).items():
            torch.testing.assert_close(stacked[name][i], value)


# --- models -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "n_params"),
    [(digits_mlp, 6_570), (mnist_lr, 7_850), (mnist_mlp, 109_386)],
    ids=["digits_mlp", "mnist_lr", "mnist_mlp"],
)
def test_a_tasks_model_has_the_promised_number_of_parameters(task, n_params):
    model = task().build_model()
    assert sum(parameter.numel() for parameter in model.parameters()) == n_params
    assert not list(model.buffers())


def test_logistic_regression_is_a_perceptron_without_hidden_layers():
    model = mnist_lr().build_model()
    assert [type(layer).__name__ for layer in model] == ["Linear"]
    assert model[0].bias is not None


def test_layers_alternate_and_the_last_is_linear():
    model = mlp({"n_inputs": 4, "hidden": [3, 2], "n_classes": 5})
    assert [type(layer).__name__ for layer in model] == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    assert model(torch.zeros(7, 4)).shape == (7, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_inputs": 4, "n_classes": 2}, r"model\.options\.hidden: is missing"),
        ({"n_inputs": 4, "hidden": [0], "n_classes": 2}, r"model\.options\.hidden\.0 = 0"),
        ({"n_inputs": 4, "hidden": [], "n_classes": 1}, r"model\.options\.n_classes = 1"),
        ({"n_inputs": "4", "hidden": [], "n_classes": 2}, r"model\.options\.n_inputs = '4'"),
        (
            {"n_inputs": 4, "hidden": [], "n_classes": 2, "dropout": 0.1},
            r"model\.options\.dropout = 0\.1.*the options are",
        ),
    ],
)
def test_options_that_the_architecture_does_not_have_are_refused(options, message):
    with pytest.raises(CardError, match=message):
        mlp(options)
