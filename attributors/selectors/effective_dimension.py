"""`effective_dimension`: the smallest projection that is faithful at the chosen λ.

A random projection preserves τ_λ once d_proj exceeds a small multiple of d_λ = Σ_j σ_j/(σ_j + λ) (arXiv 2602.10449). So
λ is chosen first, by `surrogate`, on the spectrum at hand, and then the smallest d_proj ≥ c · d_λ among the candidates.
For 95 % of the best LDS that paper needs c = 20.5, 11.0 and 7.4 on MNIST with logistic regression, MNIST with a
perceptron and CIFAR-2; c is between them.
"""

from attriboard.contracts.selector import Choice, Evidence, Selector
from attriboard.toolkit.regularization import pick_by_xi


class EffectiveDimension(Selector):
    """λ by ξ, then the projection dimension by the effective dimension at that λ.

    Args:
        c: how many projected dimensions for each effective one.
    """

    name = "effective_dimension"
    source = "arXiv:2602.10449"
    hyperparameter = "projection_dim"

    def __init__(self, c: float = 12.0) -> None:
        self._c = c

    def select(self, evidence: Evidence) -> Choice:
        """Pick λ and d_proj; the largest candidate where none is large enough."""
        dimensions = evidence.options("projection_dim")
        first = pick_by_xi(evidence.spectra, evidence.options("regularization"))
        value = first.values["regularization"]
        assert isinstance(value, float)
        needed = self._c * max(spectrum.effective_dimension(value) for spectrum in evidence.spectra)
        chosen = next((d for d in dimensions if d >= needed), dimensions[-1])
        note = f"effective dimension {needed / self._c:.0f}"
        return Choice({"projection_dim": int(chosen), "regularization": value}, note=note)
