"""`mean_eigenvalue_10`: λ = 10 · the mean of the positive eigenvalues of the matrix that is inverted.

A hundred times what `mean_eigenvalue` takes. EK-FAC and K-FAC optimizers damp by multiples of the mean eigenvalue from
0.1 to 10; how the two ends do shows how much of a choice the multiple is.
"""

from attriboard.attributors.selectors.mean_eigenvalue import MeanEigenvalue


class TenMeanEigenvalues(MeanEigenvalue):
    """Ten times the mean eigenvalue."""

    name = "mean_eigenvalue_10"
    source = "AttriBoard; the other end of the multiples that EK-FAC libraries use"

    def __init__(self, c: float = 10.0) -> None:
        super().__init__(c)
