"""Functions of scripts: only what defines them is run, and they are the ones that the script has."""

import textwrap
from pathlib import Path

import pytest

from attriboard.base.errors import InputError
from attriboard.base.scripts import definitions

SOURCE = """
from __future__ import annotations
import math
import dataclasses as d

LOG = []
SIZES = {"hidden": 3}
SIZES["more"] = 4
for name in ("a", "b"):
    LOG.append(name)
work = 1 / 0 if SIZES["hidden"] == 3 else 2

@d.dataclass
class Base:
    size: Unknown = 3

class Model(Base):
    def total(self):
        work = 5
        return self.size + helper(SIZES["more"]) + len(LOG) + work

def helper(value):
    return math.floor(value + 0.5)

def build():
    return Model().total()

if build():
    raise SystemExit(3)
"""


def script(folder: Path, source: str = SOURCE) -> Path:
    path = folder / "my_script.py"
    path.write_text(textwrap.dedent(source))
    return path


def test_a_function_has_everything_that_it_refers_to_and_nothing_else_is_run(tmp_path: Path) -> None:
    module = definitions(script(tmp_path), "build")
    assert module.build() == 3 + 4 + 2 + 5
    assert "work" not in vars(module)


def test_what_is_asked_for_later_joins_the_same_module(tmp_path: Path) -> None:
    path = script(tmp_path)
    first = definitions(path, "helper")
    assert "Model" not in vars(first)
    second = definitions(path, "Model.total")
    assert second is first
    assert second.Model().total() == 14
    assert second.helper is first.helper


def test_a_script_that_changed_is_read_again(tmp_path: Path) -> None:
    path = script(tmp_path, "def f():\n    return 1\n")
    assert definitions(path, "f").f() == 1
    script(tmp_path, "def f():\n    return 1 + 1  # of another length\n")
    assert definitions(path, "f").f() == 2


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 3", "does not define f at its top level"),
        ("if 0 > 1:\n    def f(): return 3", "does not define f at its top level"),
        ("from nowhere_at_all import g\ndef f(): return g()", "raised ModuleNotFoundError"),
        ("def f(: pass", "raised SyntaxError"),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        definitions(script(tmp_path, source), "f")
