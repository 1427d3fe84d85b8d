"""The subsampled Fourier projection: an orthonormal basis, sampled; as good as a Gaussian one."""

import pytest
import torch

from attriboard.base.errors import HyperparameterError
from attriboard.toolkit.projection import FourierProjection


def matrix(n_params: int, d_proj: int, seed: int = 0) -> torch.Tensor:
    """The dense twin (n_params, d_proj): the projection applied to the identity."""
    return FourierProjection(n_params, d_proj, seed)(torch.eye(n_params, dtype=torch.float64))


@pytest.mark.parametrize(("n_params", "length"), [(15, 15), (16, 16), (17, 18), (121, 125)])
def test_coordinates_come_from_one_orthonormal_basis(n_params: int, length: int) -> None:
    d_proj = n_params - 1
    columns = matrix(n_params, d_proj)
    projection = FourierProjection(n_params, d_proj, 0)
    assert projection._length == length
    if length == n_params:
        gram = columns.T @ columns * d_proj / length
        torch.testing.assert_close(gram, torch.eye(d_proj, dtype=torch.float64), rtol=0, atol=1e-12)


def test_the_mean_over_seeds_is_the_identity() -> None:
    n_params = 40
    total = sum(matrix(n_params, 8, seed) @ matrix(n_params, 8, seed).T for seed in range(1000))
    assert isinstance(total, torch.Tensor)
    torch.testing.assert_close(total / 1000, torch.eye(n_params, dtype=torch.float64), rtol=0, atol=0.06)


@pytest.mark.parametrize("d_proj", [30, 31, 1000])
def test_enough_dimensions_mean_no_projection(d_proj: int) -> None:
    gradients = torch.randn(4, 30)
    assert torch.equal(FourierProjection(30, d_proj, 0)(gradients), gradients)


def test_projection_is_its_dense_twin() -> None:
    gradients = torch.randn(50, 500, dtype=torch.float64)
    actual = FourierProjection(500, 64, 7)(gradients)
    torch.testing.assert_close(actual, gradients @ matrix(500, 64, 7), rtol=0, atol=1e-12)


def test_rows_do_not_depend_on_their_block() -> None:
    project = FourierProjection(501, 64, 7)
    gradients = torch.randn(50, 501)
    pieces = torch.cat([project(block) for block in gradients.split(7)])
    torch.testing.assert_close(pieces, project(gradients), rtol=0, atol=1e-6)


def test_seeds_decide_the_projection() -> None:
    gradients = torch.randn(3, 200)
    first = FourierProjection(200, 32, (1, 0))(gradients)
    assert torch.equal(first, FourierProjection(200, 32, (1, 0))(gradients))
    assert not torch.allclose(first, FourierProjection(200, 32, (1, 1))(gradients))


@pytest.mark.parametrize("kind", ["dense", "sparse", "constant"])
def test_inner_products_are_unbiased_and_no_worse_than_gaussian(kind: str) -> None:
    """Also for vectors that a Fourier basis alone would map to a few coordinates."""
    n_params, d_proj, trials = 1000, 100, 300
    x, y = torch.randn(2, n_params, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    if kind == "sparse":
        x[5:] = y[5:] = 0
    if kind == "constant":
        x[:], y[:] = 1.0, torch.linspace(0, 2, n_params)
    x, y = x / x.norm(), y / y.norm()
    exact = float(x @ y)
    pairs = (FourierProjection(n_params, d_proj, seed)(torch.stack([x, y])) for seed in range(trials))
    errors = torch.tensor([float(px @ py) - exact for px, py in pairs])
    gaussian = ((1 + exact**2) / d_proj) ** 0.5  # the standard deviation with independent normal entries
    assert abs(errors.mean()) < 4 * errors.std() / trials**0.5
    assert errors.std() < 1.1 * gaussian


def test_dimension_must_be_positive() -> None:
    with pytest.raises(HyperparameterError, match="projection_dim = 0: must be at least 1"):
        FourierProjection(10, 0, 0)
