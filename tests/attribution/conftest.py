"""Plugin files, written by the tests, on the tiny task: what other people's code may do to a run."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from tiny import tiny_task

from attriboard.attribution.job import Job
from attriboard.attribution.plugins import PluginSpec
from attriboard.contracts.task import TaskSpec
from attriboard.groundtruth.build import build_checkpoints, open_store

HEADER = """
import ctypes, os, subprocess, sys, time
from pathlib import Path
import torch
from attriboard import Attributor, Hyperparameter
from attriboard.errors import NotApplicableError
"""


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, task = tmp_path_factory.mktemp("checkpoints"), tiny_task()
    path = folder / "tiny-checkpoints.safetensors"
    build_checkpoints(task, path, open_store(task, folder / "store"))
    return path


@pytest.fixture(autouse=True)
def tiny_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task's module is among the tests; the attributor's process has to find it too."""
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(Path(tiny.__file__).parent), inherited))))


MakeJob = Callable[..., Job]


@pytest.fixture
def make_job(checkpoints: Path, tmp_path: Path) -> MakeJob:
    """A job with the attributor of this source; configurations are keywords."""

    def make(source: str, *configurations: dict[str, object], **changes: object) -> Job:
        path = tmp_path / "my_method.py"
        path.write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
        return Job(
            task=TaskSpec.of(tiny_task()),
            attributor=PluginSpec(name="my_method", origin="file", location=str(path)),
            configurations=configurations or ({},),
            checkpoints=checkpoints,
            **changes,
        )

    return make
