"""The task kind `language_modeling`: next-token cross-entropy, averaged over each block of tokens.

A block x_1 … x_T with logits z_t after token t has T − 1 predictions:

    loss   = −1/(T − 1) Σ_{t<T} log softmax(z_t)[x_{t+1}]
    margin = log p − log(1 − p)   with p = exp(−loss)      = −loss − log(1 − exp(−loss))

p is the geometric mean of the right tokens' probabilities. Source of the log-odds as attribution target:
Park et al., *TRAK* (2023), arXiv 2303.14186, section 3.3; for blocks of tokens as dattri's WikiText-2 benchmark
has it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from attriboard.base.errors import CardError
from attriboard.contracts.card import TaskCard
from attriboard.tasks import PRETRAINED
from attriboard.tasks.models.weights import is_path
from attriboard.tasks.tabled import TabledTask

if TYPE_CHECKING:
    import torch


class LanguageModelingTask(TabledTask):
    """Causal language modeling; inputs and targets are the same blocks (n, length) int64.

    Outputs are logits (n, length, n_vocab); those after a block's last token are not used.

    Args:
        card: the validated card.
        folder: what paths in the card are relative to.

    Raises:
        CardError: the card names an unknown data set or architecture, options that the data set lacks, or a
            model with fewer tokens or positions than the data.
    """

    measurements = ("loss", "margin")
    measured_rows = 8  # a block of the full task has 100 MB of logits

    def __init__(self, card: TaskCard, folder: Path | None = None) -> None:
        super().__init__(card, folder)
        for name in ("vocabulary", "length"):
            data, model = card.data.options.get(name), card.model.options.get(name)
            if isinstance(data, int) and isinstance(model, int) and data > model:
                raise CardError(
                    f"model.options.{name} = {model}: the data has data.options.{name} = {data}; give as many"
                )

    def saved(self) -> Path | None:
        """The card's folder, where data or pretrained weights lie beside it."""
        beside = is_path(str(self.card.model.options.get("pretrained", "")))
        return self._folder if beside else super().saved()

    def pretrained(self) -> Mapping[str, torch.Tensor] | None:
        """The checkpoint that the card names, read once; `None` where it names none.

        Raises:
            DataError: the checkpoint is unavailable, or not the pinned one.
        """
        return self._pretrained

    @cached_property
    def _pretrained(self) -> Mapping[str, torch.Tensor] | None:
        reference = PRETRAINED.get(self.card.model.architecture)
        if reference is None:
            return None
        state: Mapping[str, torch.Tensor] | None = pkgutil.resolve_name(reference)(
            self.card.model.options, self._folder
        )
        return state

    def text(self, inputs: torch.Tensor) -> str | None:
        """The text of a block, where the data set knows its tokenizer; see `Task.text`."""
        return self._loader.text(inputs.tolist())

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy per predicted token in nats, (n,), of logits (n, length, n_vocab)."""
        logits = outputs[:, :-1]
        right = logits.gather(-1, targets[:, 1:].unsqueeze(-1)).squeeze(-1)
        return (logits.logsumexp(-1) - right).mean(-1)

    def margin(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Log-odds of exp(−loss) in nats, (n,), of logits (n, length, n_vocab)."""
        loss = self.loss(outputs, targets)
        return -loss - (-(-loss).expm1()).log()

    def measure(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """`loss` and `margin`, each (n,) float32."""
        return {
            "loss": self.loss(outputs, targets).float(),
            "margin": self.margin(outputs, targets).float(),
        }
