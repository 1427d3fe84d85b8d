"""What people hand to `define_task` and does not fit: one line with the remedy, before anything is trained."""

from collections.abc import Callable
from typing import Any

import datasets
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from attriboard.base.errors import AttriboardError
from attriboard.contracts.card import Recipe
from attriboard.tasks.own import define_task

RECIPE = Recipe(optimizer="sgd", learning_rate=0.1, epochs=1, batch_size=8)
X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
TABLE = TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))


def model(n_outputs: int = 2) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, n_outputs))


def define(**changes: Any) -> Any:
    given = {"model": model, "train": (X, Y), "test": (X[:10], Y[:10]), "recipe": RECIPE}
    return define_task("own", **(given | changes))


class Items(torch.utils.data.Dataset[Any]):
    """Twenty items, made by a function of the position."""

    def __init__(self, make: Callable[[int], Any]) -> None:
        self._make = make

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        return self._make(index)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(TABLE)


class Named(nn.Module):
    """A model that returns a mapping, as many of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(inputs)}


def table(**columns: Any) -> datasets.Dataset:
    return datasets.Dataset.from_dict(columns)


def raises() -> nn.Module:
    raise RuntimeError("no weights")


SHARED = model()
NOT_A_NUMBER = {key: value * float("nan") for key, value in SHARED.state_dict().items()}
EXAMPLES: dict[str, tuple[Any, str]] = {
    "text as labels": ((X, np.array(["cat", "dog"])[Y]), "targets are an array of type <U3; .* encode"),
    "objects as labels": ((X, np.array(["cat", "dog"], dtype=object)[Y]), "type object; numbers are needed"),
    "fractions as classes": ((X, Y + 0.5), "fractions, which are no class numbers"),
    "no examples": ((X[:0], Y[:0]), "0 examples; needs at least 2"),
    "one number as targets": ((X, np.float32(3)), "targets"),
    "a tensor without axes": ((torch.from_numpy(X), torch.tensor(3)), "targets are one number without an axis"),
    "complex numbers": ((torch.from_numpy(X).to(torch.complex64), Y), "give real numbers"),
    "tensors without memory": ((torch.empty(20, 4, device="meta"), Y), "real numbers that are in memory"),
    "whole numbers as inputs": (((X * 9).astype(int), Y), r"parameters are float32: .* x\.to\(torch\.float32\)"),
    "pixels of eight bits": ((np.abs(X * 9).astype(np.uint8), Y), r"x\.to\(torch\.float32\)"),
    "doubles": ((torch.from_numpy(X).double(), Y), r"x\.to\(torch\.float32\)"),
    "NaN in tensors": ((torch.full((20, 4), float("nan")), Y), "20 of 20 examples have NaN or infinity; remove"),
    "rows of several lengths": (([[1.0, 2.0], [1.0]], [0, 1]), "differ in shape .*; pad or crop"),
    "labels that are too large": ((X, Y + 10**12), r"1000000000000 … .*; renumber"),
    "labels of -1 and 1": ((X, 2 * Y - 1), "targets -1 … 1: .*; renumber"),
    "a column of labels": ((X, Y[:, None]), r"targets: \(1,\) numbers for a training example, \(\) for a test"),
    "features that test examples lack": ((X[:, :3], Y), "running it on train inputs"),
    "no features": ((X[:, :0], Y), "running it on train inputs"),
    "nothing": (None, "train of type NoneType: give"),
    "three parts": ((X, Y, Y), "must be pairs"),
    "two inputs": (((torch.ones(20, 2), torch.ones(20, 3)), Y), "side by side in one tensor"),
    "two inputs of one shape": (((X, X), Y), "2 inputs and 20 targets; .*side by side in one tensor"),
    "inputs by name": (({"x": X, "y": X}, Y), "inputs are a dictionary; .*side by side in one tensor"),
    "a dictionary": ({"x": X, "y": Y}, "a dictionary with x, y; give one of its parts"),
    "a generator": (iter(TABLE), r"give train=list\(data\)"),
    "a stream": (Stream(), r"give train=list\(data\)"),
    "a loader of a stream": (DataLoader(Stream()), r"give train=list\(loader\.dataset\)"),
    "a loader that shuffles": (DataLoader(TABLE, shuffle=True), "make it with shuffle=False"),
    "a loader that samples": (DataLoader(TABLE, sampler=SubsetRandomSampler(range(10))), "no sampler"),
    "shuffled batches": (DataLoader(TABLE, batch_sampler=BatchSampler(RandomSampler(TABLE), 4, False)), "no sampler"),
    "a loader that drops": (DataLoader(TABLE, batch_size=6, drop_last=True), "drop_last=False"),
    "a loader of mappings": (DataLoader(Items(lambda i: {"x": X[i], "y": Y[i]})), "must be pairs"),
    "items that are mappings": (Items(lambda i: {"x": X[i], "y": Y[i]}), "must be pairs"),
    "items of text": (Items(lambda i: ("text", 1)), "inputs are str; .* encode texts"),
    "items of several shapes": (Items(lambda i: (torch.ones(1 + i % 2), 1)), "pad or crop"),
    "augmentation": (Items(lambda i: (torch.randn(4), 1)), "example 0 changes each time it is read; turn random"),
    "augmentation in a loader": (DataLoader(Items(lambda i: (torch.randn(4), 1))), "changes each time"),
    "items that raise": (Items(lambda i: {}[i]), "reading example 0 of Items raised KeyError: 0"),
    "three columns": (table(x=X.tolist(), y=Y.tolist(), z=Y.tolist()), "columns x, y, z; select two"),
    "one column": (table(x=X.tolist()), "columns x; select two"),
    "a column of text": (table(x=["text"] * 20, y=Y.tolist()), "values of column x are an array of type <U4"),
    "a column of lists": (table(x=[[1.0] * (1 + i % 2) for i in range(20)], y=Y.tolist()), "pad or crop"),
    "several splits": (datasets.DatasetDict(train=table(x=X.tolist(), y=Y.tolist())), r"train=data\['train'\]"),
    "a streamed table": (table(x=X.tolist(), y=Y.tolist()).to_iterable_dataset(), r"give train=list\(data\)"),
}
OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "a name with spaces": ({"name": "My task"}, "must be lower-case letters, digits and underscores"),
    "one-hot rows": ({"train": (X, np.eye(2)[Y]), "test": (X, np.eye(2)[Y])}, r"take argmax\(1\) of one-hot rows"),
    "one test example": ({"test": (X[:1], Y[:1])}, "1 examples; needs at least 2"),
    "two test examples": ({"test": (X[:2], Y[:2])}, "leaves no calibration point; give more test points"),
    "a model without memory": ({"model": lambda: model().to("meta")}, "is on meta; give it on the CPU"),
    "a lazy model": ({"model": lambda: nn.LazyLinear(2)}, "has no shape yet; run the model once"),
    "one model again and again": ({"model": lambda: SHARED}, "the same module again; build a new one"),
    "a builder that raises": ({"model": raises}, "calling it raised RuntimeError: no weights"),
    "a class that takes arguments": ({"model": nn.Linear}, "give a function without arguments"),
    "a model of doubles": ({"model": lambda: model().double()}, r"x\.to\(torch\.float64\)"),
    "a model that returns a mapping": ({"model": Named}, r"forward returns, say, model\(inputs\)\.logits"),
    "a recipe of plain values": ({"recipe": {"epochs": 3}}, r"recipe of type dict: give ab\.Recipe"),
    "a path as checkpoint": ({"checkpoints": ["model.pt"]}, "torch.load"),
    "a model as list of checkpoints": ({"checkpoints": SHARED}, r"give a list, as in checkpoints=\[model\]"),
    "a state as list of checkpoints": ({"checkpoints": SHARED.state_dict()}, "give a list"),
    "a checkpoint that diverged": ({"checkpoints": [NOT_A_NUMBER]}, "has NaN or infinity; leave this model out"),
    "two logits for one answer": ({"loss": "binary_cross_entropy"}, "one output for each target"),
    "answers of -1 and 1": (
        {"loss": "binary_cross_entropy", "model": lambda: model(1), "train": (X, 2 * Y - 1)},
        "must be 0 or 1",
    ),
    "a loss that returns nothing": ({"loss": lambda outputs, targets: None}, "must be one value each"),
    "a loss of whole numbers": ({"loss": lambda outputs, targets: outputs.argmax(1) - targets}, "no gradient"),
    "a loss without gradient": ({"loss": lambda outputs, targets: outputs[:, 0].detach()}, "no gradient"),
    "a target of two numbers": ({"target": lambda outputs, targets: outputs}, "must be one value each"),
    "targets that overflow": (
        {"loss": "squared_error", "model": lambda: model(1), "train": (X, X[:, 0] * 1e30)},
        "scale inputs and targets",
    ),
}


def refused(message: str, **changes: Any) -> None:
    with pytest.raises(AttriboardError, match=message) as caught:
        define(**changes) if "name" not in changes else define_task(
            changes.pop("name"), model=model, train=(X, Y), test=(X, Y), recipe=RECIPE
        )
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("what", EXAMPLES)
def test_examples_that_do_not_fit_are_refused_in_one_line(what: str) -> None:
    given, message = EXAMPLES[what]
    refused(message, train=given)


@pytest.mark.parametrize("what", OTHERS)
def test_models_losses_and_targets_that_do_not_fit_are_refused_in_one_line(what: str) -> None:
    changes, message = OTHERS[what]
    refused(message, **changes)


@pytest.mark.parametrize(
    "given",
    [
        (X.tolist(), Y.tolist()),
        (X, Y.astype(float)),
        (X, Y.astype(bool)),
        (X.astype(np.float64), Y),
        (scipy.sparse.csr_matrix(X), Y),
        (torch.from_numpy(X).to_sparse(), torch.from_numpy(Y)),
        ([torch.from_numpy(row) for row in X], Y),
        (torch.from_numpy(X).clone().requires_grad_(), Y),
        list(TABLE),
        DataLoader(TABLE, batch_size=6),
        table(x=X.tolist(), y=Y.tolist()),
    ],
    ids=lambda given: type(given).__name__,
)
def test_every_honest_form_is_the_same_task(given: Any) -> None:
    assert define(train=given).card.fingerprint == define().card.fingerprint
