"""Random networks: gradients, curvature, methods and trainers against single examples in float64; `make zoo`."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import Tensor
from zoo import Row
from zoo_oracle import Oracle, context_of, gauss_newton_products
from zoo_random import rows
from zoo_training import N_TRAIN, ZooTask, assert_trained_like_a_plain_loop

from attriboard.attribution.plugins import Registry
from attriboard.attributors import ATTRIBUTORS
from attriboard.base.errors import InputError, NotApplicableError
from attriboard.contracts.attributor import Attributor, Context
from attriboard.retraining.opening import check_task
from attriboard.retraining.request import RetrainRequest
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import per_example_gradients
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.labels import labelled

REGISTRY: Registry[type[Attributor]] = Registry("attributor", ATTRIBUTORS, "attriboard.attributors")
METHODS = ("trak", "datainf", "ekfac", "logra", "if_cg", "if_arnoldi", "rps", "dual_svm", "embedding_similarity")
QUICK = {
    "trak": {"checkpoints": 1, "checkpoint_data": "full"}, "if_cg": {"max_iterations": 3, "regularization": 1.0},
    "if_arnoldi": {"max_iterations": 3}, "rps": {"max_iterations": 20}, "dual_svm": {"max_iterations": 100},
}  # fmt: skip

pytestmark = pytest.mark.zoo
many = settings(
    max_examples=int(os.environ.get("ATTRIBOARD_ZOO", "200")),
    deadline=None,
    derandomize="ATTRIBOARD_ZOO_RANDOM" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def assert_close(actual: Tensor, expected: Tensor, row: Row) -> None:
    """Norms of normalizing layers can be steep, and factors are made in the model's precision."""
    error = float((actual.double() - expected).norm())
    assert error <= 1e-4 * float(expected.norm()) + 1e-6, (error / float(expected.norm().clamp_min(1e-12)), row.name)


def scored_or_refused(name: str, context: Context) -> Tensor | None:
    attributor = REGISTRY.load(name)()
    values = attributor.configure(QUICK.get(name, {}))
    fit = attributor.stage(values, "fit")
    try:
        attributor.memory_need(context, **fit)
        scores: Tensor = attributor.score(attributor.fit(context, **fit), **attributor.stage(values, "score"))
    except NotApplicableError as error:
        event(f"{name} refuses: {str(error)[:60]}")
        return None
    return scores


@many
@given(rows(), st.integers(0, 2**16))
def test_gradients_of_any_composition_are_those_of_single_examples(row: Row, seed: int) -> None:
    context = context_of(row, seed)
    oracle, checkpoint = Oracle(context), context.checkpoints[0]
    G, g = oracle.gradients(context.train), -oracle.gradients(context.test)
    blocks = per_example_gradients(context, checkpoint, context.loss, context.train)
    assert_close(torch.cat(list(blocks)), G, row)
    K, r = gradient_kernels(context, checkpoint, context.loss, context.target)
    assert_close(K, G @ G.T, row)
    assert_close(r, G @ g.T, row)


@many
@given(rows(), st.integers(0, 2**16))
def test_curvature_products_of_any_composition_are_those_of_single_examples(row: Row, seed: int) -> None:
    context = context_of(row, seed)
    oracle, checkpoint = Oracle(context), context.checkpoints[0]
    directions = torch.randn(2, sum(one.numel() for one in oracle.parameters), dtype=torch.float64)
    curvature, slopes = TrainingLoss(context, checkpoint, torch.float64).products(directions)
    assert_close(curvature, oracle.hessian_products(context.train, directions), row)
    assert_close(slopes, directions @ oracle.gradients(context.train).T, row)
    try:
        draws = labelled(context, checkpoint, own=True)
    except NotApplicableError:
        assert "; cross-entropy" not in row.name
        return
    found = torch.zeros_like(directions)
    for draw in draws:
        G = torch.cat(list(per_example_gradients(context, checkpoint, context.loss, draw.examples))).double()
        found += (directions @ G.T * draw.weights) @ G / len(G)
    assert_close(found, gauss_newton_products(oracle, context.train, directions), row)


@many
@given(rows(), st.integers(0, 2**16), st.sampled_from(METHODS))
def test_methods_score_any_composition_in_any_order_or_refuse_it(row: Row, seed: int, name: str) -> None:
    scores = scored_or_refused(name, context_of(row, seed))
    if scores is None:
        return
    assert bool(torch.isfinite(scores).all())
    again = scored_or_refused(name, context_of(row, seed))
    assert again is not None
    assert torch.equal(again, scores)


@many
@given(rows())
def test_any_composition_is_trained_as_a_plain_loop_trains_it_or_refused(row: Row) -> None:
    task = ZooTask(row)
    try:
        check_task(task, task.load_data())
    except InputError as error:
        event(f"refused: {str(error)[:60]}")
        return
    assert_trained_like_a_plain_loop(task, RetrainRequest(np.arange(0, N_TRAIN, 2), 3))
