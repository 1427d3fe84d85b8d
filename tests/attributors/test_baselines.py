"""BM25, activations, representer points, the support vector machine and losses against float64 oracles."""

from dataclasses import replace
from math import log

import pytest
import torch
from dense import assert_proportional, assert_rows_close, attribute
from hypothesis import given
from hypothesis import strategies as st
from other_layers import language_model
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from attriboard.attributors.dual_svm import solve_dual, to_simplex
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.embeddings import class_labels, embeddings, head_inputs


def features(context: Context) -> tuple[Tensor, Tensor]:
    """What enters the last layer, by running the network piece by piece."""
    parameters = context.select_checkpoints()[0].parameters
    sides = []
    for hidden in (context.train.inputs, context.test.inputs):
        for layer in ("0", "2"):
            hidden = (hidden @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"]).relu()
        sides.append(hidden)
    return sides[0], sides[1]


def with_ones(side: Tensor) -> Tensor:
    return torch.cat([side, torch.ones(len(side), 1, dtype=side.dtype)], 1)


def test_features_are_those_of_the_last_layer(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    for data, expected in zip((double_context.train, double_context.test), features(double_context), strict=True):
        torch.testing.assert_close(embeddings(double_context, checkpoint, data), expected)
        torch.testing.assert_close(head_inputs(double_context, checkpoint, data), with_ones(expected))


def test_bm25_is_its_sum_over_the_tokens_of_the_query() -> None:
    context = language_model()
    documents, k1, b = context.train.inputs.tolist(), 1.2, 0.75
    mean = sum(map(len, documents)) / len(documents)

    def score(query: list[int], document: list[int]) -> float:
        total = 0.0
        for token in query:
            having = sum(token in one for one in documents)
            idf, count = log(1 + (len(documents) - having + 0.5) / (having + 0.5)), document.count(token)
            total += idf * count * (k1 + 1) / (count + k1 * (1 - b + b * len(document) / mean))
        return total

    expected = [[score(query, document) for document in documents] for query in context.test.inputs.tolist()]
    assert_rows_close(attribute("bm25", context), torch.tensor(expected, dtype=torch.float64))


def test_bm25_without_repetitions_adds_up_the_rarity_of_common_tokens() -> None:
    context = language_model()
    train, test = (one_hot(side.inputs, 11).sum(1).double() for side in (context.train, context.test))
    having = (train > 0).sum(0)
    idf = ((len(train) - having + 0.5) / (having + 0.5)).log1p()
    assert_rows_close(attribute("bm25", context, k1=0.0), (test * idf) @ (train > 0).double().T)


def test_bm25_is_refused_what_is_no_text(context: Context) -> None:
    with pytest.raises(NotApplicableError, match="BM25 is for text"):
        attribute("bm25", context)


def test_plain_activations_are_compared_by_their_cosine(double_context: Context) -> None:
    train, test = features(double_context)
    assert_rows_close(attribute("activation_similarity", double_context), normalize(test) @ normalize(train).T)


@pytest.mark.parametrize("regularization", [None, 1e-3, 1.0])
def test_preconditioned_activations_are_multiplied_by_the_root_of_the_inverse(
    double_context: Context, regularization: float | None
) -> None:
    train, test = features(double_context)
    C = train.T @ train / len(train)
    value = 0.1 * float(C.trace()) / len(C) if regularization is None else regularization
    inverse = torch.linalg.inv(C + value * torch.eye(len(C), dtype=C.dtype))
    lengths = [torch.einsum("nd,de,ne->n", side, inverse, side).sqrt() for side in (test, train)]
    expected = test @ inverse @ train.T / lengths[0][:, None] / lengths[1]
    assert_rows_close(
        attribute("activation_similarity", double_context, preconditioned=True, regularization=regularization),
        expected,
    )


def test_preconditioning_vanishes_as_lambda_grows(double_context: Context) -> None:
    scores = attribute("activation_similarity", double_context, preconditioned=True, regularization=1e9)
    assert_rows_close(scores, attribute("activation_similarity", double_context))


def test_losses_are_the_same_for_every_query(double_context: Context) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    outputs = torch.func.functional_call(double_context.model, dict(checkpoint.parameters), double_context.train.inputs)
    scores = attribute("loss_change", double_context)
    assert_rows_close(scores, double_context.loss(outputs, double_context.train.targets).expand_as(scores))


def newton(H: Tensor, labels: Tensor, regularization: float) -> Tensor:
    """The minimum of the mean cross-entropy and (λ/2)‖W‖², by Newton's method with the Hessian written out."""
    n_classes = int(labels.max()) + 1

    def objective(flat: Tensor) -> Tensor:
        outputs = H @ flat.view(n_classes, -1).T
        return torch.nn.functional.cross_entropy(outputs, labels) + regularization / 2 * flat.square().sum()

    W = torch.zeros(n_classes * H.shape[1], dtype=torch.float64)
    for _ in range(30):
        slope, curvature = torch.func.grad(objective)(W), torch.func.jacrev(torch.func.grad(objective))(W)
        W = W - torch.linalg.solve(curvature, slope)
    return W.view(n_classes, -1)


@pytest.mark.parametrize("regularization", [0.006, 0.1])
def test_representer_values_make_up_the_outputs_of_the_layer(double_context: Context, regularization: float) -> None:
    """Theorem 3.1: summed over training examples, scores are the outputs of the label's class."""
    train, test = map(with_ones, features(double_context))
    W = newton(train, double_context.train.targets, regularization)
    rows = torch.arange(len(test))
    outputs = (test @ W.T)[rows, double_context.test.targets]
    scores = attribute("rps", double_context, regularization=regularization)
    torch.testing.assert_close(scores.sum(1), outputs, rtol=1e-4, atol=1e-5)
    residual = one_hot(double_context.train.targets, 10) - (train @ W.T).softmax(1)
    expected = residual[:, double_context.test.targets].T * (test @ train.T) / (regularization * len(train))
    assert_rows_close(scores, expected, 1e-5)


@pytest.mark.parametrize("C", [0.01, 1.0])
def test_dual_variables_are_feasible_and_make_up_the_machine(double_context: Context, C: float) -> None:
    """The same machine as LIBLINEAR's."""
    svm = pytest.importorskip("sklearn.svm")
    train, labels = with_ones(features(double_context)[0]), double_context.train.targets
    dual = solve_dual(train, one_hot(labels, 10).double(), C, 1e-9, 100_000)
    own = dual.gather(1, labels[:, None])
    torch.testing.assert_close(dual.sum(1), torch.zeros(len(dual), dtype=torch.float64), atol=1e-9, rtol=0)
    assert own.min() >= -1e-12
    assert own.max() <= C + 1e-12
    assert dual.scatter(1, labels[:, None], 0.0).max() <= 1e-12
    machine = svm.LinearSVC(
        C=C, multi_class="crammer_singer", fit_intercept=False, tol=1e-8, max_iter=200_000, random_state=0
    )
    machine.fit(train.numpy(), labels.numpy())
    torch.testing.assert_close(dual.T @ train, torch.from_numpy(machine.coef_), rtol=0, atol=1e-3)


def test_scores_of_the_machine_sum_to_its_outputs_and_are_sparse(double_context: Context) -> None:
    train, test = map(with_ones, features(double_context))
    labels, explained = class_labels(double_context)
    dual = solve_dual(train, one_hot(labels, 10).double(), 1.0, 1e-3, 10_000)
    scores = attribute("dual_svm", double_context)
    outputs = (test @ train.T @ dual)[torch.arange(len(test)), explained]
    torch.testing.assert_close(scores.sum(1), outputs, rtol=1e-4, atol=1e-4)
    assert float((scores == 0).double().mean()) > 0.3


def test_c_of_one_is_a_lambda_of_one_over_n(double_context: Context) -> None:
    scores = attribute("dual_svm", double_context, regularization=1 / len(double_context.train))
    assert_proportional(scores, attribute("dual_svm", double_context))


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0.01, 3))
def test_projections_lie_in_the_simplex_and_nothing_in_it_is_nearer(values: list[float], size: float) -> None:
    row = torch.tensor([values], dtype=torch.float64)
    nearest = to_simplex(row, size)
    assert float(nearest.min()) >= 0
    assert float(nearest.sum()) == pytest.approx(size)
    corners = size * torch.eye(len(values), dtype=torch.float64)
    # Every corner is seen from the nearest point at an angle of at least ninety degrees from the row.
    assert float(((corners - nearest) @ (row - nearest).T).max()) <= 1e-9


@pytest.mark.parametrize("name", ["rps", "dual_svm"])
def test_last_layers_need_classes_a_final_linear_layer_and_a_lambda(name: str, double_context: Context) -> None:
    with pytest.raises(NotApplicableError, match="regularization = 0"):
        attribute(name, double_context, regularization=0.0)
    numbers = Examples(double_context.train.inputs, torch.zeros(len(double_context.train)))
    with pytest.raises(NotApplicableError, match="not one class per example"):
        attribute(name, replace(double_context, train=numbers))
    softened = torch.nn.Sequential(*double_context.model, torch.nn.Softmax(1))  # type: ignore[arg-type]
    with pytest.raises(NotApplicableError, match="does not end with a linear layer"):
        attribute(name, replace(double_context, model=softened))
