"""The README's commands and code are run as they stand."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attriboard.cli.app import app

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent


def block(marker: str) -> str:
    """The code block after the comment `<!-- marker -->`."""
    match = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", README, re.S)
    assert match, f"README has no block {marker!r}"
    return match[1]


def run(command: str, folder: Path) -> str:
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [BIN / program, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_your_own_attributor_takes_at_most_fifteen_lines_and_gets_a_score(tmp_path):
    code = block("attributor: my_method.py")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    (tmp_path / "my_method.py").write_text(code, encoding="utf-8")
    after = README.split("<!-- attributor: my_method.py -->")[1].split("```")[3]
    commands = [line for line in after.splitlines() if line.strip()]
    assert len(commands) == 2
    text, document = (run(command, tmp_path) for command in commands)
    assert re.search(r"nearest_inputs on digits_mlp: LDS 0\.\d{3}, 95 % interval", text)
    assert '"status": "ok"' in document
    assert '"width": 3.0' in document


def test_python_block_runs():
    done = subprocess.run([sys.executable, "-c", block("python")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(200, 1297) (200, 5, 500)" in done.stdout


def test_every_command_of_the_table_exists():
    table = README.split("## Commands")[1].split("##")[0]
    names = set(re.findall(r"`attriboard (\w+)", table))
    help_text = run("attriboard --help", ROOT)
    for name in names:
        assert re.search(rf"│ {name}\b", help_text), name
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_of_the_readme_exist(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)


def test_links_to_files_resolve():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", README):
        assert (ROOT / link).exists(), link
