"""IFFIM, TRAK and Grad-Dot against dense float64 linear algebra."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from dense import assert_rows_close, dense_gradients
from torch import Tensor

from attriboard.attributors.grad_dot import GradDot
from attriboard.attributors.iffim import IFFIM
from attriboard.attributors.trak import TRAK
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.knobs import REGULARIZATION_GRID

EXACT = {"projection_dim": None, "checkpoints": 1, "epoch": None}


def dense_kernel(context: Context, function: BatchFunction, checkpoint: Checkpoint) -> tuple[Tensor, Tensor]:
    G = dense_gradients(context, checkpoint, function, context.train)
    g = dense_gradients(context, checkpoint, context.target, context.test)
    return G @ G.T / len(G), G @ g.T


def identity(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("projected", [False, True])
def test_iffim_path_solves_the_dense_system_at_every_lambda(double_context: Context, projected: bool) -> None:
    checkpoint = double_context.select_checkpoints()[0]
    n_params = sum(value.numel() for value in checkpoint.parameters.values())
    K, r = dense_kernel(double_context, double_context.loss, checkpoint)
    method = IFFIM()
    settings = {**EXACT, "projection_dim": n_params if projected else None}
    state = method.fit(double_context, **settings)
    for value in REGULARIZATION_GRID:
        expected = -torch.linalg.solve(K + value * identity(len(K)), r).T
        # A system of condition number κ is solved, by either side, to about κ·2⁻⁵².
        condition = float(torch.linalg.eigvalsh(K)[-1]) / value
        assert_rows_close(method.score(state, regularization=value), expected, 2e-6 + 1e-14 * condition)


def test_iffim_tends_to_grad_dot_as_lambda_grows(context: Context) -> None:
    grad_dot = GradDot()
    expected = grad_dot.score(grad_dot.fit(context, checkpoints=3, epoch=30))
    method = IFFIM()
    state = method.fit(context, projection_dim=None, checkpoints=3, epoch=30)
    assert_rows_close(1e9 * method.score(state, regularization=1e9), expected.double(), 1e-5)


def test_grad_dot_is_the_mean_of_dense_inner_products(double_context: Context) -> None:
    _, r = dense_kernel(double_context, double_context.loss, double_context.select_checkpoints()[0])
    method = GradDot()
    assert_rows_close(method.score(method.fit(double_context, checkpoints=1, epoch=None)), -r.T)


def test_checkpoints_are_averaged(context: Context) -> None:
    method = IFFIM()
    values = {"projection_dim": None, "epoch": None}
    singles = []
    for checkpoint in context.select_checkpoints(3):
        alone = replace(context, checkpoints=(checkpoint,))
        singles.append(method.score(method.fit(alone, checkpoints=1, **values), regularization=1e-4))
    together = method.score(method.fit(context, checkpoints=3, **values), regularization=1e-4)
    assert_rows_close(together, torch.stack(singles).double().mean(0))


@pytest.mark.parametrize("data", ["full", "half"])
@pytest.mark.parametrize("projected", [False, True])
def test_trak_without_loss_of_dimensions_is_its_dense_formula(
    double_context: Context, data: str, projected: bool
) -> None:
    checkpoint = double_context.select_checkpoints(data=data)[0]
    n_params = sum(value.numel() for value in checkpoint.parameters.values())
    phi = dense_gradients(double_context, checkpoint, double_context.margin, double_context.train)
    test = dense_gradients(double_context, checkpoint, double_context.target, double_context.test)
    outputs = torch.func.functional_call(double_context.model, dict(checkpoint.parameters), double_context.train.inputs)
    probability = outputs.softmax(1).gather(1, double_context.train.targets[:, None]).squeeze(1)
    method = TRAK()
    settings = {**EXACT, "projection_dim": n_params + 5 if projected else None, "checkpoint_data": data}
    state = method.fit(double_context, **settings)
    for value in (1e-3, 1e-1, 10.0):
        gram = phi.T @ phi / len(phi) + value * identity(n_params)
        expected = test @ torch.linalg.solve(gram, phi.T) * (1 - probability)
        assert_rows_close(method.score(state, regularization=value), expected)


def test_trak_projects_every_checkpoint_differently(context: Context) -> None:
    first = context.select_checkpoints(1, data="half")[0]
    twice = replace(context, checkpoints=(first, first))
    state = TRAK().fit(twice, projection_dim=32, checkpoints=2, checkpoint_data="half", epoch=None)
    one, other = (fit.spectrum.eigenvalues for fit in state.models)
    assert not torch.allclose(one, other)


def test_projected_scores_approach_the_exact_ones(context: Context) -> None:
    method = IFFIM()
    exact = method.score(method.fit(context, **EXACT), regularization=1e-2)
    errors = []
    for d_proj in (16, 64, 256):
        state = method.fit(context, projection_dim=d_proj, checkpoints=1, epoch=None)
        errors.append(float((method.score(state, regularization=1e-2) - exact).norm() / exact.norm()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.3


def test_spectra_are_those_of_the_fitted_kernels(double_context: Context) -> None:
    K, r = dense_kernel(double_context, double_context.loss, double_context.select_checkpoints()[0])
    method = IFFIM()
    (spectrum,) = method.spectrum(method.fit(double_context, **EXACT))
    inverse = torch.linalg.inv(K + 1e-3 * identity(len(K)))
    t1 = (r * (inverse @ r)).sum(0)
    torch.testing.assert_close(spectrum.moment(1, 1e-3), t1, rtol=1e-9, atol=0)


def test_an_identical_training_example_has_the_largest_score(double_context: Context) -> None:
    """Of all training examples for IFFIM; TRAK weighs those by 1 − p, so there of all test points."""
    rows = torch.arange(len(double_context.test))
    twins = replace(double_context, test=double_context.train[rows])
    scores = IFFIM().score(IFFIM().fit(twins, **EXACT), regularization=1e-9)
    assert (scores.argmax(1) == rows).all()
    scores = TRAK().score(TRAK().fit(twins, **EXACT, checkpoint_data="full"), regularization=1e-9)
    assert (scores[:, rows].argmax(0) == rows).all()


def test_too_few_checkpoints_are_a_clear_failure(context: Context) -> None:
    with pytest.raises(NotApplicableError, match="checkpoints = 6: there are 1 to 5 full-data checkpoints"):
        IFFIM().fit(context, projection_dim=None, checkpoints=6, epoch=None)


def test_iffim_predicts_subset_retraining_of_ridge_regression() -> None:
    """With residuals of one size the Fisher matrix is a multiple of the Hessian, and influence near exact."""
    random = np.random.default_rng(0)
    n, d, alpha, noise = 200, 5, 0.1, 0.5
    X = random.normal(size=(n, d))
    y = X @ random.normal(size=d) + noise * random.choice([-1.0, 1.0], n)
    X_test = random.normal(size=(20, d))

    def retrain(rows: np.ndarray) -> np.ndarray:
        normal = X[rows].T @ X[rows] + alpha * n * np.eye(d)
        return np.asarray(np.linalg.solve(normal, X[rows].T @ y[rows]))

    model = torch.nn.Linear(d, 1, bias=False).double().eval()
    context = Context(
        train=Examples(torch.from_numpy(X), torch.from_numpy(y)),
        test=Examples(torch.from_numpy(X_test), torch.zeros(20, dtype=torch.float64)),
        model=model,
        checkpoints=(Checkpoint({"weight": torch.from_numpy(retrain(np.arange(n))[None])}, epoch=1, seed=0),),
        loss=lambda outputs, targets: (outputs.squeeze(1) - targets).square() / 2,
        margin=lambda outputs, targets: outputs.squeeze(1),
        target=lambda outputs, targets: outputs.squeeze(1),
    )
    method = IFFIM()
    scores = method.score(method.fit(context, **EXACT), regularization=alpha * noise**2).double().numpy()
    masks = np.array([random.permutation(n) < 0.9 * n for _ in range(100)])
    truth = np.array([X_test @ retrain(np.flatnonzero(mask)) for mask in masks])
    ranks = [np.argsort(np.argsort(values, axis=0), axis=0) for values in (masks @ scores.T, truth)]
    lds = [np.corrcoef(ranks[0][:, j], ranks[1][:, j])[0, 1] for j in range(20)]
    assert np.mean(lds) > 0.95
