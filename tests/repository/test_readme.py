"""The README is a first run: short, and as it says. Its blocks are run by test_document_blocks."""

import re

import pytest
from documents import ROOT, blocks_of
from typer.testing import CliRunner

from attriboard.cli.app import app

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_it_fits_a_few_screens():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert max(map(len, lines)) <= 110


def test_every_door_takes_at_most_ten_lines():
    doors = README.split("\n## ")[2:5]
    assert [door.splitlines()[0] for door in doors] == [
        "Score and submit your method",
        "Choose hyperparameters for your model",
        "Download ground truth",
    ]
    for door in doors:
        code = "".join(re.findall(r"```\w*\n(.*?)```", door, re.S))
        assert len([line for line in code.splitlines() if line.strip()]) <= 10, door


def test_it_has_one_diagram():
    assert [block.language for block in blocks_of(ROOT / "README.md")].count("mermaid") == 1


def test_every_command_of_the_program_is_in_the_table_of_commands_and_the_other_way_round():
    named = set(re.findall(r"`attriboard (\w+)", COMMANDS))
    there = {command.name or command.callback.__name__ for command in app.registered_commands if not command.hidden}
    there |= {group.name for group in app.registered_groups}
    assert named == there


def test_every_command_explains_itself():
    for name in sorted(set(re.findall(r"`attriboard (\w+)", COMMANDS))):
        assert CliRunner().invoke(app, [name, "--help"]).exit_code == 0, name


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_targets_of_the_readme_exist(target):
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
