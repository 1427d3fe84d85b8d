"""A language-modeling task that trains in well under a second; a module of its own, so that workers import it."""

from functools import cache
from typing import Any

import torch

from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.language_modeling import LanguageModelingTask

N_VOCAB, LENGTH, N_TRAIN, N_TEST = 256, 8, 32, 6


def tiny_card(**fields: Any) -> TaskCard:
    """A card of a two-layer GPT-2 on random blocks; `recipe` and `model` are merged, other fields replaced."""
    raw: dict[str, Any] = {
        "name": "tiny_gpt2",
        "title": "Tiny",
        "description": "Random blocks.",
        "licence": "none",
        "kind": "language_modeling",
        "target": "negative_loss",
        "data": {
            "dataset": "wikitext2",
            "n_train": N_TRAIN,
            "n_test": N_TEST,
            "options": {
                "train_split": "validation",
                "test_split": "test",
                "length": LENGTH,
                "vocabulary": N_VOCAB,
                "vocab_sha256": "0" * 64,
                "merges_sha256": "0" * 64,
            },
            "sha256": {"train_blocks": None, "test_blocks": None},
        },
        "model": {
            "architecture": "gpt2",
            "options": {"vocabulary": N_VOCAB, "length": LENGTH, "width": 32, "layers": 2, "heads": 2},
        },
        "recipe": {
            "optimizer": "adamw",
            "learning_rate": 2e-3,
            "schedule": "cosine",
            "warmup": 0.2,
            "clip_norm": 1.0,
            "weight_decay": 0.01,
            "epochs": 3,
            "batch_size": 6,
        },
        "checkpoints": {"full": 1, "half": 1, "epochs": [1, 3]},
    }
    for name, value in fields.items():
        raw[name] = {**raw[name], **value} if name in ("recipe", "model") else value
    return load_card(raw)


@cache
def _blocks() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(N_VOCAB, (N_TRAIN + N_TEST, LENGTH), generator=generator)


class TinyLanguageTask(LanguageModelingTask):
    """Random blocks instead of text."""

    def load_data(self) -> Dataset:
        train, test = _blocks()[:N_TRAIN], _blocks()[N_TRAIN:]
        return Dataset(Examples(train, train), Examples(test, test))

    def data_available(self) -> bool:
        return True


class SlicedLanguageTask(TinyLanguageTask):
    """Its test blocks are measured four at a time, and six is no multiple of four."""

    measured_rows = 4
