"""Is this still the task that the retrains in a folder are of?

A fingerprint hashes what can be hashed: data, recipe, the names and shapes of parameters. What the code of a model, a
loss or a target computes cannot be. So the folder of a task's retrains keeps a few numbers of it, `probes`, which
are compared when the folder is opened: within a tolerance and never hashed, because rounding differs between machines.

The published tasks are pinned by their bundles and are not probed.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from attriboard.base.documents import parse_json, read_bounded
from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import write_atomically
from attriboard.contracts.task import Task

FILE = "identity.json"
MAX_BYTES = 1 << 20
N_EXAMPLES = 3  # of the training and of the test examples each
N_VALUES = 8  # of the initial parameters and of the outputs
RELATIVE = 1e-3
"""Largest difference, relative to the largest probe of a kind, that rounding on another machine may make."""


def check_identity(task: Task, folder: Path) -> None:
    """Compare a task with the one that a folder's retrains are of; a new folder gets the task's probes.

    Raises:
        InputError: they compute something else; the message has both values and the way out.
        FormatError: the file of probes is damaged.
    """
    published = task.card.kind != "own" and not task.card.model.own
    if published and type(task).__module__.startswith("attriboard."):
        return
    path = folder / FILE
    found = probes(task)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())
        return
    known = _read(path)
    for name, values in found.items():
        before, now = np.asarray(known.get(name, []), dtype=float), np.asarray(values, dtype=float)
        same = before.shape == now.shape
        if not same or np.abs(before - now).max(initial=0) > RELATIVE * max(np.abs(before).max(initial=0), 1e-12):
            at = int(np.abs(before - now).argmax()) if same else 0
            old, new = (f"{float(v[at]):.6g}" if len(v) > at else "none" for v in (before, now))
            raise InputError(
                f"task {task.card.name}: {name} was {old} when the retrains in {folder} were made, and is {new} "
                "now; the "
                f"model, the loss or the target has changed. Give the task another name, or delete {folder}"
            )


def probes(task: Task) -> dict[str, list[float]]:
    """Initial parameters of seed 0, outputs, losses, margins and targets on the first examples, before any training."""
    import torch

    from attriboard.retraining.trainer import new_model

    data = task.load_data()
    model = new_model(task, 0).eval()
    found = {"initial parameters": _few(torch.cat([p.detach().flatten()[:2] for p in model.parameters()]))}
    for side, examples in (("training", data.train[:N_EXAMPLES]), ("test", data.test[:N_EXAMPLES])):
        with torch.no_grad():
            outputs = model(examples.inputs.clone())
            found[f"outputs on {side} examples"] = _few(outputs.flatten())
            for name, function in (("loss", task.loss), ("margin", task.margin), ("target", task.target)):
                found[f"{name} of {side} examples"] = _few(function(outputs, examples.targets))
    return found


def _few(values: Any) -> list[float]:
    """A few values, spread evenly."""
    spread = values.double()[:: max(1, len(values) // N_VALUES)][:N_VALUES]
    return [float(value) if np.isfinite(float(value)) else 0.0 for value in spread]


def _read(path: Path) -> dict[str, list[float]]:
    try:
        known = parse_json(read_bounded(path, MAX_BYTES, "a file of probes"))
    except ValueError as error:
        raise FormatError(f"{path}: not readable: {error}; delete the folder to start again") from error
    if not isinstance(known, dict) or not all(isinstance(v, list) for v in known.values()):
        raise FormatError(f"{path}: must map names to lists of numbers; delete the folder to start again")
    return known
