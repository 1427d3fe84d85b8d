"""The page "Your own task": its examples run as they stand, and are as short as they promise."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from attriboard.base.errors import DataError
from attriboard.evaluation.catalog import load_task

PAGE = (Path(__file__).parents[2] / "docs" / "own-task.md").read_text(encoding="utf-8")


def block(marker: str, language: str = "python") -> str:
    match = re.search(rf"<!-- {marker} -->\n```{language}\n(.*?)```", PAGE, re.S)
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


def test_the_card_is_a_task_once_its_digest_is_pasted(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(55, 3))
    sides = {"train": slice(0, 40), "test": slice(40, 55)}
    arrays = {f"{side}_inputs": x[rows] for side, rows in sides.items()}
    arrays |= {f"{side}_targets": x[rows].sum(1) for side, rows in sides.items()}
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "my_model.py").write_text(
        "from torch import nn\ndef build(hidden): return nn.Sequential(nn.Linear(3, hidden), nn.Linear(hidden, 1))\n"
    )
    card = tmp_path / "my_task.yaml"
    card.write_text(block("card", "yaml"))
    with pytest.raises(DataError, match=r"write sha256: \{file: ") as told:
        load_task(card).load_data()
    card.write_text(card.read_text().replace("{file: null}", str(told.value).partition("write sha256: ")[2]))
    task = load_task(card)
    assert task.load_data().train.inputs.shape == (40, 3)
    assert task.build_model()[0].out_features == 16
