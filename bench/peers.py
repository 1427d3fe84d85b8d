"""Ours and other libraries' attributors on the same checkpoints of `mnist_mlp`: the page docs/side-by-side.md.

    python -m bench peers             everything, then the page
    python -m bench.peers CASE        one case: its scores, LDS, seconds and peak memory

Every case is a process of its own on one thread, and is kept in build/peers/, so that a run that was interrupted goes
on; what is not finished after `SECONDS` is a row that says so. Only the first `POINTS` scoring points are attributed,
because some of the libraries take their time for each test point; training examples are all 5,000.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.report import Measured

FOLDER = Path("build/peers")
PAGE = Path("docs/side-by-side.md")
TASK = "mnist_mlp"
POINTS = 100
SECONDS = 900

EMPIRICAL = {"fisher": "empirical", "damping": 1e-3}
ONE_MODEL = {"checkpoints": 1, "regularization": 3.16228}

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "grad_dot": ("grad_dot", {}),
    "tracin dattri": ("dattri:tracin", {}),
    "cg": ("if_cg", {}),
    "cg dattri": ("dattri:if_cg", {}),
    "ekfac": ("ekfac", {}),
    "ekfac dattri": ("dattri:ekfac", {}),
    "ekfac kronfluence": ("kronfluence:ekfac", {}),
    "ekfac same": ("ekfac", EMPIRICAL),
    "ekfac same dattri": ("dattri:ekfac", {"damping": 1e-3}),
    "ekfac same kronfluence": ("kronfluence:ekfac", EMPIRICAL),
    "ekfac same oracle": ("iffim", {"regularization": 1e-3}),
    "trak": ("trak", {}),
    "trak dattri": ("dattri:trak", {}),
    "trak traker": ("traker:trak", {}),
    "trak same": ("trak", ONE_MODEL | {"projection_dim": 512}),
    "trak same dattri": ("dattri:trak", ONE_MODEL | {"projection_dim": 512}),
    "trak same traker": ("traker:trak", ONE_MODEL | {"projection_dim": 512}),
    "trak same oracle": ("trak", ONE_MODEL | {"projection_dim": None}),
}
"""Key → attributor and hyperparameters."""

SECTIONS = (
    ("Defaults", "Each library's own defaults, so hyperparameters differ too.",
     ("grad_dot", "tracin dattri", "cg", "cg dattri", "ekfac", "ekfac dattri", "ekfac kronfluence", "trak",
      "trak dattri", "trak traker"), None),
    ("EK-FAC, the same settings", "Empirical Fisher matrix, λ = .001. The oracle is the exact empirical Fisher matrix.",
     ("ekfac same", "ekfac same dattri", "ekfac same kronfluence", "ekfac same oracle"), "ekfac same oracle"),
    ("TRAK, the same settings", "One half-data model, λ = 3.16, 512 dimensions. The oracle does not project.",
     ("trak same", "trak same dattri", "trak same traker", "trak same oracle"), "trak same oracle"),
)  # fmt: skip
"""Tables: title, what is compared, cases, and the one that shows which is right."""


def run_case(key: str) -> None:
    """Attribute, grade, and keep what came of it."""
    import numpy as np
    import torch
    from safetensors.torch import save_file

    from attriboard.attribution.context import build_context
    from attriboard.contracts.task import Examples
    from attriboard.evaluation.api import load_ground_truth
    from attriboard.evaluation.catalog import attributor_spec, load_task
    from attriboard.evaluation.grader import Grader
    from attriboard.groundtruth.listing import BundleRegistry
    from attriboard.scoring.bootstrap import Bootstrap
    from attriboard.scoring.lds import correlate, predict

    torch.set_num_threads(1)
    name, values = CASES[key]
    method = attributor_spec(name).load_attributor()
    task = load_task(TASK)
    truth = load_ground_truth(task)
    points = Grader(truth).split.scoring[:POINTS]
    context = build_context(task, BundleRegistry().locate(task.card, "checkpoints"))
    some = torch.from_numpy(points)
    context = replace(context, test=Examples(context.test.inputs[some], context.test.targets[some]))
    configuration = method.configure(values)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    attributor = method()
    state = attributor.fit(context, **method.stage(configuration, "fit"))
    scores = attributor.score(state, **method.stage(configuration, "score")).float().contiguous()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save_file({"scores": scores}, FOLDER / f"{key}.safetensors")
    predictions = predict(scores.numpy(), truth.masks)
    outputs = truth.target[:, :, points]
    lds = correlate(predictions, outputs)
    result = {
        "attributor": name,
        "hyperparameters": configuration,
        "seconds": seconds,
        "peak_bytes": peak * 1024,
        "resident_before": before * 1024,
        "lds": lds.mean,
        "ci95": list(Bootstrap(outputs).interval(predictions).ci95),
        "not_finite": float(np.mean(~np.isfinite(scores.numpy()))),
    }
    _keep(key, result)


def measure(repetitions: int = 1) -> Measured:
    """Run what is missing, once, write the page, and give the numbers flat."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    toy = FOLDER / "toy.json"
    if not toy.exists():
        done = subprocess.run([sys.executable, "-m", "bench.peers_toy"], stdout=subprocess.PIPE, text=True, check=True)
        toy.write_text(done.stdout[done.stdout.index("{") :])
    for key in CASES:
        if not (FOLDER / f"{key}.json").exists():
            _run_in_a_process(key)
    write_page()
    results = {key: json.loads((FOLDER / f"{key}.json").read_text()) for key in CASES}
    wanted = ("lds", "seconds", "peak_bytes")
    return Measured(numbers={f"{key}: {what}": r.get(what) for key, r in results.items() for what in wanted})


def write_page() -> None:
    """The page, from what is kept."""
    from bench.peers_page import page

    PAGE.write_text(page(FOLDER, SECTIONS, POINTS), encoding="utf-8")


def _run_in_a_process(key: str) -> None:
    print(f"peers: {key}", file=sys.stderr, flush=True)
    name, values = CASES[key]
    failed = {"attributor": name, "hyperparameters": values}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.peers", key], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        _keep(key, failed | {"failure": f"not finished after {SECONDS} s"})
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        _keep(key, failed | {"failure": lines[-1][:200]})


def _keep(key: str, result: dict[str, Any]) -> None:
    (FOLDER / f"{key}.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        run_case(argument)
