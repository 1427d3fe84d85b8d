"""Editors and type checkers that run at the root of the checkout resolve the package and what is below it."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
IMPORTS = "".join(f"import {name}\n" for name in PACKAGES)
USE = """
from attriboard.base.paths import cache_folder
from attriboard.cards import TaskCard
from attriboard.errors import DataError
reveal_type(cache_folder())
reveal_type(TaskCard.fingerprint)
reveal_type(DataError)
"""


def check(*command: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    ).stdout


def test_mypy_resolves_every_package_and_the_short_names(tmp_path: Path) -> None:
    # What the packages import in turn would take a minute.
    found = check(
        "mypy", "--cache-dir", str(tmp_path), "--follow-imports", "skip", "-c", IMPORTS + "import attriboard.nothing"
    )
    assert found.count("[import-not-found]") == 1, found
    assert "attriboard.nothing" in found


def test_pyright_resolves_every_package_and_the_short_names(tmp_path: Path) -> None:
    pytest.importorskip("pyright")
    program = tmp_path / "program.py"
    program.write_text(IMPORTS + USE + "import attriboard.nothing\n")
    # With --outputjson it does not ask the network for a newer version.
    report = json.loads(check("pyright", "--pythonpath", sys.executable, "--outputjson", str(program)))
    said = [entry["message"] for entry in report["generalDiagnostics"]]
    assert [text for text in said if "could not be resolved" in text] == [
        'Import "attriboard.nothing" could not be resolved'
    ]
    assert 'Type of "cache_folder()" is "Path"' in said
    assert 'Type of "DataError" is "type[DataError]"' in said
    assert not any("Unknown" in text for text in said)
