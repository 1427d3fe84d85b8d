"""Examples in whatever form people have them, as tensors: arrays, tensors, datasets, loaders, tables with columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import InputError
from attriboard.contracts.task import Examples

if TYPE_CHECKING:
    import torch


def read_examples(side: str, given: Any) -> Examples:
    """Inputs and targets of all examples, in their order.

    Args:
        side: "train" or "test", for messages.
        given: a pair of tensors or arrays; a PyTorch dataset or a loader without shuffling whose items are such pairs;
            or a Hugging Face dataset of two columns, inputs first.

    Raises:
        InputError: another form, a loader that shuffles, lengths that differ, or values that are not finite.
    """
    import torch

    if isinstance(given, Examples):
        inputs, targets = given.inputs, given.targets
    elif isinstance(given, torch.utils.data.DataLoader):
        inputs, targets = _from_loader(side, given)
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        inputs, targets = (_tensor(side, part) for part in given)
    elif hasattr(given, "column_names") and hasattr(given, "with_format"):
        inputs, targets = _from_columns(side, given)
    elif hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        inputs, targets = _stacked(side, [given[index] for index in range(len(given))])
    else:
        raise InputError(
            f"{side} of type {type(given).__name__}: give (inputs, targets), a dataset whose items are such pairs, a "
            "DataLoader without shuffling, or a datasets.Dataset with two columns"
        )
    if len(inputs) != len(targets):
        raise InputError(f"{side}: {len(inputs)} inputs and {len(targets)} targets; give one target for each input")
    if len(inputs) < 2:
        raise InputError(f"{side}: {len(inputs)} examples; needs at least 2")
    for name, tensor in (("inputs", inputs), ("targets", targets)):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            bad = int((~tensor.isfinite()).flatten(1).any(1).sum() if tensor.dim() > 1 else (~tensor.isfinite()).sum())
            raise InputError(
                f"{side}: {name} of {bad} of {len(tensor)} examples have NaN or infinity; remove or fill them"
            )
    return Examples(inputs.detach().contiguous(), targets.detach().contiguous())


def _tensor(side: str, part: Any) -> torch.Tensor:
    """A tensor; floating-point arrays in float32, which models have."""
    import numpy as np
    import torch

    if isinstance(part, torch.Tensor):
        return part
    array = np.asarray(part)
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{side}: an array of type {array.dtype}; numbers are needed: encode texts and categories first"
        )
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32) if array.dtype.kind == "f" else array))


def _from_loader(side: str, loader: torch.utils.data.DataLoader[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if isinstance(loader.sampler, torch.utils.data.RandomSampler):
        raise InputError(
            f"{side}: a DataLoader that shuffles has no order, and scores are per example; make it with shuffle=False"
        )
    batches = list(loader)
    if not batches or not all(isinstance(batch, (tuple, list)) and len(batch) == 2 for batch in batches):
        raise InputError(f"{side}: batches of the DataLoader must be pairs (inputs, targets)")
    return torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])


def _from_columns(side: str, table: Any) -> tuple[torch.Tensor, torch.Tensor]:
    names = list(table.column_names)
    if len(names) != 2:
        raise InputError(
            f"{side}: a dataset with columns {', '.join(names)}; select two, inputs first: "
            "dataset.select_columns(['input_ids', 'label'])"
        )
    columns = table.with_format("torch")[:]
    inputs, targets = (columns[name] for name in names)
    return _tensor(side, inputs), _tensor(side, targets)


def _stacked(side: str, items: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if not all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items):
        raise InputError(f"{side}: items of the dataset must be pairs (input, target)")
    columns = ([torch.as_tensor(item[position]) for item in items] for position in range(2))
    try:
        inputs, targets = (torch.stack(column) for column in columns)
    except RuntimeError as error:
        raise InputError(f"{side}: examples differ in shape; pad or crop them to one shape") from error
    return inputs, targets
