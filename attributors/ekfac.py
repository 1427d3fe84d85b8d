"""EK-FAC influence: the Fisher matrix as a Kronecker product per layer, with corrected eigenvalues.

Grosse et al., "Studying Large Language Model Generalization with Influence Functions" (arXiv 2308.03296), with the
curvature of George et al., "Fast Approximate Natural Gradient Descent in a Kronecker-factored Eigenbasis", NeurIPS
2018 (arXiv 1806.03884):

    τ_λ(z', i) = −Σ_layers Σ_pq  v_i[q,p] v'[q,p] / (Λ[q,p] + λ),   averaged over checkpoints

A gradient of a linear layer is an outer product δ aᵀ, with a the layer's input and a 1 appended to it where there is
a bias. Rotated into the eigenbases of A = E[a aᵀ] = U_A · U_Aᵀ and S = E[δ δᵀ] = U_S · U_Sᵀ it is v = (U_Sᵀ δ)(U_Aᵀ
a)ᵀ, and Λ = E[v²], element by element. (F̂_l + λI)⁻¹ is then a division.

The labels whose gradients S and Λ are made of are those of the training set with `fisher = empirical`, and the model's
own with `fisher = true`, by `attriboard.toolkit.labels`: in exact expectation over classes, by one draw for each
position of a sequence. A layer at several positions, pixels or tokens, has gradients Σ_t δ_t a_tᵀ; A and S are sums
over positions, Λ is made of whole gradients.

How scores are made of bases and eigenvalues: `attriboard.toolkit.eigenbasis`.

Deviations: the test side is the gradient of the attributed f; λ is absolute, added to a curvature that is a mean over
training examples; λ = none is the paper's and kronfluence's heuristic, a tenth of each layer's mean eigenvalue; λ = 0
is the pseudo-inverse over the numerical rank. Matrix layers only: linear layers, convolutions and Conv1D whose weight
no other layer shares. Embeddings and norms are left out, as in kronfluence.
"""

from __future__ import annotations

from collections.abc import Mapping

from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs
from attriboard.toolkit.kronecker import eigenbasis, mean_squares
from attriboard.toolkit.kronecker_influence import Block, Fisher, KroneckerInfluence, fisher_labels
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layerwise import layer_regularization, second_moments


class EKFAC(KroneckerInfluence):
    """Influence functions with an eigenvalue-corrected Kronecker-factored Fisher matrix."""

    name = "ekfac"
    paper = "arXiv:2308.03296"
    family = "influence function"
    hyperparameters = (
        layer_regularization(1e-8, "kronfluence 1.0.1 ScoreArguments: damping_factor=1e-8", aliases=("damping",)),
        fisher_labels("true", "arXiv 2308.03296, and kronfluence 1.0.1 FactorArguments: use_empirical_fisher=False"),
        *knobs.ONE_MODEL,
    )

    def blocks(
        self, context: Context, checkpoint: Checkpoint, sizes: Mapping[str, tuple[int, int]], *, fisher: Fisher
    ) -> dict[str, Block]:
        """Eigenbases of the second moments, and E[v²] in them."""
        return ekfac_blocks(context, checkpoint, sizes, fisher)


def ekfac_blocks(
    context: Context, checkpoint: Checkpoint, sizes: Mapping[str, tuple[int, int]], fisher: Fisher
) -> dict[str, Block]:
    """EK-FAC's curvature of every matrix layer."""
    draws = labelled(context, checkpoint, own=fisher == "true")
    moments = second_moments(context, checkpoint, draws, sizes)
    bases = {name: eigenbasis(*moments.pop(name)) for name in sizes}
    corrected = mean_squares(context, checkpoint, draws, bases)
    known = corrected if fisher == "empirical" else {}
    return {name: Block(bases[name], corrected[name], known.get(name)) for name in sizes}
