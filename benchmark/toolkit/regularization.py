"""λ for people's own models: `select_regularization` on gradients, streams of gradients, or a spectrum.

Algorithm 1 of Wang et al. (arXiv 2505.24261), as the selector `surrogate` runs it: the λ at which the mean over test
points of ξ(λ) = t₂/√(t₁ t₃), t_k = rᵀ(K/n + λI)⁻ᵏ r, is closest to one half. See docs/choosing-lambda.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attriboard.base.errors import InputError, NotApplicableError
from attriboard.contracts.selector import Choice
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit.spectrum import solve_features, solve_kernel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PER_DECADE = 4
WIDEST = 1e-12  # times σ_max: below it eigenvalues of float32 gradients are rounding


@dataclass(frozen=True)
class RegularizationChoice:
    """The chosen λ, and how every candidate did.

    Attributes:
        regularization: λ, absolute, added to the matrix that is normalized by 1/n: F = GᵀG/n or K/n. Libraries that
            average over examples and add a number take it as it is: kronfluence's `damping_factor`, logix's `damping`.
        candidates: the λ that were compared, ascending.
        xi: ξ̄ of each.
        at_edge: whether ξ̄ does not rise through one half within the candidates. Then the pick is no answer: widen the
            candidates; where they span the whole spectrum, ξ does not settle λ.
        effective_dimension: Σσ/(σ + λ) at the pick: a projection should keep a small multiple of it.
        n_train: how many training examples the spectrum is of.
        mean_eigenvalue: trace(F)/d.
    """

    regularization: float
    candidates: tuple[float, ...]
    xi: tuple[float, ...]
    at_edge: bool
    effective_dimension: float
    n_train: int
    mean_eigenvalue: float

    @property
    def unnormalized(self) -> float:
        """λ·n, for code that adds to GᵀG: traker's `lambda_reg`, `regularization` of dattri's TRAK."""
        return self.regularization * self.n_train

    @property
    def relative(self) -> float:
        """λ over the mean eigenvalue, for code that multiplies by it: `damping` of dattri's LoGra and FactGraSS."""
        return self.regularization / self.mean_eigenvalue

    def figure(self) -> Figure:
        """ξ̄ against λ, with the pick marked."""
        return xi_figure(self.candidates, self.xi, self.regularization)


def xi_figure(candidates: Sequence[float], xi: Sequence[float], pick: float, title: str = "") -> Figure:
    """Mean ξ against λ, with one half and the pick marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.subplots()
    axis.plot(candidates, xi, color="#0072b2", marker="o", markersize=4, label="mean ξ")
    axis.axhline(HALF, color="#4b5563", linestyle=(0, (6, 3)), linewidth=1.2, label="one half")
    axis.axvline(pick, color="#d55e00", label=f"pick, λ = {pick:.3g}")
    axis.set(xscale="log", xlabel="regularization λ", ylabel="mean ξ", ylim=(-0.03, 1.03), title=title)
    axis.legend(frameon=False)
    return figure


def select_regularization(
    train_gradients: Any = None,
    test_gradients: Any = None,
    candidates: Sequence[float] | None = None,
    *,
    eigenvalues: Any = None,
    coefficients: Any = None,
    n_train: int | None = None,
) -> RegularizationChoice:
    """Pick λ without retraining.

    Give gradients, or a spectrum. Gradients may be projected; take them as your method uses them (of the loss or of the
    margin, scaled or not), because λ is in units of their square.

    Memory beside an array of training gradients (n_train, d): with n_train > d two float64 matrices of d × d, GᵀG and
    its eigenvectors, 16·d² bytes; otherwise a float64 copy of the gradients and two matrices of n_train × n_train. Of
    an iterator, rows are kept as they come until there are more than d of them; from then on only GᵀG is. So a stream
    costs about three matrices of d × d at most, however long it is; project first where that is too much.

    Args:
        train_gradients: (n_train, d), a tensor or array, or an iterable of chunks of rows (b, d).
        test_gradients: gradients of the function that is attributed, (n_test, d), in the same forms; a few dozen
            test points are enough.
        candidates: λ to choose from, positive; by default four a decade from a tenth of the smallest eigenvalue (not
            below 1e-13 of the largest) to ten times the largest.
        eigenvalues: instead of gradients: all d eigenvalues σ of F = GᵀG/n, or of K/n, zeros included; or of the
            Hessian that your method inverts, negative ones as zeros.
        coefficients: with them: c (n_test, d), r = G g' in the eigenbasis of K/n. From F's eigenvectors u_j they are
            c_j = √(n σ_j) ⟨u_j, g'⟩.
        n_train: with them: n.

    Returns:
        The pick, ξ̄ of every candidate, and the pick in other libraries' conventions.

    Raises:
        InputError: shapes that do not agree, numbers that are not finite, gradients that are all zero, candidates that
            are not positive.
    """
    given = [x is not None for x in (train_gradients, test_gradients, eigenvalues, coefficients, n_train)]
    if given == [True, True, False, False, False]:
        spectrum, dimension = _spectrum_of_gradients(train_gradients, test_gradients)
    elif given == [False, False, True, True, True]:
        spectrum, dimension = _given_spectrum(eigenvalues, coefficients, n_train)
    else:
        raise InputError(
            "select_regularization: give train_gradients and test_gradients, "
            "or eigenvalues=, coefficients= and n_train=, and not both"
        )
    return _choice(spectrum, dimension, candidates)


def _choice(spectrum: Spectrum, dimension: int, candidates: Sequence[float] | None) -> RegularizationChoice:
    """The pick of ξ on a spectrum of F, of d = `dimension` eigenvalues."""
    values = _default_candidates(spectrum) if candidates is None else _checked_candidates(candidates)
    try:
        choice = pick_by_xi([spectrum], values)
    except NotApplicableError as error:
        raise InputError(f"test_gradients: none has a component along the training gradients; {error}") from error
    assert choice.criterion is not None
    pick = float(choice.values["regularization"] or 0.0)
    return RegularizationChoice(
        regularization=pick,
        candidates=values,
        xi=choice.criterion,
        at_edge=not min(choice.criterion) <= HALF <= choice.criterion[-1],
        effective_dimension=spectrum.effective_dimension(pick),
        n_train=spectrum.n_train,
        mean_eigenvalue=float(spectrum.eigenvalues.sum()) / dimension,
    )


def _spectrum_of_gradients(train_gradients: Any, test_gradients: Any) -> tuple[Spectrum, int]:
    """The spectrum, and d."""
    test = torch.cat(list(_chunks("test_gradients", test_gradients))).double()
    _refuse_zero("test_gradients", test)
    d = test.shape[1]
    kept: list[Tensor] = []  # rows, while there are at most d of them
    moment: Tensor | None = None  # GᵀG, from then on
    n = 0
    for rows in _chunks("train_gradients", train_gradients):
        if rows.shape[1] != d:
            raise InputError(
                f"train_gradients are ({n + len(rows)}, {rows.shape[1]}) and test_gradients {tuple(test.shape)}: "
                "must be (n_train, d) and (n_test, d) with the same d"
            )
        n += len(rows)
        if moment is not None:
            _add_product(moment, rows)
            continue
        kept.append(rows)
        if n > d:
            moment = rows.new_zeros(d, d, dtype=torch.float64)
            for block in kept:
                _add_product(moment, block)
            kept.clear()
    test = test.to((kept[0] if moment is None else moment).device)
    try:
        found = solve_features(torch.cat(kept), test).spectrum if moment is None else _solve_moment(moment, test, n)
    except NotApplicableError as error:
        raise InputError(f"train_gradients: all zero; no λ can be chosen ({error})") from error
    rest = None if found.remainder is None else found.remainder.cpu()
    spectrum = replace(
        found, eigenvalues=found.eigenvalues.cpu(), coefficients=found.coefficients.cpu(), remainder=rest
    )
    return spectrum, d


def _add_product(moment: Tensor, rows: Tensor) -> None:
    """Add rowsᵀ rows, a few rows in float64 at a time."""
    for block in torch.split(rows, 4096):
        double = block.to(moment.device, torch.float64)
        moment.addmm_(double.T, double)


def _solve_moment(moment: Tensor, test: Tensor, n: int) -> Spectrum:
    """The spectrum of F = moment/n and of r.

    `solve_kernel` divides by the side of its matrix, here d; what it calls coefficients are then ⟨u_j, g'⟩.
    """
    found = solve_kernel(moment.mul_(len(moment) / n), test.T).spectrum
    lengths = (n * found.eigenvalues).sqrt()
    return Spectrum(found.eigenvalues, found.coefficients * lengths, n)


def _given_spectrum(eigenvalues: Any, coefficients: Any, n_train: Any) -> tuple[Spectrum, int]:
    """The spectrum without its zeros, and d."""
    sigma = _tensor("eigenvalues", eigenvalues).double()
    c = _tensor("coefficients", coefficients).double()
    if sigma.ndim != 1 or c.ndim != 2 or c.shape[1] != len(sigma) or not c.numel():
        raise InputError(
            f"eigenvalues are {tuple(sigma.shape)} and coefficients {tuple(c.shape)}: must be (d,) and (n_test, d)"
        )
    if isinstance(n_train, bool) or not isinstance(n_train, int) or n_train < 1:
        raise InputError(f"n_train = {n_train!r}: must be a whole number, at least 1")
    # What rounding leaves of a zero may be negative.
    if float(sigma.min()) < -1e-6 * float(sigma.abs().max()):
        raise InputError(f"eigenvalues: the smallest is {float(sigma.min()):g}; must not be negative")
    _refuse_zero("eigenvalues", sigma)
    _refuse_zero("coefficients", c)
    order = sigma.argsort(descending=True)
    order = order[sigma[order] > len(sigma) * torch.finfo(torch.float64).eps * sigma.max()]
    return Spectrum(sigma[order], c[:, order], n_train), len(sigma)


def _chunks(name: str, gradients: Any) -> Iterator[Tensor]:
    """Gradients as tensors of rows, at least one row in all.

    Raises:
        InputError: another shape, or numbers that are not finite.
    """
    whole = isinstance(gradients, (Tensor, np.ndarray))
    if not whole and not isinstance(gradients, Iterable):
        kind = type(gradients).__name__
        raise InputError(f"{name}: {kind}; must be an (n, d) tensor or array, or an iterable of chunks of rows")
    n = 0
    for chunk in (gradients,) if whole else chain(gradients):
        rows = _tensor(name, chunk)
        if rows.ndim != 2 or not rows.shape[1]:
            raise InputError(f"{name}: {'' if whole else 'a chunk '}has shape {tuple(rows.shape)}; must be (n, d)")
        n += len(rows)
        if len(rows):
            yield rows
    if not n:
        raise InputError(f"{name}: no rows; must be (n, d) with n ≥ 1")


def _tensor(name: str, values: Any) -> Tensor:
    """A real, finite tensor without a graph."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()  # PyTorch warns of arrays that it must not write to
    try:
        tensor = torch.as_tensor(values).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name}: {type(values).__name__} is no tensor or array of numbers: {error}") from error
    if tensor.is_complex():
        raise InputError(f"{name}: complex numbers; must be real")
    tensor = tensor if tensor.is_floating_point() else tensor.double()
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {tensor.numel()} numbers are NaN or infinite; must be finite")
    return tensor


def _refuse_zero(name: str, values: Tensor) -> None:
    if not bool(values.any()):
        raise InputError(f"{name}: all zero; no λ can be chosen")


def _default_candidates(spectrum: Spectrum) -> tuple[float, ...]:
    """Log-spaced over the spectrum and a decade beyond either end."""
    largest, smallest = float(spectrum.eigenvalues[0]), float(spectrum.eigenvalues[-1])
    low, high = math.log10(max(smallest, WIDEST * largest)) - 1, math.log10(largest) + 1
    count = math.ceil((high - low) * PER_DECADE) + 1
    return tuple(10 ** (low + step * (high - low) / (count - 1)) for step in range(count))


def _checked_candidates(candidates: Sequence[float]) -> tuple[float, ...]:
    try:
        values = tuple(sorted({float(value) for value in candidates}))
    except (TypeError, ValueError) as error:
        raise InputError(f"candidates = {candidates!r}: must be positive numbers: {error}") from error
    if not values or not all(0 < value < math.inf for value in values):
        raise InputError(f"candidates = {list(values)}: must be positive, finite numbers, at least one")
    return values


HALF = 0.5
"""What ξ̄ should be: where ω, which needs retrains, tends to lie."""


def mean_xi(spectra: Sequence[Spectrum], regularization: float) -> float:
    """ξ̄(λ): mean of ξ over test points and checkpoints; points with r = 0 are left out."""
    return float(torch.cat([spectrum.xi(regularization) for spectrum in spectra]).nanmean())


def last_passage(criterion: Sequence[float]) -> int:
    """Where ξ̄, for ascending λ, is closest to one half, at or after the last candidate below it."""
    start = max((at for at, value in enumerate(criterion) if value < HALF), default=0)
    return min(range(start, len(criterion)), key=lambda at: abs(criterion[at] - HALF))


def pick_by_xi(spectra: Sequence[Spectrum], candidates: Sequence[float]) -> Choice:
    """Algorithm 1 on given spectra; of several passages of ξ̄ through one half, the last.

    Args:
        spectra: one per checkpoint.
        candidates: λ, ascending.

    Raises:
        NotApplicableError: no candidate, or every test point has r = 0.
    """
    criterion = tuple(mean_xi(spectra, value) for value in candidates)
    if not criterion or any(value != value for value in criterion):
        raise NotApplicableError("ξ needs at least one candidate λ and one test point whose r is not zero")
    objective = tuple(abs(value - HALF) for value in criterion)
    return Choice({"regularization": candidates[last_passage(criterion)]}, criterion, objective)
