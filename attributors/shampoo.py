"""Influence in Shampoo's eigenbases, with corrected eigenvalues.

Gupta, Koren & Singer, "Shampoo: Preconditioned Stochastic Tensor Optimization", ICML 2018 (arXiv 1802.09568); with the
eigenvalues of George et al. (arXiv 1806.03884) as in SOAP (Vyas et al., arXiv 2409.11321):

    L = E[Ḡ Ḡᵀ] = U_S · U_Sᵀ,   R = E[Ḡᵀ Ḡ] = U_A · U_Aᵀ,   Λ = E[v²],  v = U_Aᵀ Gᵀ U_S
    τ_λ(z', i) = −Σ_layers Σ_pq  v_i[p,q] v'[p,q] / (Λ[p,q] + λ),   averaged over checkpoints

with G (d_out, d_in) the gradient of one example, Ḡ the mean of a batch of B. K-FAC's factors take inputs and output
gradients apart; these are made of whole gradients.

Deviations: the expectation over batches, drawn with replacement, is exact: E[Ḡ Ḡᵀ] = E[G Gᵀ]/B + (1 − 1/B) E[G] E[G]ᵀ,
so that no draw and no order of examples matters. With labels of the model's own E[G] is zero and so is the influence of
B. Scales of L and R do not matter, since eigenvalues are corrected. Otherwise those of `ekfac`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs
from attriboard.toolkit.kronecker import eigenbasis, gradient_moments, mean_squares
from attriboard.toolkit.kronecker_influence import Block, Fisher, KroneckerInfluence, fisher_labels
from attriboard.toolkit.labels import labelled
from attriboard.toolkit.layerwise import layer_regularization


class Shampoo(KroneckerInfluence):
    """Influence functions in eigenbases of batch gradients, with corrected eigenvalues."""

    name = "shampoo"
    paper = "arXiv:1802.09568"
    family = "influence function"
    hyperparameters = (
        layer_regularization(None, "bergson 2.5, as run: a tenth of the mean eigenvalue", aliases=("damping",)),
        fisher_labels("empirical", "arXiv 1802.09568: the gradients of training"),
        Hyperparameter(
            "batch_size",
            32,
            "ours; arXiv 1802.09568 takes the batches of training, which have 32 or 64 examples in most tasks",
            minimum=1,
            grid=(1, 8, 32, 128, 1024),
            description="examples in a batch whose mean gradient counts",
        ),
        *knobs.ONE_MODEL,
    )

    def blocks(
        self,
        context: Context,
        checkpoint: Checkpoint,
        sizes: Mapping[str, tuple[int, int]],
        *,
        fisher: Fisher,
        batch_size: int,
    ) -> dict[str, Block]:
        """Eigenbases of L and R, and E[v²] in them."""
        draws = labelled(context, checkpoint, own=fisher == "true")
        bases = {}
        for name, (L, R, mean) in gradient_moments(context, checkpoint, draws, sizes).items():
            alone, together = 1 / batch_size, 1 - 1 / batch_size
            left = torch.addmm(L, mean, mean.T, beta=alone, alpha=together)
            right = torch.addmm(R, mean.T, mean, beta=alone, alpha=together)
            bases[name] = eigenbasis(right, left)
        corrected = mean_squares(context, checkpoint, draws, bases)
        known = corrected if fisher == "empirical" else {}
        return {name: Block(bases[name], corrected[name], known.get(name)) for name in sizes}
