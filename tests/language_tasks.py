"""A language-modeling task that trains in well under a second; a module of its own, so that workers import it."""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Dataset, Examples
from attriboard.groundtruth.starts import write_start
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


FACTS: dict[str, Any] = {
    "architecture": "gpt2",
    "size": {"vocabulary": N_VOCAB, "length": LENGTH, "width": 32, "layers": 2, "heads": 2},
    "tokens": 4096,
    "text": {"file": "wikitext2/train.txt", "sha256": "0" * 64},
    "held_back": {"blocks": 100, "loss": 4.5},
    "stages": [
        {
            "recipe": {"epochs": 1, "learning_rate": 1e-3, "text": "released"},
            "curve": [
                {"step": 1, "train": 5.5, "held_back": 5.5, "seconds": 0.5, "cpu_seconds": 0.5},
                {"step": 2, "train": 5.0, "held_back": 4.5, "seconds": 0.5, "cpu_seconds": 0.5},
            ],
        }
    ],
}
"""What a start bundle says of where it comes from."""


def start_tensors(seed: int = 5) -> dict[str, torch.Tensor]:
    """Weights of the tiny network under Hugging Face's names, bfloat16."""
    from attriboard.tasks.models.gpt2 import gpt2

    torch.manual_seed(seed)
    model = gpt2(FACTS["size"])
    return {name.removeprefix("gpt2."): p.detach().bfloat16() for name, p in model.named_parameters()}


def task_with_start(folder: Path, **fields: Any) -> tuple[TinyLanguageTask, Path]:
    """A task that starts from a bundle, and the bundle, which is not listed."""
    from attriboard.base.digests import digest_file

    path = folder / "tiny_gpt2-start.safetensors"
    write_start(path, start_tensors(), FACTS)
    pinned = FACTS["size"] | {"pretrained": path.name, "sha256": digest_file(path)}
    return TinyLanguageTask(tiny_card(model={"options": pinned}, **fields)), path


class SlicedLanguageTask(TinyLanguageTask):
    """Its test blocks are measured four at a time, and six is no multiple of four."""

    measured_rows = 4
