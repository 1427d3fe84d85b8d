"""The task kind `classification`: cross-entropy training, log-odds margin.

With logits z and right class y, p_y = softmax(z)_y:

    loss   = −log p_y                     = logsumexp_c z_c − z_y
    margin = log p_y − log(1 − p_y)       = z_y − logsumexp_{c ≠ y} z_c

The right-hand sides are what is computed. The left-hand side of the margin loses everything once p_y rounds
to 1, which happens in float32 from a margin of about 17 on. Source of the margin as attribution target:
Park et al., *TRAK* (2023), arXiv 2303.14186, section 3.3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attriboard.tasks import losses
from attriboard.tasks.tabled import TabledTask

if TYPE_CHECKING:
    import torch


class ClassificationTask(TabledTask):
    """Single-label classification; inputs float32 (n, *input_shape), targets int64 class numbers (n,).

    Outputs are logits (n, n_classes).

    Args:
        card: the validated card.
        folder: what paths in the card are relative to.

    Raises:
        CardError: the card names an unknown data set or architecture, or options that the data set lacks.
    """

    measurements = ("loss", "margin", "correct")

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy in nats, (n,), of logits (n, n_classes)."""
        return losses.cross_entropy(outputs, targets)

    def margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-odds of the right class in nats, (n,), of logits (n, n_classes)."""
        return losses.class_margin(outputs, targets)

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """`loss`, `margin` and `correct` (1 where the largest logit is the right one), each (n,) float32."""
        return {
            "loss": self.loss(outputs, targets).float(),
            "margin": self.margin(outputs, targets).float(),
            "correct": losses.right_class(outputs, targets),
        }
