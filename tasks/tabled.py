"""What all kinds of tasks share: the data set and the model that a card names, from the tables."""

from __future__ import annotations

import pkgutil
from typing import TYPE_CHECKING

from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Dataset, Task
from attriboard.tasks import DATASETS, MODELS
from attriboard.tasks.fields import lookup, resolve

if TYPE_CHECKING:
    import torch

    from attriboard.tasks.datasets.sources import Loader


class TabledTask(Task):
    """A task whose data set and architecture are rows of `DATASETS` and `MODELS`.

    Args:
        card: the validated card.

    Raises:
        CardError: the card names an unknown data set or architecture, or options that the data set lacks.
    """

    def __init__(self, card: TaskCard) -> None:
        super().__init__(card)
        self._loader: Loader = resolve("data.dataset", card.data.dataset, DATASETS)(card.data)
        self._architecture = lookup("model.architecture", card.model.architecture, MODELS)

    def load_data(self) -> Dataset:
        """The loader's examples; see `Task.load_data`."""
        return self._loader.load()

    def data_available(self) -> bool:
        """Whether `load_data` finds the data on this machine; looks, but reads nothing."""
        return self._loader.available()

    def build_model(self) -> torch.nn.Module:
        """A new module from the card's architecture.

        Raises:
            CardError: the architecture does not have the card's options.
            DataError: the package that defines it is not installed.
        """
        build = pkgutil.resolve_name(self._architecture)
        model: torch.nn.Module = build(self.card.model.options)
        return model
