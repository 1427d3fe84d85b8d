"""EK-FAC influence: the Fisher matrix as a Kronecker product per layer, with corrected eigenvalues.

Grosse et al., "Studying Large Language Model Generalization with Influence Functions" (arXiv 2308.03296), with the
curvature of George et al., "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis", NeurIPS
2018 (arXiv 1806.03884):

    τ_λ(z', i) = −Σ_layers Σ_pq  v_i[q,p] v'[q,p] / (Λ[q,p] + λ),   averaged over checkpoints

A gradient of a linear layer is an outer product δ aᵀ, with a the layer's input and a 1 appended to it where there is
a bias. Rotated into the eigenbases of A = E[a aᵀ] = U_A · U_Aᵀ and S = E[δ δᵀ] = U_S · U_Sᵀ it is v = (U_Sᵀ δ)(U_Aᵀ
a)ᵀ, and Λ = E[v²], element by element. (F̂_l + λI)⁻¹ is then a division.

With `fisher = true` the δ of S and Λ are those of labels drawn from the model; here their expectation over all
classes is taken exactly. With `fisher = empirical` they are those of the training labels.

Scores are computed from the rotated factors, never from gradients: per test point the (d_in, d_out) matrix v'/(Λ + λ)
is contracted with all training examples, n_train · d_in · d_out multiplications a layer and a test point.

Deviations: the test side is the gradient of the attributed f; λ is absolute, added to a curvature that is a mean over
training examples; λ = none is the paper's and kronfluence's heuristic, a tenth of each layer's mean eigenvalue; λ = 0
is the pseudo-inverse over the numerical rank. Linear layers only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attriboard.contracts import Attributor, Checkpoint, Context, Examples, Hyperparameter
from attriboard.errors import NotApplicableError
from attriboard.toolkit import knobs
from attriboard.toolkit.gradients import LayerFactors, evaluate, linear_factors
from attriboard.toolkit.layerwise import layer_damping, layer_regularization, with_bias
from attriboard.toolkit.spectrum import Spectrum

__all__ = ["EKFAC"]

Fisher = Literal["true", "empirical"]

BLOCK_BYTES = 128 * 2**20
"""Memory for one product of training factors with some test points."""

SPECTRUM_BYTES = 512 * 2**20
"""Memory for the spectrum's coefficients (n_test, directions); of more directions the smallest are merged."""


@dataclass(frozen=True)
class Layer:
    """One layer in its Kronecker eigenbasis; P directions of inputs that occur, Q of outputs.

    Attributes:
        inputs: Uᵀ_A a of the training examples (n_train, P), float32.
        deltas: Uᵀ_S δ of the training examples (n_train, Q), float32.
        test_inputs, test_deltas: the same of f at the test examples, (n_test, P) and (n_test, Q), float32.
        eigenvalues: Λ (P, Q), float64.
        moments: mean square of the training gradients in each direction (P, Q), float64; Λ if that is empirical.
        mean: mean eigenvalue over all directions, also those that do not occur.
    """

    inputs: Tensor
    deltas: Tensor
    test_inputs: Tensor
    test_deltas: Tensor
    eigenvalues: Tensor
    moments: Tensor
    mean: float

    def weights(self, damping: float | None) -> Tensor:
        """1/(Λ + λ) (P, Q); a λ below the rounding of Λ leaves out the directions that are.

        At λ = 0 this is the pseudo-inverse.
        """
        damping = layer_damping(damping, self.mean)
        floor = max(self.eigenvalues.shape) * torch.finfo(torch.float64).eps * float(self.eigenvalues.max())
        inverse = 1 / (self.eigenvalues + damping)
        return inverse if damping > floor else inverse.masked_fill(self.eigenvalues <= floor, 0)

    def products(self, damping: float | None) -> Tensor:
        """Σ_pq v_i v'_j / (Λ + λ), (n_test, n_train), float32."""
        weights = self.weights(damping).float()
        n_train, n_outputs = self.deltas.shape
        result = self.inputs.new_empty(len(self.test_inputs), n_train)
        group = max(1, BLOCK_BYTES // (4 * n_train * n_outputs))
        for start in range(0, len(result), group):
            points = slice(start, start + group)
            solved = self.test_inputs[points, :, None] * weights * self.test_deltas[points, None, :]
            left = self.inputs @ solved.transpose(0, 1).flatten(1)  # (n_train, P) @ (P, points · Q)
            result[points] = torch.einsum("njq,nq->jn", left.view(n_train, -1, n_outputs), self.deltas)
        return result


class EKFAC(Attributor):
    """Influence functions with an eigenvalue-corrected Kronecker-factored Fisher matrix."""

    name = "ekfac"
    paper = "arXiv:2308.03296"
    family = "influence function"
    hyperparameters = (
        layer_regularization("damping", 1e-8, "kronfluence 1.0.1 ScoreArguments: damping_factor=1e-8"),
        Hyperparameter(
            "fisher",
            "true",
            "arXiv 2308.03296, and kronfluence 1.0.1 FactorArguments: use_empirical_fisher=False",
            choices=("true", "empirical"),
            grid=("true", "empirical"),
            description="expectation over the model's own labels, or the training labels",
        ),
        knobs.checkpoints(1, "dattri's benchmark: one model trained on all data"),
        knobs.epoch(),
    )

    def fit(self, context: Context, *, fisher: Fisher, checkpoints: int, epoch: int | None) -> list[list[Layer]]:
        """Eigenbases, corrected eigenvalues and rotated factors of every checkpoint's layers."""
        return [fit_layers(context, one, fisher) for one in context.select_checkpoints(checkpoints, epoch=epoch)]

    def score(self, state: list[list[Layer]], *, damping: float | None) -> Tensor:
        """Sum over layers, average over checkpoints."""
        layers = [layer for checkpoint in state for layer in checkpoint]
        scores = layers[0].products(damping)
        for layer in layers[1:]:
            scores += layer.products(damping)
        return scores.div_(-len(state))

    def spectrum(self, state: list[list[Layer]]) -> list[Spectrum]:
        """Λ, and c = (Σ_i v_i²)^½ v' in each direction: of K/n, as far as the eigenbasis makes it diagonal."""
        return [layers_spectrum(layers) for layers in state]


def fit_layers(context: Context, checkpoint: Checkpoint, fisher: Fisher) -> list[Layer]:
    """Every layer of one checkpoint."""
    train = linear_factors(context, checkpoint, context.loss, context.train)
    test = linear_factors(context, checkpoint, context.target, context.test)
    drawn = [one.deltas[None] for one in train] if fisher == "empirical" else expected_deltas(context, checkpoint)
    return [fit_layer(*layer) for layer in zip(train, test, drawn, strict=True)]


def fit_layer(train: LayerFactors, test: LayerFactors, drawn: Tensor) -> Layer:
    """One layer.

    Args:
        train: gradient factors of the training losses.
        test: those of f at the test examples.
        drawn: δ that the curvature is made of (draws, n_train, d_out); its sum of squares over draws is the
            expectation.
    """
    a = with_bias(train)
    n, d_in = a.shape
    values, input_basis = torch.linalg.eigh(a.T @ a / n)
    # Directions without training inputs: every training gradient is zero there, and so is their share of a score.
    input_basis = input_basis[:, values > d_in * torch.finfo(torch.float64).eps * values[-1]]
    stacked = drawn.flatten(0, 1)
    output_basis = torch.linalg.eigh(stacked.T @ stacked / n)[1]
    inputs, deltas = a @ input_basis, train.deltas @ output_basis
    squares = inputs.square().T / n
    eigenvalues = squares @ (drawn @ output_basis).square().sum(0)
    if not bool(torch.isfinite(eigenvalues).all()) or float(eigenvalues.max()) == 0:
        raise NotApplicableError("a layer's Fisher matrix is zero or not finite: a model diverged, or has no gradient")
    return Layer(
        inputs.float(),
        deltas.float(),
        (with_bias(test) @ input_basis).float(),
        (test.deltas @ output_basis).float(),
        eigenvalues,
        squares @ deltas.square(),
        float(eigenvalues.sum()) / (d_in * deltas.shape[1]),
    )


def expected_deltas(context: Context, checkpoint: Checkpoint) -> list[Tensor]:
    """√p(y|x) δ(x, y) for every class y: (classes, n_train, d_out) per layer, float64.

    Raises:
        NotApplicableError: the loss is not −log p over classes.
    """
    inputs, targets = context.train.inputs, context.train.targets
    row = Examples(inputs[:1], targets[:1])
    n_classes = torch.func.functional_call(context.model, dict(checkpoint.parameters), (row.inputs,)).shape[-1]
    if targets.dim() != 1 or targets.is_floating_point():
        raise NotApplicableError("fisher = true: targets must be classes; use fisher = empirical")
    labelled = [Examples(inputs, torch.full_like(targets, label)) for label in range(n_classes)]
    likelihoods = [torch.exp(-evaluate(context, checkpoint, context.loss, one).double()) for one in labelled]
    total = torch.stack(likelihoods).sum(0)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-3):
        raise NotApplicableError("fisher = true: the loss must be −log p of the label; use fisher = empirical")
    draws: list[list[Tensor]] = []
    for one, likelihood in zip(labelled, likelihoods, strict=True):
        factors = linear_factors(context, checkpoint, context.loss, one)
        draws.append([layer.deltas * likelihood.sqrt()[:, None] for layer in factors])
    return [torch.stack(layer) for layer in zip(*draws, strict=True)]


def layers_spectrum(layers: list[Layer]) -> Spectrum:
    """One spectrum of all layers, descending; beyond `SPECTRUM_BYTES` the smallest σ count as its remainder."""
    eigenvalues = torch.cat([layer.eigenvalues.flatten() for layer in layers])
    n_train, n_test = len(layers[0].inputs), len(layers[0].test_inputs)
    lengths = torch.cat([(n_train * layer.moments).sqrt().flatten() for layer in layers])
    order = eigenvalues.argsort(descending=True)
    # Where Λ is zero no training example has a gradient.
    order = order[: int((eigenvalues > 0).sum())]
    kept = min(len(order), max(1, SPECTRUM_BYTES // (8 * n_test)))
    coefficients = lengths.new_empty(n_test, kept)
    remainder = lengths.new_zeros(n_test)
    for point in range(n_test):
        outer = [torch.outer(layer.test_inputs[point], layer.test_deltas[point]).flatten() for layer in layers]
        row = (lengths * torch.cat(outer))[order]
        coefficients[point], remainder[point] = row[:kept], row[kept:].norm()
    floor = float(eigenvalues[order[kept]]) if kept < len(order) else 0.0
    return Spectrum(eigenvalues[order[:kept]], coefficients, n_train, remainder if floor else None, floor)
