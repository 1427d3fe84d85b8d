"""In what order a run of the conformance suite takes its examples."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attriboard.contracts.run import Order


@dataclass(frozen=True)
class ShuffledOrder:
    """The order of a run's examples: another one in every epoch."""

    rows: Tensor
    seed: int

    def __call__(self, epoch: int) -> Tensor:
        """See `attriboard.contracts.run.Order`."""
        generator = torch.Generator().manual_seed(1000 * epoch + self.seed)
        return self.rows[torch.randperm(len(self.rows), generator=generator)]


@dataclass(frozen=True)
class PermutedOrder:
    """The order of the same examples after they were moved: `places` (n_train,) says where each is now."""

    order: Order
    places: Tensor

    def __call__(self, epoch: int) -> Tensor:
        """See `attriboard.contracts.run.Order`."""
        return self.places[self.order(epoch)]
