"""ResNet-9: a convolution, three residual blocks of two convolutions each, global average, Linear.

The architecture that *Taming Hyperparameter Sensitivity in Data Attribution* takes from dattri's CIFAR-2 benchmark,
with a width w (64 there, 4.83 M parameters): convolutions have 3×3 kernels and no bias, each is followed by batch
norm and ReLU; blocks have 2w, 4w and 8w channels, the second and third with stride 2; the shortcut is a 1×1
convolution with batch norm. The second ReLU of a block stands before the sum, another one after it, as there.

Batch norm uses the statistics of the batch in training and its running statistics in evaluation mode, so in
evaluation mode an example's output depends on no other example.
"""

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from attriboard.tasks.fields import Options


class ResNet9Options(Options):
    """Options of the architecture `resnet9`."""

    width: int = Field(gt=0, description="channels of the first convolution; the blocks have 2, 4 and 8 times as many")
    n_classes: int = Field(gt=1)
    n_channels: int = Field(default=3, gt=0, description="channels of an image")
    stem_stride: int = Field(default=1, gt=0, description="of the first convolution; 2 halves what all others see")


def resnet9(options: Mapping[str, Any]) -> "ResNet9":
    """Build the network.

    Args:
        options: `width`, `n_classes`, `n_channels`, `stem_stride`; the module maps images (n, n_channels, h, w)
            to logits (n, n_classes).

    Raises:
        CardError: an option is unknown, missing or out of range.
    """
    return ResNet9(ResNet9Options.parse("model.options", options))


class ResNet9(nn.Module):
    """See the top of this file."""

    def __init__(self, options: ResNet9Options) -> None:
        super().__init__()
        w = options.width
        self.stem = _convolution(options.n_channels, w, 3, options.stem_stride)
        self.blocks = nn.Sequential(_Block(w, 2 * w, 1), _Block(2 * w, 4 * w, 2), _Block(4 * w, 8 * w, 2))
        self.head = nn.Linear(8 * w, options.n_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n, n_classes) of images (n, n_channels, h, w)."""
        features: Tensor = self.blocks(torch.relu(self.stem(images)))
        logits: Tensor = self.head(features.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(n_in, n_out, 3, stride)
        self.second = _convolution(n_out, n_out, 3)
        self.shortcut = _convolution(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        inner = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.relu(inner + self.shortcut(x))


def _convolution(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(n_out))
