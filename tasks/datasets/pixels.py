"""Images as standardized inputs: gray levels as flat vectors, colors as channels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.datasets.arrays import Arrays
from attriboard.tasks.datasets.labels import flip_labels
from attriboard.tasks.fields import Options


class PixelOptions(Options):
    """How raw levels become inputs, (pixel / scale − mean) / std, and which training labels are wrong on purpose."""

    scale: float = Field(gt=0, description="the largest level of a pixel")
    mean: float
    std: float = Field(gt=0)
    flipped: float = Field(default=0.0, ge=0, lt=1, description="share of training examples with a wrong label")
    flip_seed: int = Field(default=0, ge=0, lt=2**64, description="which ones, and to which class")


def labelled_dataset(arrays: Arrays, options: PixelOptions, examples: Callable[..., Examples]) -> Dataset:
    """Raw arrays as examples, with the labels that the card wants wrong.

    Args:
        arrays: `train_images`, `train_labels` and the same of the test set.
        options: the card's.
        examples: `flat_examples` or `colour_examples`.
    """
    import torch

    labels, mislabelled = arrays["train_labels"], None
    if options.flipped:
        labels, wrong = flip_labels(labels, options.flipped, options.flip_seed)
        mislabelled = torch.from_numpy(wrong)
    train = examples(arrays["train_images"], labels, options)
    return Dataset(train, examples(arrays["test_images"], arrays["test_labels"], options), mislabelled)


def flat_examples(images: NDArray[Any], labels: NDArray[Any], options: PixelOptions) -> Examples:
    """Standardize in float32, in the order of operations that torchvision's ToTensor and Normalize have.

    Args:
        images: (n, height, width) uint8.
        labels: (n,) int64.
        options: the card's constants.

    Returns:
        inputs (n, height × width) float32, targets (n,) int64.
    """
    return _examples(images.reshape(len(images), -1), labels, options)


def colour_examples(images: NDArray[Any], labels: NDArray[Any], options: PixelOptions) -> Examples:
    """Standardize as `flat_examples` does, all channels with the same constants.

    Args:
        images: (n, height, width, channels) uint8.
        labels: (n,) int64.
        options: the card's constants.

    Returns:
        inputs (n, channels, height, width) float32, targets (n,) int64.
    """
    return _examples(images.transpose(0, 3, 1, 2), labels, options)


def _examples(levels: NDArray[Any], labels: NDArray[Any], options: PixelOptions) -> Examples:
    import torch

    pixels = levels.astype(np.float32, order="C")
    inputs = (pixels / np.float32(options.scale) - np.float32(options.mean)) / np.float32(options.std)
    return Examples(torch.from_numpy(inputs), torch.from_numpy(labels.copy()))
