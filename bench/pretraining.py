"""Pretrain a small GPT-2 once, for `wikitext2_gpt2_small`, and write it as Hugging Face would.

The text is the training split of WikiText-2 as released with `<unk>`; the tokens are GPT-2's first 4,096. There are two
stages: the text as it is, and then its sentences without `<unk>`, written as ordinary prose. A model of the first stage
has nothing to learn from 1,000 more blocks of the same text: its test loss only rises. After the second it has to learn
how WikiText is written (spaces before punctuation, `@-@`, headings), as GPT-2, whose text was prose, had to.

A stage passes over its data in blocks of 128 tokens, in an order of its own for each pass, with AdamW and half a
cosine. The program resumes where it was stopped. On a CPU, bfloat16 and the order of additions make its bits a matter
of the machine: the weights, once published, are the definition of the start, and this is how they were made.

    python -m bench.pretraining leakage         # how much of the raw validation and test text is in the training text
    python -m bench.pretraining run [--compile]
    python -m bench.pretraining pack FOLDER|FILE.safetensors
"""

import argparse
import json
import math
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.paths import cache_folder, write_atomically
from attriboard.groundtruth.starts import write_start
from attriboard.tasks.datasets.wikitext2 import WikiText2Options, cut_blocks, cut_tokenizer, text_rows
from attriboard.tasks.mirror import mirror_directory
from attriboard.tasks.models.gpt2 import gpt2

TEXT = "wikitext2/train.txt"
N_HELD_BACK = 100
"""Blocks at the end of the training text that only measure the loss."""
SAVE_EVERY = 50
PRINTED = (
    (r" @([-,.])@ ", r"\1"),  # parts of a word or a number
    (r'" ([^"]*) "', r'"\1"'),
    (r" ([,.;:!?%)\]])", r"\1"),
    (r"([(\[$]) ", r"\1"),
    (r" ('(?:s|t|re|ve|ll|d|m)?\b)", r"\1"),
)
"""How the release separates what print joins: patterns and their replacements, in this order."""
N_GRAM = 13
"""Words in a row that count as copied text, as in GPT-3's check (Brown et al. 2020, appendix C)."""


@dataclass(frozen=True)
class Recipe:
    """How the start was trained.

    Attributes:
        layers, width, heads, vocabulary, length: of the network; `length` is that of the blocks as well.
        epochs, batch_size, learning_rate, warmup, weight_decay, clip_norm: of AdamW with half a cosine to 0.
        seed: of the initialization and of the order.
        text: what is read: the file as it is, or as prose.
    """

    layers: int = 6
    width: int = 256
    heads: int = 4
    vocabulary: int = 4096
    length: int = 128
    epochs: int = 3
    batch_size: int = 32
    learning_rate: float = 1e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    seed: int = 0
    text: Literal["released", "prose"] = "released"

    @property
    def folder(self) -> Path:
        """Where its state is kept."""
        return cache_folder() / "pretraining" / digest_bytes(json.dumps(asdict(self)).encode())[:12]

    def model(self) -> nn.Module:
        """The network at its start."""
        torch.manual_seed(self.seed)
        return gpt2(self.sizes)

    @property
    def sizes(self) -> dict[str, int]:
        """Options of the architecture."""
        return {name: getattr(self, name) for name in ("vocabulary", "length", "width", "layers", "heads")}

    def rate(self, step: int, n_steps: int) -> float:
        """Learning rate of a step, counted from 0."""
        rising = self.warmup * n_steps
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * (1 + math.cos(math.pi * (step - rising) / (n_steps - rising))) / 2

    def order(self, n_blocks: int) -> Iterator[NDArray[np.int64]]:
        """Batches of block numbers, pass after pass; what is left of a pass is dropped."""
        for epoch in range(self.epochs):
            shuffled = np.random.default_rng([self.seed, epoch]).permutation(n_blocks)
            yield from shuffled[: n_blocks // self.batch_size * self.batch_size].reshape(-1, self.batch_size)


def as_prose(text: str) -> str:
    """Sentences of the released text that have no `<unk>`, as they would be printed; headings are dropped."""
    lines = (line.strip() for line in text.split("\n"))
    kept = []
    for line in lines:
        if line and not line.startswith("="):
            sentences = [one for one in re.split(r"(?<= [.!?]) ", line) if "<unk>" not in one]
            kept.append(" ".join(map(_printed, sentences)))
    return "\n".join(filter(None, kept)) + "\n"


def _printed(sentence: str) -> str:
    for pattern, replacement in PRINTED:
        sentence = re.sub(pattern, replacement, sentence)
    return sentence


def mirror() -> Path:
    """The folder of data."""
    folder = mirror_directory()
    if folder is None:
        raise SystemExit(f"ATTRIBOARD_DATA = DIR, a folder with {TEXT} and gpt2_tokenizer/, is needed")
    return folder


def blocks_of(recipe: Recipe) -> Tensor:
    """The training text, (n_blocks, length) int64."""
    from attriboard.evaluation.catalog import load_task

    options = load_task("wikitext2_gpt2_mini").card.data.options
    parsed = WikiText2Options.parse("data.options", dict(options) | {"vocabulary": recipe.vocabulary})
    tokenizer = cut_tokenizer(parsed, *(mirror() / "gpt2_tokenizer" / name for name in ("vocab.json", "merges.txt")))
    text = (mirror() / TEXT).read_text("utf-8")
    rows = text_rows(as_prose(text) if recipe.text == "prose" else text)
    return torch.from_numpy(cut_blocks(tokenizer, rows, recipe.length, 0))


def loss_of(model: nn.Module, blocks: Tensor) -> Tensor:
    """Mean cross-entropy of a token in nats."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(blocks)[:, :-1]
    return nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]).float(), blocks[:, 1:].reshape(-1))


def run(recipe: Recipe, before: Recipe | None, compiled: bool) -> None:
    """Train a stage, or go on with it, from the weights of the one before."""
    folder = recipe.folder
    folder.mkdir(parents=True, exist_ok=True)
    blocks = blocks_of(recipe)
    train, held_back = blocks[:-N_HELD_BACK], blocks[-N_HELD_BACK:]
    model = recipe.model()
    if before is not None:
        start = load_file(before.folder / "state.safetensors")
        for name, parameter in model.named_parameters():
            parameter.data = start[f"parameter/{name}"]
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)
    batches = list(recipe.order(len(train)))
    done = restore(folder, model, optimizer)
    loss_in_training = torch.compile(loss_of) if compiled else loss_of
    started, cpu = time.perf_counter(), time.process_time()
    for step in range(done, len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(step, len(batches))
        loss = loss_in_training(model, train[torch.from_numpy(batches[step])])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == len(batches):
            with torch.no_grad():
                row = {"step": step + 1, "train": loss.item(), "held_back": loss_of(model, held_back).item()}
            row |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
            keep(folder, model, optimizer, row)
            print(json.dumps(row | {"of": len(batches)}), flush=True)
            started, cpu = time.perf_counter(), time.process_time()


def restore(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Steps that are done, with the model and the optimizer as they were after them."""
    path = folder / "state.safetensors"
    if not path.exists():
        return 0
    state = load_file(path)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.copy_(state[f"parameter/{name}"])
        moments = {key: state[f"{key}/{name}"] for key in ("exp_avg", "exp_avg_sq")}
        optimizer.state[parameter] = {"step": state["step"].float().clone(), **moments}
    return int(state["step"])


def keep(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, row: dict[str, float]) -> None:
    """Write the state, whole or not at all, and add a row to the curve."""
    state = {"step": torch.tensor(int(row["step"]))}
    for name, parameter in model.named_parameters():
        state[f"parameter/{name}"] = parameter.detach()
        for key in ("exp_avg", "exp_avg_sq"):
            state[f"{key}/{name}"] = optimizer.state[parameter][key]
    write_atomically(folder / "state.safetensors", save(state))
    with (folder / "curve.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def curve_of(folder: Path) -> list[dict[str, float]]:
    """Rows of the curve; a step that was done twice has its later row."""
    rows = [json.loads(line) for line in (folder / "curve.jsonl").read_text("utf-8").splitlines()]
    return [row for _, row in sorted({row["step"]: row for row in rows}.items())]


def pack(stages: Sequence[Recipe], out: Path) -> None:
    """Write weights, rounded to bfloat16, and how they were made.

    Args:
        stages: all, done.
        out: a folder as `from_pretrained` reads it, or a `.safetensors` file, which becomes a bundle.
    """
    recipe = stages[-1]
    model: Any = recipe.model()
    state, blocks = load_file(recipe.folder / "state.safetensors"), blocks_of(recipe)
    n_steps = len(list(recipe.order(len(blocks) - N_HELD_BACK)))
    if int(state["step"]) != n_steps:
        raise SystemExit(f"{recipe.folder}: {int(state['step'])} of {n_steps} steps are done; run the rest first")
    curves = [curve_of(stage.folder) for stage in stages]  # a stage begins when the one before is done
    rounded = {}
    for name, parameter in model.named_parameters():
        value = state[f"parameter/{name}"].bfloat16()
        rounded[name.removeprefix("gpt2.")] = value
        with torch.no_grad():
            parameter.copy_(value.float())
    with torch.no_grad():
        loss = loss_of(model, blocks[-N_HELD_BACK:]).item()
    facts = {
        "architecture": "gpt2",
        "size": recipe.sizes,
        "tokens": sum(int(curve[-1]["step"]) for curve in curves) * recipe.batch_size * recipe.length,
        "text": {"file": TEXT, "sha256": digest_file(mirror() / TEXT)},
        "held_back": {"blocks": N_HELD_BACK, "loss": loss},
        "stages": [{"recipe": asdict(s), "curve": curve} for s, curve in zip(stages, curves, strict=True)],
    }
    if out.suffix == ".safetensors":
        write_start(out, rounded, facts)
    else:
        out.mkdir(parents=True, exist_ok=True)
        save_file(rounded, out / "model.safetensors", metadata={"format": "pt"})
        model.gpt2.config.save_pretrained(out)
        write_atomically(out / "training.json", json.dumps(facts, indent=1).encode() + b"\n")
    print(json.dumps({key: facts[key] for key in ("tokens", "held_back")}))


def leakage() -> None:
    """Share of the raw splits' runs of 13 words that the training text has too; `<unk>` breaks a run."""

    def runs(text: str) -> Iterator[tuple[str, ...]]:
        for part in re.split(r"<unk>|\n", text.lower()):
            words = part.split()
            yield from zip(*(words[i:] for i in range(N_GRAM)), strict=False)

    known = {hash(run) for run in runs((mirror() / TEXT).read_text("utf-8"))}
    for name in ("valid", "test"):
        found = [(run, hash(run) in known) for run in runs((mirror() / f"wikitext2/raw/{name}.txt").read_text("utf-8"))]
        shared = [run for run, there in found if there]
        print(f"{name}: {len(shared)} of {len(found)} runs of {N_GRAM} words ({len(shared) / len(found):.4%})")
        for example in shared[:: max(1, len(shared) // 5)][:5]:
            print("   ", " ".join(example))


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("leakage", "run", "pack"))
    parser.add_argument("out", nargs="?", type=Path, help="folder or file that `pack` writes")
    parser.add_argument("--compile", action="store_true", help="torch.compile, about a fifth faster")
    for name in ("layers", "width", "heads"):
        parser.add_argument(f"--{name}", type=int)
    given = vars(parser.parse_args(arguments))
    what, out, compiled = given.pop("what"), given.pop("out"), given.pop("compile")
    first = Recipe(**{name: value for name, value in given.items() if value is not None})
    stages = (first, replace(first, text="prose", epochs=1, learning_rate=5e-4))
    if what == "leakage":
        leakage()
    elif what == "run":
        for before, stage in zip((None, *stages), stages, strict=False):
            run(stage, before, compiled)
    elif out is None:
        parser.error("pack needs the folder or file to write")
    else:
        pack(stages, out)


if __name__ == "__main__":
    main()
