"""What all kinds of tasks share: the data set and the model that a card names, from the tables."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import CardError
from attriboard.base.modules import make_importable
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Dataset, Task
from attriboard.tasks import DATASETS, MODELS
from attriboard.tasks.datasets.columns import ColumnsLoader
from attriboard.tasks.fields import lookup, resolve

if TYPE_CHECKING:
    import torch

    from attriboard.tasks.datasets.sources import Loader


class TabledTask(Task):
    """A task whose data set and architecture are rows of `DATASETS` and `MODELS`, or your own.

    Args:
        card: the validated card.
        folder: what paths and modules in the card are relative to; the working folder where `None`.

    Raises:
        CardError: the card names an unknown data set or architecture, or options that the data set lacks.
    """

    def __init__(self, card: TaskCard, folder: Path | None = None) -> None:
        super().__init__(card)
        loader = resolve("data.dataset", card.data.dataset, DATASETS)
        self._beside = issubclass(loader, ColumnsLoader)
        self._loader: Loader | ColumnsLoader = loader(card.data, folder) if self._beside else loader(card.data)
        self._folder = (folder or Path()).absolute()
        name = card.model.architecture
        self._architecture = name if card.model.own else lookup("model.architecture", name, MODELS)

    def saved(self) -> Path | None:
        """The card's folder, where data or model lie beside it."""
        return self._folder if self._beside or self.card.model.own else None

    @classmethod
    def from_saved(cls, card: TaskCard, folder: Path) -> TabledTask:
        """See `Task.from_saved`."""
        return cls(card, folder)

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
        spec = self.card.model
        if spec.own:
            return _own_model(spec.architecture, spec.options, self._folder)
        model: torch.nn.Module = pkgutil.resolve_name(self._architecture)(spec.options)
        return model


def _own_model(reference: str, options: Mapping[str, Any], folder: Path) -> torch.nn.Module:
    """What a function of a module beside the card, or an installed one, makes of the card's options.

    Raises:
        CardError: it cannot be imported, or called with these options, or gives no module.
    """
    import torch

    make_importable(folder)
    field = f"model.architecture = {reference}"
    try:
        build = pkgutil.resolve_name(reference)
    except Exception as error:  # code that is not ours
        raise CardError(
            f"{field}: importing it raised {type(error).__name__}: {error}; it must be beside the card or installed"
        ) from error
    try:
        model = build(**options)
    except Exception as error:
        shown = ", ".join(f"{name} = {value}" for name, value in options.items()) or "no options"
        raise CardError(f"{field}: calling it with {shown} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, torch.nn.Module):
        raise CardError(f"{field}: returned {type(model).__name__}; it must return a torch.nn.Module")
    return model
