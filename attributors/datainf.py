"""DataInf: influence functions with a closed form per layer, from exchanging a mean and an inverse.

Kwon, Wu, Wu & Zou, "DataInf: Efficiently Estimating Data Influence in LoRA-tuned LLMs and Diffusion Models", ICLR
2024 (arXiv 2310.00902), equation 5: (F_l + λ_l I)⁻¹ ≈ (1/n) Σ_j (g_j g_jᵀ + λ_l I)⁻¹ for every layer l, hence

    τ(z', i) = −Σ_l (1/λ_l) [ ⟨g_i, g'⟩_l − (1/n) Σ_j ⟨g_i, g_j⟩_l ⟨g_j, g'⟩_l / (λ_l + ‖g_j‖_l²) ],

averaged over checkpoints, with g_i = ∇L(z_i), g' = ∇f(z') and ⟨·,·⟩_l over the parameters of layer l. In terms of every
layer's kernel K_l and r_l = G_l g'_l one product gives each λ.

The default is the paper's λ_l = 0.1 · mean_j ‖g_j‖_l² / d_l, a tenth of the mean eigenvalue of F_l, d_l parameters.
A number is the same absolute λ in every layer.

Deviations: g' is the gradient of the attributed f instead of the validation loss; a layer is a module with its weight
and bias together (the authors' code takes each tensor by itself); λ = 0, by which the formula divides, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfFits
from attriboard.toolkit.factored import layer_parameters
from attriboard.toolkit.held import DenseGradients, kernel_pieces
from attriboard.toolkit.kernel import add_gram, add_products


@dataclass(frozen=True)
class Layer:
    """One layer's kernel K_l = G_l G_lᵀ: itself, or G_l where that is written out anyway and has half its size or less.

    Attributes:
        products: r_l (n_train, n_test), float64.
        n_params: d_l.
        kernel: K_l (n_train, n_train), float64, or `None`.
        roots: G_l (n_train, d_l), in pieces; empty where there is a kernel.
    """

    products: Tensor
    n_params: int
    kernel: Tensor | None
    roots: list[Tensor]

    def squares(self) -> Tensor:
        """‖g_i‖_l² (n_train,), float64."""
        if self.kernel is not None:
            return self.kernel.diagonal()
        return torch.stack([root.double().square().sum(1) for root in self.roots]).sum(0)

    def times(self, columns: Tensor) -> Tensor:
        """K_l times columns (n_train, n_test)."""
        if self.kernel is not None:
            return self.kernel @ columns
        return torch.stack([root.double() @ (root.double().T @ columns) for root in self.roots]).sum(0)

    def scores(self, regularization: float | None) -> Tensor:
        """This layer's part of τ, (n_train, n_test); 0 for a layer without gradients at its own default λ_l."""
        squares = self.squares()
        value = float(squares.mean()) / self.n_params / 10 if regularization is None else regularization
        if value == 0:
            return torch.zeros_like(self.products)
        weighted = self.products / (value + squares)[:, None]
        return (self.times(weighted) / len(squares) - self.products) / value


@dataclass(frozen=True)
class Layers:
    """One checkpoint."""

    layers: tuple[Layer, ...]
    spectrum = None

    def scores(self, regularization: float | None) -> Tensor:
        """The sum over layers, (n_test, n_train), float64.

        Raises:
            NotApplicableError: λ = 0.
        """
        if regularization == 0:
            raise NotApplicableError("regularization = 0: DataInf divides by λ; choose a positive one, or none")
        total = torch.zeros_like(self.layers[0].products)
        for layer in self.layers:
            total += layer.scores(regularization)
        return total.T


class DataInf(MeanOfFits):
    """Per-layer influence in closed form."""

    name = "datainf"
    paper = "arXiv:2310.00902"
    family = "influence function"
    hyperparameters = (
        Hyperparameter(
            "regularization",
            None,
            "arXiv 2310.00902, section 3: λ_l = 0.1 · mean ‖g‖_l² / d_l",
            type=float,
            stage="score",
            grid=knobs.REGULARIZATION_GRID,
            minimum=0.0,
            description="λ, absolute, in every layer; none for a tenth of each layer's mean eigenvalue",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int) -> Layers:
        """Every layer's kernel."""
        return Layers(_layers(context, checkpoint))

    def memory_need(self, context: Context, *, checkpoints: int, epoch: int | None) -> dict[str, int]:
        """The kernels of all layers, and what they are made of."""
        n_train, n_test = len(context.train), len(context.test)
        sizes = [sum(map(prod, own.values())) for own in layer_parameters(context).values()]
        linear = needs.linear_sizes(context.model) is not None  # then gradients are never written out
        sides = [n_train if linear or 2 * size > n_train else size for size in sizes]
        kernels = checkpoints * needs.DOUBLE * n_train * (sum(sides) + n_test * len(sizes))
        return {
            f"the kernels of {len(sizes)} layers": kernels,
            "gradients": needs.gradients(context) + needs.kernel_blocks(context),
            "kept gradients": 0 if linear else needs.held(context),
            "scores": 5 * needs.pairs(context, needs.DOUBLE),
        }


def _layers(context: Context, checkpoint: Checkpoint) -> tuple[Layer, ...]:
    n_train, n_test = len(context.train), len(context.test)
    zeros = partial(torch.zeros, dtype=torch.float64, device=context.device)
    sizes = {name: sum(map(prod, own.values())) for name, own in layer_parameters(context).items()}
    layers: dict[str, Layer] = {}
    for name, train, test in kernel_pieces(context, checkpoint, context.loss, context.target):
        small = isinstance(train, DenseGradients) and 2 * sizes[name] <= n_train
        if name not in layers:
            kernel = None if small else zeros(n_train, n_train)
            layers[name] = Layer(zeros(n_train, n_test), sizes[name], kernel, [])
        layer = layers[name]
        add_products(layer.products, train, test)
        if layer.kernel is not None:
            add_gram(layer.kernel, train)
        elif isinstance(train, DenseGradients):
            layer.roots.append(train.values)
        del train, test  # before the next piece is made
    return tuple(layers.values())
