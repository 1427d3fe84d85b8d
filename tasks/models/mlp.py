"""Multilayer perceptron: Linear layers with ReLU between them; without hidden ones, logistic regression."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field
from torch import nn

from attriboard.tasks.fields import Options

Width = Annotated[int, Field(gt=0)]


class MlpOptions(Options):
    """Options of the architecture `mlp`."""

    n_inputs: Width
    hidden: list[Width] = Field(description="widths of the hidden layers, from input to output; [] for none")
    n_classes: int = Field(gt=1)


def mlp(options: Mapping[str, Any]) -> nn.Sequential:
    """Build the network; every Linear has a bias, there is no ReLU after the last.

    Args:
        options: `n_inputs`, `hidden`, `n_classes`; the module maps (n, n_inputs) to logits (n, n_classes).

    Raises:
        CardError: an option is unknown, missing or out of range.
    """
    parsed = MlpOptions.parse("model.options", options)
    widths = [parsed.n_inputs, *parsed.hidden, parsed.n_classes]
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
