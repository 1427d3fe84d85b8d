"""What a new attributor costs its author: `attriboard run mnist_mlp iffim`, from the command to the record.

Wall-clock seconds of everything: starting, reading data and checkpoints, attributing, grading with its interval.
"""

import json
import statistics
import subprocess
import tempfile
from typing import Any

from bench.report import Measured, seconds
from bench.startup import ATTRIBOARD


def measure(repetitions: int = 5) -> Measured:
    """Medians over repetitions."""
    documents: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        command = [ATTRIBOARD, "run", "mnist_mlp", "iffim", "--hp", "regularization=1e-3", "--json", "--out", folder]

        def run() -> None:
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            documents.append(json.loads(done.stdout))

        wall = [seconds(run) for _ in range(repetitions)]
    return Measured(
        numbers={
            "mnist_mlp_iffim_seconds": statistics.median(wall),
            "mnist_mlp_iffim_seconds_range": [min(wall), max(wall)],
            "of_which_fit_and_score": statistics.median(d["fit_seconds"] + d["score_seconds"] for d in documents),
            "peak_gigabytes": max(d["peak_bytes"] for d in documents) / 1e9,
            "lds": documents[0]["lds"]["mean"],
        }
    )
