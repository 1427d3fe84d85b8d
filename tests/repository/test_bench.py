"""`python -m bench`: what becomes of the page."""

import sys
from pathlib import Path
from typing import Any

import pytest

from bench import __main__ as bench


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[set[str]]:
    """The measurements of every page that is written; none is made."""
    written: list[set[str]] = []
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path))
    monkeypatch.setattr(bench, "run", lambda name, repetitions: {"comparisons": ["one"], "numbers": {}})
    monkeypatch.setattr(bench, "write_page", lambda results, repetitions: written.append(set(results)))
    for name, made in (("table", ""), ("losses", []), ("draw", None)):
        monkeypatch.setattr(bench, name, lambda *given, made=made: made)
    return written


def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: str) -> int:
    places = ("--out", str(tmp_path / "bench.json"), "--figure", str(tmp_path / "bench.svg"))
    monkeypatch.setattr(sys, "argv", ["bench", *words, *places])
    return bench.main()


def test_a_page_has_every_measurement(
    pages: list[set[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measure(monkeypatch, tmp_path, "--page") == 0
    assert pages == [set(bench.BY_DEFAULT)]
    with pytest.raises(SystemExit, match="2"):
        measure(monkeypatch, tmp_path, "lds", "--page")
    assert "--page: the page has every measurement of a run; without NAME, or also board end_to_end" in (
        capsys.readouterr().err
    )
    assert measure(monkeypatch, tmp_path, "lds") == 0
    assert len(pages) == 1


def test_after_a_failed_measurement_the_page_stays(
    pages: list[set[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found: dict[str, Any] = {"comparisons": ["one"], "numbers": {}}
    monkeypatch.setattr(bench, "run", lambda name, repetitions: None if name == "lds" else found)
    assert measure(monkeypatch, tmp_path, "--page") == 1
    assert pages == []
    assert "the page stays as it is: a measurement failed" in capsys.readouterr().err
