"""Similarity of inputs: the control that never looks at the model.

τ(z', i) = cos(x' − x̄, x_i − x̄), with x flattened and x̄ the mean training input.

The mean is subtracted from both sides: without it the cosine of two images is mostly the background they
share. Labels play no part. Every similarity control here is centred in the same way.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from attriboard.contracts import Attributor, Context
from attriboard.errors import NotApplicableError

__all__ = ["InputSimilarity"]


class InputSimilarity(Attributor):
    """Centred cosine of the inputs."""

    name = "input_similarity"
    family = "control"

    def fit(self, context: Context) -> Tensor:
        """Compare the inputs.

        Raises:
            NotApplicableError: inputs are not numbers on a scale, for example token ids.
        """
        train, test = context.train.inputs.flatten(1), context.test.inputs.flatten(1)
        if not train.is_floating_point():
            raise NotApplicableError(f"inputs of type {train.dtype}: a cosine needs inputs on a continuous scale")
        mean = train.double().mean(0)
        train, test = normalize(train.double() - mean), normalize(test.double() - mean)
        return (test @ train.T).float()

    def score(self, state: Tensor) -> Tensor:
        """The cosines."""
        return state.clone()
