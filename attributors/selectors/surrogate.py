"""`surrogate`: the λ at which the mean of ξ over a few test points is closest to one half.

Wang et al., "Taming Hyperparameter Sensitivity in Data Attribution" (NeurIPS 2025, arXiv 2505.24261), Algorithm 1.
With t_k = rᵀ(K/n + λI)⁻ᵏ r,

    ξ(λ) = t₂ / √(t₁ t₃),   pick argmin_λ |mean ξ(λ) − ½|

ξ is a cosine, rises from near 0 to 1 as λ passes through the spectrum, and needs no retraining. The population LDS
rises in λ exactly where ξ < ω, and ω, which does need retraining, tends to lie near one half.

Reading of the paper: the text was not at hand; the form was derived anew from its stated properties, which the tests
check (bounds, limit, the sign equivalence). Where a method has several checkpoints, ξ is averaged over them too.

ξ̄ need not rise all along: an outlying eigenvalue can make it dip, and Gauss quadrature of a few Lanczos steps, which
does not know the smallest eigenvalues, leaves it flat below those that it knows, or turns it up again. So ξ̄ may pass
one half more than once, and only the last time counts.
"""

from attriboard.contracts.selector import Choice, Evidence, Selector
from attriboard.toolkit.regularization import pick_by_xi


class Surrogate(Selector):
    """Algorithm 1 on the grid."""

    name = "surrogate"
    source = "Wang et al. 2025 (arXiv:2505.24261), Algorithm 1"

    def select(self, evidence: Evidence) -> Choice:
        """Pick the candidate whose ξ̄ is closest to one half."""
        return pick_by_xi(evidence.spectra, evidence.options("regularization"))
