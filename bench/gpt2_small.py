"""Which recipe `wikitext2_gpt2_small` gets: candidates, each graded as its ground truth would be.

A candidate is a card beside a folder with the weights that its retrains start from (`bench.pretraining pack`), or on
the published ones (START = published), with other blocks or another rate. For each, the program measures the loss
before and after fine-tuning, builds a small ground truth through the product's own path, and asks for the ceiling, for
the LDS of four methods at the best λ of a coarse grid, and for that of the controls that no gradient enters. What is
done is kept, so that an interrupted study goes on.

    python -m bench.gpt2_small rates FOLDER START [LENGTH]           # one retrain at each of several learning rates
    python -m bench.gpt2_small study FOLDER START LENGTH RATE [--masks 16] [--method logra …]
    python -m bench.gpt2_small report FOLDER
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

import attriboard as ab
import attriboard.tasks
from attriboard.base.digests import digest_file
from attriboard.base.paths import write_atomically
from attriboard.contracts.card import load_card
from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.plan import mask_indices, retrain_seed
from attriboard.retraining.engine import retrain
from attriboard.retraining.request import RetrainRequest
from bench.gpt2_full import SIZES

PUBLISHED = "published"
"""In place of a folder: the start that `wikitext2_gpt2_small` has."""
TOKENS = 32_000
"""In the training blocks of a candidate, whatever their length."""
RATES = (1e-4, 3e-4, 1e-3)
GRID = "regularization=1e-5:10:7log"
GRADED = {"iffim": (), "trak": ("projection_dim=512",), "logra": (), "ekfac": ()}
CONTROLS = ("input_similarity", "embedding_similarity", "activation_similarity", "bm25", "grad_dot", "grad_cos")


def write_card(folder: Path, start: str, length: int, rate: float) -> Path:
    """The card of a candidate: that of the task with another start, block length and learning rate."""
    raw = yaml.safe_load((Path(attriboard.tasks.__file__).parent / "wikitext2_gpt2_small.yaml").read_text("utf-8"))
    if start != PUBLISHED:
        config = json.loads((folder / start / "config.json").read_text("utf-8"))
        weights = {"pretrained": f"./{start}", "sha256": digest_file(folder / start / "model.safetensors")}
        raw["model"]["options"] = {ours: config[theirs] for theirs, ours in SIZES.items()} | weights
        raw["data"]["options"]["vocabulary"] = config["vocab_size"]
    raw |= {"name": f"{start}_{length}_{rate:.0e}".replace("-", "_"), "title": "candidate", "description": "candidate"}
    raw["data"] |= {"n_train": TOKENS // length, "sha256": {"train_blocks": None, "test_blocks": None}}
    raw["data"]["options"] |= {"length": length, "every": max(1, 256 // length)}
    raw["recipe"]["learning_rate"] = rate
    load_card(raw)
    path = folder / f"{raw['name']}.yaml"
    if not path.exists():
        path.write_text(yaml.safe_dump(raw, sort_keys=False), encoding="utf-8")
    return path


def loss_of_start(task: Task) -> float:
    """Mean token loss of the test blocks before fine-tuning, in nats."""
    model, start = task.build_model(), task.pretrained()
    assert start is not None, "every candidate starts from weights"
    model.load_state_dict(start, strict=False)
    blocks = task.load_data().test.inputs
    with torch.no_grad():
        logits = torch.cat([model(part)[:, :-1] for part in blocks.split(50)])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), blocks[:, 1:].flatten()).item()


def rates(folder: Path, start: str, length: int) -> None:
    """The test loss of one half-model at each learning rate."""
    for rate in RATES:
        task = load_task(write_card(folder, start, length, rate))
        request = RetrainRequest(mask_indices(task.card, 0), retrain_seed(0, 0))
        store = open_store(task, None)
        retrain(task, [request], store)
        digests = [request.digest(task.card.fingerprint)]
        loss, seconds = store.read("outputs/loss", digests).mean(), store.seconds(digests)
        print(f"{task.card.name}: {loss_of_start(task):.3f} → {loss:.3f}, {seconds:.1f} s", flush=True)


def study(folder: Path, start: str, length: int, rate: float, masks: int, methods: Sequence[str]) -> None:
    """Everything that is measured of a candidate; results go to FOLDER/NAME.json."""
    card = write_card(folder, start, length, rate)
    task = load_task(card)
    truth = ab.build_ground_truth(card, masks=masks, repeats=2, workers=1)
    ceiling, loss = truth.ceiling, truth.outputs["loss"]
    path = folder / f"{task.card.name}.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    facts: dict[str, Any] = (before if before.get("masks") == masks else {}) | {
        "parameters": sum(p.numel() for p in task.build_model().parameters()),
        "masks": masks,
        "loss_before": loss_of_start(task),
        "loss_half": float(loss.mean()),
        "spread": [float(loss.mean(axis=2).min()), float(loss.mean(axis=2).max())],
        "seconds": truth.card.retrain_seconds / (2 * masks),
        "ceiling": [ceiling.mean, *(ceiling.ci95 or ())],
    }
    for method in (one for one in methods if one not in facts):
        facts[method] = best_of(card, method, folder / "records" / task.card.name)
        write_atomically(path, json.dumps(facts, indent=1).encode() + b"\n")
        print(task.card.name, method, facts[method], flush=True)


def best_of(card: Path, method: str, out: Path) -> list[Any]:
    """[LDS on scoring points, λ] at the best λ, which is none for a method without one; or [none, why it failed]."""
    program, verb = str(Path(sys.executable).with_name("attriboard")), "sweep" if method in GRADED else "run"
    command = [program, verb, str(card), method, "--out", str(out), "--json", "--threads", "1"]
    if method in GRADED:
        command += ["--grid", GRID, *(word for value in GRADED[method] for word in ("--hp", value))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [None, done.stderr.strip().splitlines()[-1:]]
    printed = json.loads(done.stdout)
    records = printed["points"] if verb == "sweep" else [printed]
    points = [(r["lds"]["mean"], r["hyperparameters"].get("regularization")) for r in records if r["lds"]]
    return list(max(points, default=(None, None)))


def report(folder: Path) -> None:
    """A line per candidate."""
    for path in sorted(folder.glob("*.json")):
        facts = json.loads(path.read_text("utf-8"))
        controls = max(((facts[c][0] or 0, c) for c in CONTROLS if c in facts), default=(0, "no control"))
        graded = ", ".join(f"{m} {facts[m][0]:.3f} (λ {facts[m][1]:.0e})" for m in GRADED if m in facts and facts[m][0])
        print(
            f"{path.stem}: {facts['loss_before']:.3f} → {facts['loss_half']:.3f} {np.round(facts['spread'], 3)}, "
            f"{facts['seconds']:.1f} s, ceiling {np.round(facts['ceiling'], 2)}, {graded}; "
            f"{controls[1]} {controls[0]:.3f}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("rates", "study", "report"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("start", nargs="?", default="", help="folder of weights inside FOLDER")
    parser.add_argument("length", nargs="?", type=int, default=32)
    parser.add_argument("rate", nargs="?", type=float, default=3e-4)
    parser.add_argument("--masks", type=int, default=16)
    parser.add_argument("--method", action="append", choices=(*CONTROLS, *GRADED), help="by default all")
    given = parser.parse_args(arguments)
    if given.what == "report":
        report(given.folder)
    elif given.what == "rates":
        rates(given.folder, given.start, given.length)
    else:
        methods = given.method or (*CONTROLS, *GRADED)
        study(given.folder, given.start, given.length, given.rate, given.masks, methods)


if __name__ == "__main__":
    main()
