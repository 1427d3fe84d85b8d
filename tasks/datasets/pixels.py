"""Grey-level images as flat, standardised vectors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attriboard.contracts import Examples
from attriboard.tasks.fields import Options

__all__ = ["PixelOptions", "flat_examples"]


class PixelOptions(Options):
    """How raw grey levels become inputs: (pixel / scale − mean) / std."""

    scale: float = Field(gt=0, description="the largest grey level")
    mean: float
    std: float = Field(gt=0)


def flat_examples(images: NDArray[Any], labels: NDArray[Any], options: PixelOptions) -> Examples:
    """Standardise in float32, in the order of operations that torchvision's ToTensor and Normalize have.

    Args:
        images: (n, height, width) uint8.
        labels: (n,) int64.
        options: the card's constants.

    Returns:
        inputs (n, height × width) float32, targets (n,) int64.
    """
    import torch

    pixels = images.reshape(len(images), -1).astype(np.float32)
    inputs = (pixels / np.float32(options.scale) - np.float32(options.mean)) / np.float32(options.std)
    return Examples(torch.from_numpy(inputs), torch.from_numpy(labels.copy()))
