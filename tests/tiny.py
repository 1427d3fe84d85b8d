"""A task so small that a hundred retrains take a second; a module of its own, so that worker processes import it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from attriboard.base.errors import DataError
from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.classification import ClassificationTask

N_TRAIN, N_TEST, N_INPUTS, N_CLASSES = 45, 13, 5, 3
DIGEST = "0" * 64


class TinyTask(ClassificationTask):
    """Three Gaussian clouds in five dimensions; odd sizes everywhere, so that vector units have remainders."""

    def load_data(self) -> Dataset:
        words = np.random.Philox(key=7).random_raw((N_TRAIN + N_TEST) * N_INPUTS)
        noise = (words.reshape(-1, N_INPUTS) >> 11) / 2**53 - 0.5
        targets = np.arange(N_TRAIN + N_TEST) % N_CLASSES
        inputs = torch.from_numpy(noise * 4 + np.eye(N_INPUTS)[targets] * 2).to(torch.get_default_dtype())
        examples = Examples(inputs, torch.from_numpy(targets))
        return Dataset(examples[:N_TRAIN], examples[N_TRAIN:])

    def data_available(self) -> bool:
        return True


class PlainTinyTask(TinyTask):
    """The same with a model that does not stack: it has a convolution."""

    def build_model(self) -> nn.Module:
        image = (nn.Unflatten(1, (1, N_INPUTS)), nn.Conv1d(1, 6, N_INPUTS), nn.Flatten())
        return nn.Sequential(*image, nn.Tanh(), nn.Linear(6, N_CLASSES))


class NormedTinyTask(TinyTask):
    """The same with batch norm, so that a trained model has running statistics."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(N_INPUTS, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, N_CLASSES))


class SmoothedTinyTask(TinyTask):
    """The same with a loss that the fastest trainer does not compute."""

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.2)


class DyingTask(TinyTask):
    """Its data ends a worker process, as the kernel does when memory runs out."""

    def load_data(self) -> Dataset:
        if Path(sys.argv[0]).name == "worker.py":
            os._exit(9)
        return super().load_data()


class UnavailableTask(TinyTask):
    """Its data is nowhere."""

    def load_data(self) -> Dataset:
        raise DataError("data set tiny: no source has it")

    def data_available(self) -> bool:
        return False


def tiny_card(**changes: Any) -> TaskCard:
    """The card; keywords replace fields of the recipe, or `hidden` and `checkpoints`."""
    hidden = changes.pop("hidden", [7])
    epochs = changes.get("epochs", 3)
    checkpoints = changes.pop("checkpoints", {"full": 2, "half": 2, "epochs": sorted({1, epochs})})
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return load_card(
        {
            "name": "tiny",
            "title": "Tiny",
            "description": "For tests.",
            "licence": "none needed",
            "kind": "classification",
            "target": "margin",
            "data": {
                "dataset": "digits",
                "n_train": N_TRAIN,
                "n_test": N_TEST,
                "options": {"seed": 0, "scale": 16.0, "mean": 0.0, "std": 1.0},
                "sha256": dict.fromkeys(names, DIGEST),
            },
            "model": {
                "architecture": "mlp",
                "options": {"n_inputs": N_INPUTS, "hidden": hidden, "n_classes": N_CLASSES},
            },
            "recipe": {
                "optimizer": "sgd",
                "learning_rate": 0.1,
                "momentum": 0.9,
                "epochs": 3,
                "batch_size": 8,
                **changes,
            },
            "ground_truth": {"n_masks": 8, "n_repeats": 3},
            "checkpoints": checkpoints,
        }
    )


def tiny_task(**changes: Any) -> TinyTask:
    return TinyTask(tiny_card(**changes))


@dataclass(frozen=True)
class Published:
    """Files of a small ground truth; see the fixture `published`."""

    task: TinyTask
    truth: Path
    checkpoints: Path
    store: Path


def small_digits_yaml(folder: Path, *, epochs: int = 2, masks: int = 6, repeats: int = 2) -> Path:
    """A card file on the embedded digits that the command line trains in seconds."""
    import yaml

    from attriboard import tasks

    published = Path(tasks.__file__).with_name("digits_mlp.yaml")
    card = yaml.safe_load(published.read_text(encoding="utf-8"))
    card["name"] = "small_digits"
    card["recipe"]["epochs"] = epochs
    card["ground_truth"] = {"n_masks": masks, "n_repeats": repeats}
    card["checkpoints"] = {"full": 2, "half": 1, "epochs": [epochs]}
    path = folder / "small_digits.yaml"
    path.write_text(yaml.safe_dump(card), encoding="utf-8")
    return path
