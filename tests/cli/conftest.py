"""Running the command line, in this process or in one of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

N_TRAIN, N_TEST = 1297, 500  # of digits_mlp


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output, which must be one JSON document and nothing else."""
        return json.loads(self.out)


@pytest.fixture
def attriboard(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`attriboard …` in this process: fast, for everything but processes and pipes."""
    from attriboard.cli.app import app

    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: object) -> Done:
        capsys.readouterr()
        try:
            app([str(argument) for argument in arguments], prog_name="attriboard")
        except SystemExit as end:
            code = end.code
        else:
            code = 0
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Done(int(code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def program() -> str:
    """Path of the installed command."""
    return str(Path(sys.executable).with_name("attriboard"))


@pytest.fixture
def shell(program: str, tmp_path: Path) -> Callable[..., Done]:
    """`attriboard …` in a process of its own, in an empty folder."""

    def run(*arguments: object, **options: Any) -> Done:
        done = subprocess.run(
            [program, *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, timeout=120, **options
        )
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """A score matrix for `digits_mlp`: noise."""
    path = tmp_path / "scores.safetensors"
    matrix = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN)).astype(np.float32)
    save_file({"scores": matrix}, path)
    return path
