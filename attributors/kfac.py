"""K-FAC influence: the Fisher matrix as one Kronecker product per layer.

Martens & Grosse, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", ICML 2015 (arXiv
1503.05671); for convolutions Grosse & Martens, ICML 2016 (arXiv 1602.01407):

    F̂_l = A_l ⊗ S_l / T,   A = E[Σ_t a aᵀ],  S = E[Σ_t δ δᵀ]
    τ_λ(z', i) = −Σ_layers g_iᵀ (F̂_l + λI)⁻¹ g',   averaged over checkpoints

with a the inputs of a linear layer, δ the gradients with respect to its outputs, and T positions. It is `ekfac` without
the correction of the eigenvalues: Λ is the product of those of A and S, which takes inputs and gradients for
independent.

Deviations: λ is absolute and added to F̂, by its eigendecomposition; the paper adds √λ to both factors. Otherwise those
of `ekfac`.
"""

from __future__ import annotations

from collections.abc import Mapping

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs
from attriboard.toolkit.kronecker import eigenpairs
from attriboard.toolkit.kronecker_influence import Block, Fisher, KroneckerInfluence, fisher_labels
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layerwise import layer_regularization, matrix_positions, second_moments


class KFAC(KroneckerInfluence):
    """Influence functions with a Kronecker-factored Fisher matrix."""

    name = "kfac"
    paper = "arXiv:1503.05671"
    family = "influence function"
    hyperparameters = (
        layer_regularization(None, "bergson 2.5, as run: a tenth of the mean eigenvalue", aliases=("damping",)),
        fisher_labels("true", "arXiv 1503.05671, section 5: targets are drawn from the model"),
        *knobs.ONE_MODEL,
    )

    def blocks(
        self, context: Context, checkpoint: Checkpoint, sizes: Mapping[str, tuple[int, int]], *, fisher: Fisher
    ) -> dict[str, Block]:
        """Eigenpairs of A ⊗ S / T."""
        draws = labelled(context, checkpoint, own=fisher == "true")
        moments = second_moments(context, checkpoint, draws, sizes)
        positions = matrix_positions(context, checkpoint, sizes)
        pairs = {name: eigenpairs(*moments.pop(name)) for name in sizes}
        return {name: Block(basis, values.div_(positions[name])) for name, (basis, values) in pairs.items()}
