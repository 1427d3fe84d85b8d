"""A task of the full-size GPT-2 on a few blocks, to see that 124 million parameters fit a CPU.

Weights are drawn at random and saved in Hugging Face's format. The card is that of `wikitext2_gpt2` with this folder
instead of the Hub, 8 + 4 blocks of 512 tokens of the validation and test splits, and one epoch. Everything after that
is the task's own path:

    python -m bench.gpt2_full FOLDER
    attriboard run FOLDER/part.yaml trak --hp projection_dim=128
"""

import sys
from pathlib import Path
from typing import Any

import torch
import yaml

import attriboard.tasks
from attriboard.base.digests import digest_file
from attriboard.contracts.card import load_card

SIZES = {"n_embd": "width", "n_layer": "layers", "n_head": "heads", "vocab_size": "vocabulary", "n_positions": "length"}


def save_start(folder: Path, options: dict[str, Any]) -> str:
    """Random weights as `save_pretrained` writes them; returns the digest of their file."""
    from transformers import GPT2Config, GPT2LMHeadModel

    if not folder.exists():
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(**{theirs: options[ours] for theirs, ours in SIZES.items()})).save_pretrained(folder)
    return digest_file(folder / "model.safetensors")


def write_part(folder: Path) -> Path:
    """The card of the full task on a few blocks, beside its weights."""
    raw = yaml.safe_load((Path(attriboard.tasks.__file__).parent / "wikitext2_gpt2.yaml").read_text("utf-8"))
    raw["name"] = "wikitext2_gpt2_part"
    raw["data"] |= {"n_train": 8, "n_test": 4, "sha256": {"train_blocks": None, "test_blocks": None}}
    raw["data"]["options"] |= {"train_split": "validation", "test_split": "test", "rows_per_group": 0}
    options = raw["model"]["options"]
    del options["revision"]
    options |= {"pretrained": "./gpt2", "sha256": save_start(folder / "gpt2", options)}
    raw["recipe"] |= {"epochs": 1, "batch_size": 4}
    raw["checkpoints"] = {"full": 1, "half": 0, "epochs": [1], "stored": "bfloat16"}
    load_card(raw)
    path = folder / "part.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write_part(Path(sys.argv[1])))
