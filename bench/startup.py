"""How long a user waits for the command line: seconds of `attriboard --help` and `attriboard tasks`."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.report import Measured

ATTRIBOARD = str(Path(sys.executable).with_name("attriboard"))


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([ATTRIBOARD, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def measure(repetitions: int = 5) -> Measured:
    """Medians over repetitions."""
    return Measured(
        numbers={
            "help_seconds": statistics.median(seconds("--help") for _ in range(repetitions)),
            "tasks_seconds": statistics.median(seconds("tasks") for _ in range(repetitions)),
        }
    )
