"""`gcv`: generalized cross-validation of the kernel ridge regression that τ_λ solves.

−τ_λ = (K/n + λI)⁻¹ r are the dual weights of the kernel ridge regression of r on the training examples. With the
smoother A = (K/n)(K/n + λI)⁻¹ (Golub, Heath & Wahba 1979, eq. 1.4)

    GCV(λ) = ‖(I − A) r‖²/n / (tr(I − A)/n)² = n λ² t₂(λ) / (n − Σ_j σ_j/(σ_j + λ))²

Minimized over the candidates, after scaling each test point's curve by |r|²/n, so that no point dominates; points with
r = 0 are left out.
"""

import torch

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.selector import Choice, Evidence, Selector
from attriboard.contracts.spectrum import Spectrum


def gcv(spectrum: Spectrum, regularization: float) -> torch.Tensor:
    """GCV(λ)/(|r|²/n) of each test point, (n_test,); NaN where r = 0.

    Raises:
        NotApplicableError: the spectrum is not that of a kernel of the training examples.
    """
    if not spectrum.gram or len(spectrum.all_eigenvalues) > spectrum.n_train:
        raise NotApplicableError(
            "GCV is about a kernel of the training examples, and the method inverts another matrix"
        )
    size = spectrum.coefficients.square().sum(1)
    if spectrum.remainder is not None:
        size = size + spectrum.remainder.square()
    residual = regularization**2 * spectrum.moment(2, regularization) / size
    # tr(I − A) summed term by term: n minus the effective dimension cancels where λ is far below the spectrum.
    unfitted = (regularization / spectrum.shifted(regularization)).sum()
    freedom = (spectrum.n_train - len(spectrum.eigenvalues) + float(unfitted)) / spectrum.n_train
    return residual / freedom**2


class GeneralizedCrossValidation(Selector):
    """The λ that predicts r best when one training example is left out."""

    name = "gcv"
    source = "Golub, Heath & Wahba 1979, Technometrics 21(2)"

    def select(self, evidence: Evidence) -> Choice:
        """Minimize the mean GCV over test points and checkpoints."""
        candidates = evidence.options("regularization")
        criterion = tuple(
            float(torch.cat([gcv(spectrum, value) for spectrum in evidence.spectra]).nanmean()) for value in candidates
        )
        if any(value != value for value in criterion):
            raise NotApplicableError("GCV needs at least one test point whose r is not zero")
        best = min(range(len(criterion)), key=criterion.__getitem__)
        return Choice({"regularization": candidates[best]}, criterion, criterion)
