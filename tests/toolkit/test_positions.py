"""Scores of tokens: their sums are the scores of the examples, and each is the part that one position has."""

import pytest
import torch
from other_layers import convolutions, flat, language_model, one_by_one

from attriboard.attributors.grad_cos import GradCos
from attriboard.attributors.grad_dot import GradDot
from attriboard.attributors.iffim import IFFIM
from attriboard.attributors.tracin import TracIn
from attriboard.base.errors import NotApplicableError
from attriboard.toolkit.positions import position_scores, weighted_gradient

METHODS = [(GradDot, {}), (TracIn, {}), (IFFIM, {"regularization": 0.1}), (IFFIM, {"regularization": 0.0})]


@pytest.mark.parametrize(("method", "values"), METHODS)
def test_scores_of_tokens_add_up_to_those_of_their_examples(method, values):
    context = language_model()
    values = method.configure(values)
    attributor = method()
    state = attributor.fit(context, **method.stage(values, "fit"))
    scores = attributor.score(state, **method.stage(values, "score"))
    directions = attributor.directions(context, state, [1, 3], **values)
    tokens = position_scores(context, directions, context.train)
    assert tokens.shape == context.train.inputs.shape
    expected = scores[[1, 3]].double().mean(0)
    # Scores and eigenvectors are float32; see below for the sums in float64.
    torch.testing.assert_close(tokens.sum(1), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert float((tokens - tokens.mean(1, keepdim=True)).abs().max()) > 1e-3 * float(expected.abs().max())


def test_sums_over_tokens_are_inner_products_of_gradients_in_float64():
    context = language_model()
    checkpoint = context.checkpoints[0]
    gradients = flat(one_by_one(context, context.loss, context.train))
    vector = torch.randn(gradients.shape[1], dtype=torch.float64)
    tokens = position_scores(context, [(checkpoint, vector)], context.train)
    torch.testing.assert_close(tokens.sum(1), -gradients @ vector, rtol=1e-10, atol=1e-10)


def test_a_weighted_gradient_is_the_sum_of_single_ones():
    context = language_model()
    checkpoint = context.checkpoints[0]
    gradients = flat(one_by_one(context, context.target, context.test))
    weights = torch.randn(len(gradients), dtype=torch.float64)
    found = weighted_gradient(context, checkpoint, context.target, context.test, weights)
    torch.testing.assert_close(found, weights @ gradients, rtol=1e-9, atol=1e-9)


def test_a_token_that_no_loss_depends_on_counts_nothing():
    context = language_model()
    checkpoint = context.checkpoints[0]
    vector = torch.randn(sum(checkpoint.parameters[n].numel() for n in context.attributed), dtype=torch.float64)
    tokens = position_scores(context, [(checkpoint, vector)], context.train)
    assert float(tokens[:, -1].abs().max()) == 0  # nothing is predicted from the last token
    assert float(tokens[:, 0].abs().min()) > 0


def test_what_has_no_tokens_says_so():
    context = convolutions()
    attributor = GradDot()
    values = GradDot.configure({})
    directions = attributor.directions(context, None, [0], **values)
    with pytest.raises(NotApplicableError, match="no sequences of tokens"):
        position_scores(context, directions, context.train)
    with pytest.raises(NotApplicableError, match="grad_cos gives no direction"):
        GradCos().directions(context, None, [0], **GradCos.configure({}))
    with pytest.raises(NotApplicableError, match="without normalize"):
        TracIn().directions(context, None, [0], **TracIn.configure({"normalize": True}))
