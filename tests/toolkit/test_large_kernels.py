"""Kernels that do not fit: what stands for them, how far it is from exact, and who decides."""

from collections.abc import Iterator

import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attriboard.attributors.iffim import IFFIM
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit import needs, outputs, plan
from attriboard.toolkit.averaging import Fits
from attriboard.toolkit.held import DenseGradients, kernel_pieces
from attriboard.toolkit.kernel import gradient_kernels
from attriboard.toolkit.lowrank import TriangularKernel, low_rank_bytes, solve_low_rank
from attriboard.toolkit.outputs import average_scores, score_matrix
from attriboard.toolkit.plan import plan_kernel
from attriboard.toolkit.solve import solve_checkpoint
from attriboard.toolkit.spectrum import KernelSolution, solve_kernel

N, N_TEST, D = 300, 5, 24
GB = 2**30


def loss(out: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(out, targets, reduction="none")


@pytest.fixture(scope="module")
def context() -> Context:
    torch.manual_seed(0)
    scale = torch.logspace(0, -1, D)
    examples = Examples(torch.randn(N + N_TEST, D) * scale, torch.randint(0, 4, (N + N_TEST,)))
    model = nn.Sequential(nn.Linear(D, 16), nn.ReLU(), nn.Linear(16, 4))
    checkpoint = Checkpoint({name: value.detach().clone() for name, value in model.named_parameters()}, 1, 0)
    return Context(examples[:N], examples[N:], model.eval(), (checkpoint,), loss, loss, loss)


@pytest.fixture(scope="module")
def kernel(context: Context) -> tuple[TriangularKernel, Tensor, Tensor]:
    """The triangle, the dense kernel, and r."""
    (checkpoint,) = context.checkpoints
    triangle = TriangularKernel(N, rows=64)
    for _, train, _ in kernel_pieces(context, checkpoint, loss, loss):
        triangle.add(train)
    return triangle, *gradient_kernels(context, checkpoint, loss, loss)


Kernel = tuple[TriangularKernel, Tensor, Tensor]


def distance(found: Tensor, exact: Tensor) -> float:
    return float(((found - exact).norm(dim=1) / exact.norm(dim=1)).max())


@pytest.mark.parametrize("chunk", [4096, 50])
def test_the_triangle_multiplies_like_the_kernel(kernel: Kernel, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attriboard.toolkit.lowrank.CHUNK", chunk)
    triangle, dense, _ = kernel
    right = torch.randn(N, 3, dtype=torch.float64)
    assert sum(block.numel() for block in triangle.blocks) < 0.65 * N * N
    assert triangle.trace == pytest.approx(float(dense.trace()), rel=1e-12)
    torch.testing.assert_close(triangle.product(right), dense @ right, rtol=0, atol=2e-6 * float(dense.norm()))


def test_a_kernel_of_low_rank_is_solved_like_an_exact_one() -> None:
    generator = torch.Generator().manual_seed(0)
    G = torch.randn(200, 30, dtype=torch.float64, generator=generator)
    g = torch.randn(30, 4, dtype=torch.float64, generator=generator)
    triangle = TriangularKernel(200, rows=50)
    triangle.add(DenseGradients(G))
    found, exact = solve_low_rank(triangle, G @ g, 60, 0), solve_kernel(G @ G.T, G @ g)
    assert len(found.spectrum.eigenvalues) == 30
    torch.testing.assert_close(found.spectrum.eigenvalues, exact.spectrum.eigenvalues, rtol=1e-5, atol=0)
    for value in (1e-3, 1e-1, 10.0):
        assert distance(found.scores(value), exact.scores(value)) < 2e-5


def test_scores_selectors_and_dimension_are_right_where_lambda_is_above_the_tail(kernel: Kernel) -> None:
    triangle, dense, r = kernel
    exact, found = solve_kernel(dense.clone(), r), solve_low_rank(triangle, r, 60, 0)
    assert len(found.spectrum.eigenvalues) == 60
    tail = found.spectrum.tail
    assert 0 < tail < float(exact.spectrum.eigenvalues[50])
    for factor, tolerance in ((1, 0.5), (10, 0.03), (100, 0.002)):
        value = factor * tail
        assert distance(found.scores(value), exact.scores(value)) < tolerance
        torch.testing.assert_close(found.spectrum.xi(value), exact.spectrum.xi(value), rtol=0, atol=tolerance)
        dimension = exact.spectrum.effective_dimension(value)
        assert found.spectrum.effective_dimension(value) == pytest.approx(dimension, rel=max(0.3 * tolerance, 1e-4) * 2)


def test_another_seed_changes_less_than_the_approximation_does(kernel: Kernel) -> None:
    triangle, dense, r = kernel
    exact = solve_kernel(dense.clone(), r)
    one, other = (solve_low_rank(triangle, r, 60, seed) for seed in (0, 1))
    value = 10 * one.spectrum.tail
    error = distance(one.scores(value), exact.scores(value))
    assert 0 < distance(one.scores(value), other.scores(value)) < error


def test_a_kernel_without_gradients_is_refused() -> None:
    nothing = TriangularKernel(4)
    nothing.add(DenseGradients(torch.zeros(4, 2)))
    with pytest.raises(NotApplicableError, match=r"trace 0\.0"):
        solve_low_rank(nothing, torch.zeros(4, 1), 2, 0)


@settings(deadline=None)
@given(n_train=st.integers(1, 2_000_000), n_test=st.integers(1, 20_000), gigabytes=st.floats(1, 500))
def test_a_plan_fits_its_budget_and_a_larger_budget_is_never_less_exact(
    n_train: int, n_test: int, gigabytes: float
) -> None:
    order = ("projected", "low_rank", "exact")

    def choose(budget: float) -> tuple[int, int]:
        try:
            chosen = plan_kernel(n_train, n_test, int(budget * GB))
        except NotApplicableError:
            return -1, 0
        assert chosen.needed_bytes <= budget * GB
        assert (chosen.note is None) == (chosen.kind == "exact")
        return order.index(chosen.kind), chosen.size if chosen.kind != "exact" else 0

    assert choose(2 * gigabytes) >= choose(gigabytes)


def test_full_mnist_is_solved_by_eigenpairs_in_twenty_gigabytes_and_a_million_examples_are_projected() -> None:
    chosen = plan_kernel(50_000, 500, 20 * GB)
    assert (chosen.kind, chosen.size) == ("low_rank", 2048)
    assert "takes the leading 2,048 eigenpairs of the kernel of 50,000 examples" in str(chosen.note)
    assert "the exact kernel takes 66.9 GiB, and" in str(chosen.note)
    assert plan_kernel(5_000, 500, None).kind == "exact"
    assert plan_kernel(1_000_000, 500, 64 * GB).kind == "projected"
    with pytest.raises(NotApplicableError, match=r"a projection to 256 dimensions takes .* GiB: give more"):
        plan_kernel(1_000_000, 500, 4 * GB)


@pytest.fixture
def small_plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sizes for a kernel of 300, and nothing but the kernel in memory."""
    monkeypatch.setattr(plan, "RANKS", (60,))
    monkeypatch.setattr(plan, "DIMENSIONS", (200, 100))
    monkeypatch.setattr("attriboard.toolkit.lowrank.OVERSAMPLING", 4)
    monkeypatch.setattr("attriboard.toolkit.lowrank.BLOCK_ROWS", 32)
    monkeypatch.setattr(needs, "making", lambda context: 0)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda self: type("Memory", (), {"rss": 0}))
    return


def limited(context: Context, budget: int) -> Context:
    return Context(**(vars(context) | {"memory_bytes": budget}))


def test_the_budget_chooses_the_eigenpairs_and_a_note_says_so(context: Context, small_plans: None) -> None:
    (checkpoint,) = context.checkpoints
    exact = solve_checkpoint(context, checkpoint, loss, loss, projection_dim=None)
    budget = int(1.2 * low_rank_bytes(N, N_TEST, 60))
    assert budget < 28 * N * N
    found = solve_checkpoint(limited(context, budget), checkpoint, loss, loss, projection_dim=None)
    assert exact.note is None
    assert str(found.note).startswith("takes the leading 60 eigenpairs of the kernel of 300 examples")
    value = 10 * found.spectrum.tail
    assert distance(found.scores(value), exact.scores(value)) < 0.03
    assert found.vectors.dtype == torch.float32
    need = needs.kernels(limited(context, budget), None, 1)
    assert 0 < sum(need.values()) <= budget
    assert IFFIM().notes(Fits(limited(context, budget), (exact, found))) == (found.note,)


def test_a_smaller_budget_projects(context: Context, small_plans: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "RANKS", ())
    (checkpoint,) = context.checkpoints
    small = limited(context, 1_300_000)
    found = solve_checkpoint(small, checkpoint, loss, loss, projection_dim=None)
    assert str(found.note).startswith("projects the gradients of 300 examples to 100 dimensions")
    asked = solve_checkpoint(small, checkpoint, loss, loss, projection_dim=100)
    torch.testing.assert_close(found.scores(0.1), asked.scores(0.1))
    assert asked.note is None


def test_scores_beyond_the_budget_are_made_on_disk_and_are_the_same(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, dense, r = kernel
    solutions: list[KernelSolution] = [solve_kernel(k * dense, r).single() for k in (1, 2)]
    here = average_scores(solutions, 0.01)
    torch.testing.assert_close(here, (solutions[0].scores(0.01) + solutions[1].scores(0.01)) / 2)
    monkeypatch.setattr(outputs, "BLOCK_BYTES", 2 * 4 * N)  # blocks of two rows
    torch.testing.assert_close(
        average_scores(solutions, 0.01, budget=1000), here, rtol=1e-5, atol=1e-5 * float(here.abs().max())
    )


def test_a_large_matrix_takes_no_memory_and_leaves_no_file(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = psutil.Process().memory_info().rss
    matrix = score_matrix(2000, 50_000, budget=GB)
    assert matrix.shape == (2000, 50_000)
    matrix[1999, 49_999] = 1.0
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
    assert list(tmp_path.iterdir()) == []
