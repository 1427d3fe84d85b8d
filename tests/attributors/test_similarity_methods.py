"""Grad-Cos, TracIn and the similarity of embeddings."""

from dataclasses import replace

import pytest
import torch
from dense import assert_proportional, assert_rows_close, attribute, dense_gradients, without_factors
from torch.nn.functional import normalize

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context


def test_grad_cos_is_grad_dot_divided_by_both_lengths(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    G = dense_gradients(double_context, checkpoint, double_context.loss, double_context.train)
    g = dense_gradients(double_context, checkpoint, double_context.target, double_context.test)
    expected = attribute("grad_dot", double_context) / g.norm(dim=1, keepdim=True) / G.norm(dim=1)
    scores = attribute("grad_cos", double_context)
    assert_rows_close(scores, expected)
    assert scores.abs().max() <= 1 + 1e-6


def test_grad_cos_needs_no_factors(double_context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = attribute("grad_cos", double_context)
    without_factors(monkeypatch)
    assert_rows_close(attribute("grad_cos", double_context), expected)


def test_an_example_without_a_gradient_scores_zero(double_context: Context) -> None:
    def masked(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return double_context.loss(outputs, targets) * (targets != 3)

    scores = attribute("grad_cos", replace(double_context, loss=masked))
    silent = double_context.train.targets == 3
    assert silent.any()
    assert (scores[:, silent] == 0).all()
    assert (scores[:, ~silent] != 0).all()


def test_tracin_with_one_epoch_is_grad_dot(context: Context) -> None:
    """30 is the first epoch that was kept."""
    chosen = {"checkpoints": 2, "epoch": 30}
    assert_proportional(attribute("tracin", context, **chosen), attribute("grad_dot", context, **chosen))
    assert_proportional(
        attribute("tracin", context, **chosen, normalize=True), attribute("grad_cos", context, **chosen)
    )


def test_tracin_sums_over_the_epochs_of_each_run(context: Context) -> None:
    expected = sum(attribute("grad_dot", context, checkpoints=3, epoch=epoch) for epoch in (30, 60))
    assert_rows_close(attribute("tracin", context, checkpoints=3), expected)


@pytest.mark.parametrize("normalized", [False, True])
def test_tracin_projected_approaches_the_exact_scores(context: Context, normalized: bool) -> None:
    exact = attribute("tracin", context, normalize=normalized)
    errors = []
    for d_proj in (32, 256, 644):
        scores = attribute("tracin", context, normalize=normalized, projection_dim=d_proj)
        errors.append(float((scores - exact).norm() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-6


def test_embeddings_are_the_inputs_of_the_last_layer(double_context: Context) -> None:
    parameters = double_context.select_checkpoints()[0].parameters

    def features(inputs: torch.Tensor) -> torch.Tensor:
        hidden = (inputs @ parameters["0.weight"].T + parameters["0.bias"]).relu()
        return (hidden @ parameters["2.weight"].T + parameters["2.bias"]).relu()

    train, test = features(double_context.train.inputs), features(double_context.test.inputs)
    expected = normalize(test - train.mean(0)) @ normalize(train - train.mean(0)).T
    assert_rows_close(attribute("embedding_similarity", double_context), expected)


def test_embeddings_of_a_model_without_hidden_layers_are_its_inputs(double_context: Context) -> None:
    linear = torch.nn.Linear(64, 10).double().eval()
    parameters = {name: value.detach() for name, value in linear.named_parameters()}
    checkpoint = replace(double_context.select_checkpoints()[0], parameters=parameters)
    plain = replace(double_context, model=linear, checkpoints=(checkpoint,))
    assert_rows_close(attribute("embedding_similarity", plain), attribute("input_similarity", plain))


def test_embeddings_of_sequences_are_means_over_positions(double_context: Context) -> None:
    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(8, 10)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return self.head(inputs.unflatten(1, (8, 8))).mean(1)

    model = Pooled().double().eval()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    checkpoint = replace(double_context.select_checkpoints()[0], parameters=parameters)
    train, test = (side.inputs.unflatten(1, (8, 8)).mean(1) for side in (double_context.train, double_context.test))
    expected = normalize(test - train.mean(0)) @ normalize(train - train.mean(0)).T
    scores = attribute("embedding_similarity", replace(double_context, model=model, checkpoints=(checkpoint,)))
    assert_rows_close(scores, expected)


def test_a_model_without_linear_layers_has_no_embedding(double_context: Context) -> None:
    model = torch.nn.PReLU().double().eval()
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    checkpoint = replace(double_context.select_checkpoints()[0], parameters=parameters)
    with pytest.raises(NotApplicableError, match="no linear layer"):
        attribute("embedding_similarity", replace(double_context, model=model, checkpoints=(checkpoint,)))
