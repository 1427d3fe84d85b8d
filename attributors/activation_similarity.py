"""Similarity of activations, plain or preconditioned by their second moment.

With h the input of the model's last linear layer (of a sequence its mean over positions), H (n_train, d) those of the
training examples, C = HᵀH/n, and P = (C + λI)^(−½), or P = I:

    τ(z', i) = ⟨P h', P h_i⟩ / (‖P h'‖ ‖P h_i‖),  averaged over checkpoints

Preconditioned, directions that all examples share count less: what `iffim` does to gradients, done to activations. As
λ grows the plain cosine is reached. bergson 2.5 has both as baselines.

Deviations: λ is absolute, added to C, which is normalized by 1/n; λ = none is a tenth of C's mean eigenvalue, as
bergson is run. Unlike `embedding_similarity`, the mean is not subtracted.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import normalize

from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.spectrum import Spectrum
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfFits
from attriboard.toolkit.embeddings import embeddings, embeddings_need
from attriboard.toolkit.layerwise import layer_damping, layer_regularization
from attriboard.toolkit.spectrum import solve_features


@dataclass(frozen=True)
class Activations:
    """Of one checkpoint, float64.

    Attributes:
        train, test: activations (n_train, d), (n_test, d), in the eigenbasis of C if preconditioned.
        mean: C's mean eigenvalue.
        spectrum: σ and c of HHᵀ/n and r = H h'; `None` where nothing is preconditioned.
    """

    train: Tensor
    test: Tensor
    mean: float
    spectrum: Spectrum | None

    def scores(self, regularization: float | None) -> Tensor:
        """Cosines (n_test, n_train)."""
        train, test = self.train, self.test
        if self.spectrum is not None:
            scale = self.spectrum.shifted(layer_damping(regularization, self.mean)).rsqrt()
            train, test = train * scale, test * scale
        return normalize(test) @ normalize(train).T


class ActivationSimilarity(MeanOfFits):
    """Cosine of the last hidden features."""

    name = "activation_similarity"
    family = "baseline"
    hyperparameters = (
        layer_regularization(None, "bergson 2.5, as run: a tenth of the mean eigenvalue"),
        Hyperparameter(
            "preconditioned",
            False,
            "the plain cosine; bergson 2.5 runs both",
            grid=(False, True),
            description="whether activations are multiplied by (C + λI)^(−½)",
        ),
        *knobs.models(1, "one model, as for the methods that it is a control for"),
    )

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *, preconditioned: bool) -> Activations:
        """Run the model, and decompose the second moment.

        Raises:
            NotApplicableError: no linear layer runs in the model, or all activations are zero.
        """
        train, test = (embeddings(context, checkpoint, side) for side in (context.train, context.test))
        if not preconditioned:
            return Activations(train, test, 0.0, None)
        solution = solve_features(train, test)
        spectrum = solution.spectrum
        lengths = (len(train) * spectrum.eigenvalues).sqrt()
        mean = float(spectrum.eigenvalues.sum()) / train.shape[1]
        return Activations(solution.vectors * lengths, spectrum.coefficients / lengths, mean, spectrum)

    def memory_need(self, context: Context, **others: object) -> dict[str, int]:
        """Activations, their decomposition, and the scores."""
        kernel = needs.kernel_solution(context, min(len(context.train), 1 + _width(context)))
        return {**embeddings_need(context), **kernel, "scores": 6 * needs.pairs(context, needs.DOUBLE)}


def _width(context: Context) -> int:
    return max((parameter.shape[-1] for parameter in context.model.parameters() if parameter.dim() == 2), default=0)
