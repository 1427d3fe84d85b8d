"""The page "Your own task": its examples run as they stand, and are as short as they promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "own-task.md").read_text(encoding="utf-8")


def block(marker: str) -> str:
    match = re.search(rf"<!-- {marker} -->\n```python\n(.*?)```", PAGE, re.S)
    assert match, f"the page has no example {marker!r}"
    return match[1]


@pytest.mark.parametrize(
    ("marker", "lines", "printed"),
    [
        ("regression", 25, r"trak +selected +0\.\d{3}(.|\n)*differences below 0\.\d{3} cannot be told apart"),
        ("text", 30, r"iffim for test 0(.|\n)*helpful: \d"),
        ("trained", 10, r"<iffim: λ = .*> \(10, 50\)"),
    ],
)
def test_an_example_runs_as_it_stands(marker, lines, printed, tmp_path, monkeypatch):
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path))
    code = block(marker)
    assert len([line for line in code.splitlines() if line.strip()]) <= lines
    small = code.replace("masks=50", "masks=10").replace('["iffim", "trak", "grad_dot"]', '["trak", "grad_dot"]')
    done = subprocess.run([sys.executable, "-c", small], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(printed, done.stdout), done.stdout
