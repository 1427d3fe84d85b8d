"""Every row of the zoo, by every way that makes gradients or curvature, against float64 and one example at a time."""

from collections.abc import Callable

import pytest
import torch
from zoo import ROWS, Row, classes
from zoo_oracle import Oracle, assert_close, context_of, gauss_newton_products

from attriboard.base.errors import NotApplicableError
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import per_example_gradients
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.projection import FourierProjection

RIGHT = [row for row in ROWS if row.refused is None]


@pytest.mark.parametrize("row", RIGHT, ids=lambda row: row.name)
def test_gradients_are_those_of_single_examples(row: Row) -> None:
    """Blocks of any size, kernels and projections; the examples and the model stay as they were."""
    context = context_of(row)
    inputs = context.train.inputs.clone()
    checkpoint = context.checkpoints[0]
    oracle = Oracle(context)
    G, g = oracle.gradients(context.train), -oracle.gradients(context.test)
    for memory_bytes in (2**30, 1):
        blocks = per_example_gradients(context, checkpoint, context.loss, context.train, memory_bytes=memory_bytes)
        assert_close(torch.cat(list(blocks)), G)
    K, r = gradient_kernels(context, checkpoint, context.loss, context.target)
    assert_close(K, G @ G.T)
    assert_close(r, G @ g.T)
    project = FourierProjection(G.shape[1], 7, seed=0)
    blocks = per_example_gradients(context, checkpoint, context.loss, context.train)
    assert_close(torch.cat([project(block) for block in blocks]), project(G))
    assert torch.equal(context.train.inputs, inputs)


@pytest.mark.parametrize("row", [row for row in RIGHT if not row.second], ids=lambda row: row.name)
def test_second_derivatives_that_pytorch_does_not_have_are_refused(row: Row) -> None:
    context = context_of(row)
    with pytest.raises(NotApplicableError, match="no second derivatives"):
        TrainingLoss(context, context.checkpoints[0])


@pytest.mark.parametrize("row", [row for row in RIGHT if row.second], ids=lambda row: row.name)
def test_hessian_products_are_those_of_single_examples(row: Row) -> None:
    context = context_of(row)
    oracle = Oracle(context)
    n_params = sum(one.numel() for one in oracle.parameters)
    directions = torch.randn(2, n_params, dtype=torch.float64)
    loss = TrainingLoss(context, context.checkpoints[0], torch.float64)
    curvature, slopes = loss.products(directions)
    assert_close(curvature, oracle.hessian_products(context.train, directions))
    assert_close(slopes, directions @ oracle.gradients(context.train).T)
    assert_close(loss.slopes(context.target, context.test, directions), -directions @ oracle.gradients(context.test).T)


OF_CLASSES = [row for row in RIGHT if row.targets is classes]
NOT_LIKELIHOODS = ("label smoothing", "class weights")
NO_LOGITS = ("a dictionary of outputs",)


@pytest.mark.parametrize("row", OF_CLASSES, ids=lambda row: row.name)
def test_products_with_the_fisher_matrix_of_own_labels_are_gauss_newton_products(row: Row) -> None:
    """Σ_y p(y) ∇L_y ∇L_yᵀ over own labels is the Gauss–Newton matrix of −log p; other losses are refused."""
    context = context_of(row)
    checkpoint = context.checkpoints[0]
    if row.name in NOT_LIKELIHOODS + NO_LOGITS:
        with pytest.raises(NotApplicableError, match=r"−log p|tensor of logits"):
            labelled(context, checkpoint, own=True)
        return
    oracle = Oracle(context)
    n_params = sum(one.numel() for one in oracle.parameters)
    directions = torch.randn(2, n_params, dtype=torch.float64)
    found = torch.zeros_like(directions)
    for draw in labelled(context, checkpoint, own=True):
        G = torch.cat(list(per_example_gradients(context, checkpoint, context.loss, draw.examples))).double()
        found += (directions @ G.T * draw.weights) @ G / len(G)
    assert_close(found, gauss_newton_products(oracle, context.train, directions))


@pytest.mark.parametrize("row", [row for row in ROWS if row.refused], ids=lambda row: row.name)
def test_what_has_no_right_answer_is_refused(row: Row) -> None:
    context = context_of(row)
    checkpoint = context.checkpoints[0]
    makers: tuple[Callable[[], object], ...] = (
        lambda: list(per_example_gradients(context, checkpoint, context.loss, context.train)),
        lambda: TrainingLoss(context, checkpoint),
    )
    for make in makers:
        with pytest.raises(NotApplicableError, match=row.refused):
            make()


def test_the_zoo_is_large_and_its_names_are_claims_of_one_row() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 60
