"""Where models are trained: the CPU, or an accelerator that ATTRIBOARD_DEVICE names to the training process."""

import os

import torch

from attriboard.base.errors import InputError
from attriboard.contracts.task import Dataset, Examples

VARIABLE = "ATTRIBOARD_DEVICE"


def training_device() -> torch.device:
    """The device that the environment names; the CPU where it names none.

    Raises:
        InputError: PyTorch knows no such device, or this machine has none.
    """
    name = os.environ.get(VARIABLE) or "cpu"
    return usable_device(name, f"{VARIABLE} = {name!r}")


def usable_device(name: str, asked: str) -> torch.device:
    """A device by its name.

    Args:
        name: "cpu", "cuda:1".
        asked: how it was named, for messages.

    Raises:
        InputError: PyTorch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{asked}: must be a device that PyTorch can use here ({reason})") from error
    if device.type == "cuda":
        # Of two algorithms the one that repeats; without this not even two runs on one card agree.
        torch.backends.cudnn.deterministic = True
    return device


def place(data: Dataset, device: torch.device) -> Dataset:
    """The same examples on a device."""

    def moved(examples: Examples) -> Examples:
        return Examples(examples.inputs.to(device), examples.targets.to(device))

    return Dataset(moved(data.train), moved(data.test))
