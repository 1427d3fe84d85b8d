"""What must hold before any test: one thread for the numerical libraries, and Ctrl-C that can be felt.

The problems are small: more threads only wait for each other, and where cores are shared they wait for long. Tests of
the number of threads set it themselves. A shell that starts a job in the background has it ignore SIGINT, which the
programs that tests interrupt would inherit.
"""

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tiny import Published

    from attriboard.evaluation.grader import Grader

os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is imported
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> "Published":
    """The tiny task's ground truth and checkpoints."""
    from selecting import publish

    return publish(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def grader(published: "Published") -> "Grader":
    """Of the tiny task."""
    from attriboard.evaluation.grader import Grader
    from attriboard.groundtruth.bundle import read_ground_truth

    return Grader(read_ground_truth(published.truth))


@pytest.fixture(scope="module")
def inline() -> Iterator[None]:
    """Attributors run in this process, in all tests of a module that uses this."""
    from selecting import run_inline

    with pytest.MonkeyPatch.context() as monkeypatch:
        run_inline(monkeypatch)
        yield
