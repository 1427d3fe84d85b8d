"""`ab.select_regularization`: gradients, streams and spectra give one answer, and the page about it runs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from documents import blocks_of
from torch import Tensor

import attriboard as ab
from attriboard.base.errors import InputError
from attriboard.toolkit.regularization import RegularizationChoice, select_regularization

PAGE = Path(__file__).parent.parent.parent / "docs" / "choosing-lambda.md"


def gradients(n: int = 300, d: int = 24, n_test: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n + d)
    decay = torch.logspace(0, -2.5, d)
    return tuple(torch.randn(size, d, generator=generator) * decay for size in (n, n_test))  # type: ignore[return-value]


def dense_xi(G: Tensor, g: Tensor, value: float) -> float:
    """Mean ξ from t_k = n g'ᵀ F (F + λI)⁻ᵏ g', written out."""
    G, g = G.double(), g.double()
    F = G.T @ G / len(G)
    inverse = torch.linalg.inv(F + value * torch.eye(len(F), dtype=torch.float64))
    t1, t2, t3 = (len(G) * (g @ F @ torch.linalg.matrix_power(inverse, order) * g).sum(1) for order in (1, 2, 3))
    return float((t2 / (t1 * t3).sqrt()).mean())


def same(one: RegularizationChoice, other: RegularizationChoice) -> None:
    assert one.candidates == pytest.approx(other.candidates, rel=1e-9)
    assert one.xi == pytest.approx(other.xi, rel=1e-6)
    assert one.regularization == pytest.approx(other.regularization, rel=1e-9)
    assert one.effective_dimension == pytest.approx(other.effective_dimension, rel=1e-6)
    assert one.mean_eigenvalue == pytest.approx(other.mean_eigenvalue, rel=1e-6)
    assert (one.n_train, one.at_edge) == (other.n_train, other.at_edge)


def test_pick_is_the_candidate_whose_dense_xi_is_closest_to_one_half() -> None:
    G, g = gradients()
    choice = ab.select_regularization(G, g)
    assert choice.xi == pytest.approx([dense_xi(G, g, value) for value in choice.candidates], rel=1e-6)
    best = min(zip(choice.candidates, choice.xi, strict=True), key=lambda pair: abs(pair[1] - 0.5))
    assert choice.regularization == best[0]
    assert not choice.at_edge


@pytest.mark.parametrize(("n", "d"), [(300, 24), (24, 300), (40, 40), (41, 40)])
@pytest.mark.parametrize("rows", [1, 17, 1000])
def test_stream_gives_what_the_whole_gives(n: int, d: int, rows: int) -> None:
    G, g = gradients(n, d)
    stream: Iterator[Tensor] = iter(G.split(rows))
    same(select_regularization(stream, iter(g.split(3))), select_regularization(G, g))


def test_eigenvalues_and_coefficients_give_what_gradients_give() -> None:
    G, g = gradients()
    values, vectors = torch.linalg.eigh(G.double().T @ G.double() / len(G))
    values = values.clamp(min=0)
    c = (len(G) * values).sqrt() * (g.double() @ vectors)
    expected = select_regularization(G, g)
    same(select_regularization(eigenvalues=values, coefficients=c, n_train=len(G)), expected)
    zeros = torch.cat([values, torch.zeros(10)]), torch.cat([c, torch.zeros(len(c), 10)], dim=1)
    padded = select_regularization(eigenvalues=zeros[0].numpy(), coefficients=zeros[1].numpy(), n_train=len(G))
    assert padded.xi == pytest.approx(expected.xi, rel=1e-6)
    assert padded.mean_eigenvalue == pytest.approx(expected.mean_eigenvalue * 24 / 34)


def test_arrays_read_only_arrays_and_other_types_are_taken() -> None:
    G, g = gradients()
    frozen = G.numpy().copy()
    frozen.setflags(write=False)
    expected = select_regularization(G, g)
    same(select_regularization(frozen, g.numpy()), expected)
    same(select_regularization(G.requires_grad_(), [g[:2], g[2:].numpy()]), expected)
    assert select_regularization(G.detach().bfloat16(), g).regularization == pytest.approx(
        expected.regularization, rel=0.1
    )
    whole = select_regularization(torch.tensor([[1, 2], [3, 4], [5, 7]]), torch.tensor([[1, 0]]))
    assert whole.n_train == 3


def test_default_candidates_span_the_spectrum_with_a_decade_to_spare() -> None:
    G, g = gradients()
    eigenvalues = torch.linalg.eigvalsh(G.double().T @ G.double() / len(G))
    candidates = select_regularization(G, g).candidates
    assert candidates[0] == pytest.approx(float(eigenvalues[0]) / 10, rel=1e-6)
    assert candidates[-1] == pytest.approx(10 * float(eigenvalues[-1]), rel=1e-6)
    ratios = np.diff(np.log10(candidates))
    assert ratios == pytest.approx([ratios[0]] * len(ratios))
    assert 0.2 < ratios[0] <= 0.25


def test_a_range_that_does_not_reach_one_half_is_marked_and_the_pick_is_its_nearer_end() -> None:
    choice = select_regularization(*gradients(), candidates=(1e5, 1e6))
    assert choice.at_edge
    assert choice.regularization == 1e5
    # One eigenvalue: ξ is 1 for every λ, whatever the candidates.
    flat = select_regularization(eigenvalues=torch.ones(9), coefficients=torch.ones(2, 9), n_train=50)
    assert flat.xi == pytest.approx([1.0] * len(flat.candidates))
    assert flat.at_edge


def test_candidates_are_sorted_and_counted_once() -> None:
    assert select_regularization(*gradients(), candidates=[1.0, 0.1, 1, 0.01]).candidates == (0.01, 0.1, 1.0)


def test_conversions_solve_the_same_system() -> None:
    """What traker and dattri's TRAK, kronfluence and logix, and LoGra invert is one matrix up to a factor."""
    G, g = (x.double() for x in gradients())
    choice = select_regularization(G, g)
    identity = torch.eye(24, dtype=torch.float64)
    F = G.T @ G / len(G)
    scores = g @ torch.linalg.inv(F + choice.regularization * identity) @ G.T
    unnormalized = g @ torch.linalg.inv(G.T @ G + choice.unnormalized * identity) @ G.T
    relative = g @ torch.linalg.inv(F + choice.relative * F.trace() / 24 * identity) @ G.T
    torch.testing.assert_close(len(G) * unnormalized, scores)
    torch.testing.assert_close(relative, scores)


def test_figure_marks_the_pick(tmp_path: Path) -> None:
    choice = select_regularization(*gradients())
    figure = choice.figure()
    (axis,) = figure.axes
    assert list(axis.lines[0].get_xdata()) == list(choice.candidates)
    assert list(axis.lines[-1].get_xdata()) == [choice.regularization] * 2
    figure.savefig(tmp_path / "xi.png")
    assert (tmp_path / "xi.png").stat().st_size > 5000


G, g = gradients(20, 5, 3)
NAN = G.clone()
NAN[3, 2] = torch.nan


@pytest.mark.parametrize(
    ("arguments", "more", "message"),
    [
        ((G,), {}, "give train_gradients and test_gradients, or eigenvalues=, coefficients= and n_train="),
        ((), {}, "give train_gradients and test_gradients"),
        ((G, g), {"n_train": 3}, "and not both"),
        ((G, g[:, :4]), {}, r"train_gradients are \(20, 5\) and test_gradients \(3, 4\): must be"),
        ((iter([G, G[:, :3]]), g), {}, r"train_gradients are \(40, 3\) and test_gradients \(3, 5\)"),
        ((NAN, g), {}, "train_gradients: 1 of 100 numbers are NaN or infinite"),
        ((iter([G, NAN]), g), {}, "train_gradients: 1 of 100 numbers are NaN or infinite"),
        ((G, g / 0), {}, "test_gradients: 15 of 15 numbers are NaN or infinite"),
        ((G * 0, g), {}, "train_gradients: all zero"),
        ((iter([G * 0]), g), {}, "train_gradients: all zero"),
        ((G, g * 0), {}, "test_gradients: all zero"),
        ((torch.diag(torch.tensor([1.0, 0.0])), torch.tensor([[0.0, 1.0]])), {}, "none has a component along"),
        ((G[0], g), {}, r"train_gradients: has shape \(5,\); must be \(n, d\)"),
        ((iter([G[0]]), g), {}, r"train_gradients: a chunk has shape \(5,\)"),
        ((G[:0], g), {}, "train_gradients: no rows"),
        ((iter([]), g), {}, "train_gradients: no rows"),
        ((3, g), {}, "train_gradients: int; must be an"),
        ((["a"], g), {}, "train_gradients: str is no tensor or array of numbers"),
        ((G + 1j, g), {}, "train_gradients: complex numbers"),
        ((G, g, [0.0, 1.0]), {}, r"candidates = \[0.0, 1.0\]: must be positive"),
        ((G, g, []), {}, r"candidates = \[\]: must be positive"),
        ((G, g, [float("inf")]), {}, "must be positive, finite"),
        ((G, g, ["x"]), {}, "must be positive numbers"),
    ],
)  # fmt: skip
def test_bad_gradients_are_named(arguments: tuple[Any, ...], more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        select_regularization(*arguments, **more)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"coefficients": torch.ones(2, 3)}, r"eigenvalues are \(2,\) and coefficients \(2, 3\): must be \(d,\)"),
        ({"eigenvalues": torch.ones(2, 2)}, "must be"),
        ({"eigenvalues": torch.tensor([1.0, -1.0])}, "the smallest is -1; must not be negative"),
        ({"eigenvalues": torch.zeros(2)}, "eigenvalues: all zero"),
        ({"coefficients": torch.zeros(1, 2)}, "coefficients: all zero"),
        ({"eigenvalues": torch.tensor([1.0, torch.nan])}, "eigenvalues: 1 of 2 numbers"),
        ({"n_train": 0}, "n_train = 0: must be"),
        ({"n_train": 2.5}, "n_train = 2.5: must be"),
        ({"n_train": None}, "give train_gradients"),
    ],
)
def test_bad_spectra_are_named(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"eigenvalues": torch.tensor([2.0, 1.0]), "coefficients": torch.ones(1, 2), "n_train": 9}
    assert select_regularization(**good).n_train == 9
    with pytest.raises(InputError, match=message):
        select_regularization(**(good | changes))


def test_every_python_block_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one namespace, as a reader would."""
    monkeypatch.chdir(tmp_path)
    blocks = [b.text for b in blocks_of(PAGE) if b.language == "python" and not b.elsewhere]
    assert len(blocks) >= 7
    namespace: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, PAGE.name, "exec"), namespace)
    assert (tmp_path / "xi.png").is_file()
    assert namespace["damping_factor"] == pytest.approx(namespace["choice"].regularization)


def test_page_names_every_selector() -> None:
    from attriboard.attributors.selectors import ORACLE, SELECTORS

    listed = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert listed == [*SELECTORS, ORACLE]


def test_each_recipe_takes_at_most_ten_lines() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for heading in ("### TRAK", "### LoGra", "### kronfluence"):
        match = re.search(r"```python\n(.*?)```", text.split(heading)[1], re.S)
        assert match
        assert len(match[1].splitlines()) <= 10
