"""`mean_eigenvalue`: λ = c · the mean of the positive eigenvalues of the matrix that is inverted, with c = 0.1.

What kronfluence does where no damping is given (0.1 × mean eigenvalue) and what logix does; both take the mean over the
eigenvalues of their factors, here it is over the eigenvalues above numerical rank. Averaged over checkpoints.
"""

from attriboard.contracts.selector import Choice, Evidence, Selector


class MeanEigenvalue(Selector):
    """A fixed fraction of the mean eigenvalue.

    Args:
        c: the fraction.
    """

    name = "mean_eigenvalue"
    source = "kronfluence 1.0 (damping_factor=None) and logix: 0.1 × mean eigenvalue"

    def __init__(self, c: float = 0.1) -> None:
        self._c = c

    def select(self, evidence: Evidence) -> Choice:
        """Scale the mean eigenvalue."""
        means = [float(spectrum.all_eigenvalues.mean()) for spectrum in evidence.spectra]
        return Choice({"regularization": self._c * sum(means) / len(means)})
