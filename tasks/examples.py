"""Examples in whatever form people have them, as tensors: arrays, tensors, datasets, loaders, tables with columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from attriboard.base.errors import InputError
from attriboard.contracts.task import Examples

if TYPE_CHECKING:
    import torch

N_REREAD = 4  # items of a dataset that are read twice, to see whether they stay the same

_FORMS = (
    "give (inputs, targets), a dataset whose items are such pairs, a DataLoader without shuffling, or a "
    "datasets.Dataset with two columns"
)
_ONE_TENSOR = "a model of several inputs takes them side by side in one tensor, and splits it in forward()"


def read_examples(side: str, given: Any) -> Examples:
    """Inputs and targets of all examples, in their order.

    Args:
        side: "train" or "test", for messages.
        given: a pair of tensors or arrays; a PyTorch dataset or a loader without shuffling whose items are such pairs;
            or a Hugging Face dataset of two columns, inputs first.

    Raises:
        InputError: another form, examples that come in another order or change when they are read again, lengths that
            differ, or values that are no finite numbers.
    """
    import torch

    if isinstance(given, Examples):
        pair = given.inputs, given.targets
    elif isinstance(given, torch.utils.data.DataLoader):
        pair = _from_loader(side, given)
    elif isinstance(given, (tuple, list)) and len(given) == 2:
        pair = _tensor(side, "inputs", given[0]), _tensor(side, "targets", given[1])
    elif isinstance(given, dict):
        parts = ", ".join(map(str, given)) or "nothing"
        raise InputError(f"{side}: a dictionary with {parts}; give one of its parts, as in {side}=data['{side}']")
    elif isinstance(given, torch.utils.data.IterableDataset) or not hasattr(given, "__len__"):
        remedy = f"give {side}=list(data), so that every example has a place" if isinstance(given, Iterable) else _FORMS
        raise InputError(f"{side} of type {type(given).__name__}: {remedy}")
    elif hasattr(given, "column_names") and hasattr(given, "with_format"):
        pair = _from_columns(side, given)
    elif hasattr(given, "__getitem__"):
        pair = _from_dataset(side, given)
    else:
        raise InputError(f"{side} of type {type(given).__name__}: {_FORMS}")
    inputs, targets = _plain(side, "inputs", pair[0]), _plain(side, "targets", pair[1])
    if len(inputs) != len(targets):
        several = f"; {_ONE_TENSOR}" if len(inputs) < len(targets) else ""
        raise InputError(
            f"{side}: {len(inputs)} inputs and {len(targets)} targets; give one target for each input{several}"
        )
    if len(inputs) < 2:
        raise InputError(f"{side}: {len(inputs)} examples; needs at least 2")
    return Examples(inputs, targets)


def _plain(side: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A dense tensor of finite real numbers on the CPU, with a row for each example.

    Raises:
        InputError: it is none.
    """
    import torch

    if tensor.device.type == "meta" or tensor.is_complex() or tensor.is_quantized:
        raise InputError(f"{side}: {name} are {tensor.dtype} on {tensor.device}; give real numbers that are in memory")
    tensor = (tensor if tensor.layout == torch.strided else tensor.to_dense()).detach().cpu().contiguous()
    if tensor.dim() == 0:
        raise InputError(f"{side}: {name} are one number without an axis; give one for each example, (n,) or (n, …)")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        bad = int((~tensor.isfinite()).reshape(len(tensor), -1).any(1).sum())
        raise InputError(f"{side}: {name} of {bad} of {len(tensor)} examples have NaN or infinity; remove or fill them")
    return tensor


def _tensor(side: str, name: str, part: Any) -> torch.Tensor:
    """A tensor; floating-point arrays in float32, which models have."""
    import numpy as np
    import torch

    if isinstance(part, torch.Tensor):
        return part
    if isinstance(part, dict):
        raise InputError(f"{side}: {name} are a dictionary; {_ONE_TENSOR}")
    if isinstance(part, (list, tuple)) and part and all(isinstance(row, torch.Tensor) for row in part):
        return _joined(side, lambda: torch.stack(list(part)))
    if hasattr(part, "toarray"):  # SciPy's sparse matrices
        part = part.toarray()
    try:
        array = np.asarray(part)
    except ValueError as error:  # rows of several lengths
        raise InputError(f"{side}: {name} differ in shape from example to example; pad or crop them") from error
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{side}: {name} are an array of type {array.dtype}; numbers are needed: encode texts and categories first"
        )
    return torch.from_numpy(np.ascontiguousarray(array.astype(np.float32) if array.dtype.kind == "f" else array))


def _joined(side: str, join: Callable[[], torch.Tensor]) -> torch.Tensor:
    try:
        return join()
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"{side}: examples differ in shape or are no tensors; pad or crop them to one shape; {_ONE_TENSOR}"
        ) from error


def _from_loader(side: str, loader: torch.utils.data.DataLoader[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    if isinstance(loader.dataset, torch.utils.data.IterableDataset):
        raise InputError(f"{side}: a DataLoader of an iterable dataset has no order; give {side}=list(loader.dataset)")
    order: Iterable[Any] = loader.sampler
    if loader.batch_sampler is not None:
        order = (index for batch in loader.batch_sampler for index in batch)
    n = len(loader.dataset)  # type: ignore[arg-type]  # of a dataset that is not iterable
    if list(order) != list(range(n)):
        raise InputError(
            f"{side}: a DataLoader that shuffles, samples or drops examples: scores are per example, in the order of "
            "the dataset; make it with shuffle=False, drop_last=False and no sampler, or choose by Subset(data, …)"
        )
    batches = list(loader)
    if not batches or not all(isinstance(batch, (tuple, list)) and len(batch) == 2 for batch in batches):
        raise InputError(f"{side}: batches of the DataLoader must be pairs (inputs, targets)")
    _check_again(side, loader.dataset)
    inputs, targets = (_joined(side, lambda at=at: torch.cat([batch[at] for batch in batches])) for at in (0, 1))  # type: ignore[misc]
    return inputs, targets


def _from_columns(side: str, table: Any) -> tuple[torch.Tensor, torch.Tensor]:
    names = list(table.column_names)
    if len(names) != 2:
        raise InputError(
            f"{side}: a dataset with columns {', '.join(names)}; select two, inputs first: "
            "dataset.select_columns(['input_ids', 'label'])"
        )
    columns = table.with_format("torch")[:]
    inputs, targets = (_tensor(side, f"values of column {name}", columns[name]) for name in names)
    return inputs, targets


def _from_dataset(side: str, dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    items = []
    for index in range(len(dataset)):
        try:
            items.append(dataset[index])
        except Exception as error:  # other people's code
            raise InputError(
                f"{side}: reading example {index} of {type(dataset).__name__} raised {type(error).__name__}: {error}"
            ) from error
    if not all(isinstance(item, (tuple, list)) and len(item) == 2 for item in items):
        raise InputError(f"{side}: items of the dataset must be pairs (input, target)")
    _check_again(side, dataset)
    return _stacked(side, "inputs", [item[0] for item in items]), _stacked(side, "targets", [item[1] for item in items])


def _check_again(side: str, dataset: Any) -> None:
    """Refuse a dataset whose examples are drawn anew each time, as augmentation does.

    Raises:
        InputError: an example changed.
    """
    import torch

    for index in range(min(N_REREAD, len(dataset))):
        for first, second in zip(dataset[index], dataset[index], strict=True):
            try:
                same = torch.equal(*(torch.as_tensor(one).nan_to_num() for one in (first, second)))
            except (TypeError, ValueError, RuntimeError):  # no numbers: said elsewhere
                continue
            if not same:
                raise InputError(
                    f"{side}: example {index} changes each time it is read; turn random transforms off, or give them "
                    "to the model"
                )


def _stacked(side: str, name: str, values: Sequence[Any]) -> torch.Tensor:
    import torch

    try:
        tensors = [torch.as_tensor(value) for value in values]
    except (TypeError, ValueError, RuntimeError) as error:
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise InputError(f"{side}: {name} are {kinds}; numbers are needed: encode texts and images first") from error
    return _joined(side, lambda: torch.stack(tensors))
