"""The way from nothing to an entry, as docs/submit.md has it, and what a pull request does with the result."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from checking.conftest import write_card

from attriboard.base.errors import InputError
from attriboard.checking import entries as module
from attriboard.checking.entries import broken_promise, draft_entry
from attriboard.checking.files import check_file
from attriboard.records.files import read_record, write_record
from attriboard.records.method_card import load_method_card
from attriboard.records.model import AttributionRecord
from attriboard.records.published import published_results

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGE = (ROOT / "docs" / "submit.md").read_text(encoding="utf-8")


def run(command: str, folder: Path, code: int = 0) -> str:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_from_nothing_to_a_checked_entry_by_the_page_alone(tmp_path):
    files = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.S))
    assert sorted(files) == ["method.yaml", "my_scores.py"]
    lines = [line for text in files.values() for line in text.splitlines() if line.strip()]
    commands = re.search(r"<!-- commands -->\n```\n(.*?)```", PAGE, re.S)[1].splitlines()
    assert len(lines) <= 15
    assert len(commands) == 4
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    printed = [run(command, tmp_path) for command in commands]
    assert re.search(r"class_neighbors on digits_mlp: LDS 0\.2\d\d, 95 % interval", printed[1])
    assert "ready: copy attriboard-entry/class_neighbors to leaderboard/entries/" in printed[2]
    assert printed[3] == "attriboard-entry/class_neighbors: a valid entry\n"
    assert "attriboard-entry/class_neighbors: method card, 1 record, 1 score matrix" in printed[2]
    named = run(f"{commands[2]} --verbose", tmp_path)
    assert "attriboard-entry/class_neighbors/method.yaml" in named
    again = run(commands[2], tmp_path)
    assert again == printed[2], "it can be run again"


def test_submit_says_everything_that_is_missing_at_once(tmp_path):
    said = run("attriboard submit", tmp_path, 2)
    assert "method card: none given; attriboard submit --template > method.yaml prints one to fill in" in said
    (tmp_path / "method.yaml").write_text(run("attriboard submit --template", tmp_path))
    said = run("attriboard submit --method method.yaml --scores missing.safetensors", tmp_path, 2)
    assert "authors: is missing: a list of names" in said
    assert "records: attriboard-results: no such file or folder" in said
    assert "scores: missing.safetensors: no such file" in said


def test_a_folder_that_is_somebodys_home_is_neither_read_through_nor_listed(tmp_path, monkeypatch):
    card = write_card(tmp_path / "method.yaml")
    for number in range(30):
        (tmp_path / f"{number}.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="records: and 10 more files that are no records") as caught:
        draft_entry(card, [tmp_path], [])
    assert str(caught.value).count("\n") < 25
    monkeypatch.setattr(module, "MAX_FILES", 29)
    with pytest.raises(InputError, match="more than 29 JSON files lie below it; name the folder of the records"):
        draft_entry(card, [tmp_path], [])


# What a pull request does


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """A repository that has the gate's script and one published entry."""
    folder = tmp_path / "repository"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "entry", folder / ".ci")
    old = folder / "leaderboard" / "entries" / "old_method"
    (old / "records").mkdir(parents=True)
    (old / "method.yaml").write_text("name: old_method\n")
    (old / "records" / "old.json").write_text("{}")
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "base")
    return folder


def gate(repository: Path, change, code: int) -> str:
    """Commit a change on a branch, go back to the base, and run the workflow's script."""
    git(repository, "checkout", "-qb", "entry")
    change(repository)
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "entry", "--allow-empty")
    git(repository, "checkout", "-q", "main")
    done = subprocess.run(
        [repository / ".ci" / "entry", "HEAD", "entry"],
        env=os.environ | {"ATTRIBOARD": str(BIN / "attriboard")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def test_a_pull_request_with_a_good_entry_passes(repository, made):
    place = repository / "leaderboard" / "entries" / made.folder.name
    said = gate(repository, lambda _: shutil.copytree(made.folder, place), 0)
    assert said == "leaderboard/entries/class_neighbours: a valid entry\n"


def test_a_pull_request_on_another_ground_truth_fails(repository, bare):
    bare.rewrite(lambda data: data.update(ground_truth=data["ground_truth"] | {"sha256": "0" * 64}))
    place = repository / "leaderboard" / "entries" / bare.folder.name
    assert "the current one has" in gate(repository, lambda _: shutil.copytree(bare.folder, place), 1)


OLD = "leaderboard/entries/old_method/records/old.json"
CHANGES = {
    "code beside it": (lambda r: (r / "setup.py").write_text(""), "setup.py: an entry comes alone"),
    "the gate itself": (lambda r: (r / ".ci" / "entry").write_text("exit 0"), ".ci/entry: an entry comes alone"),
    "code inside": (lambda r: (r / OLD).with_name("x.py").write_text(""), "an entry comes alone"),
    "an edited record": (lambda r: (r / OLD).write_text("{ }"), f"{OLD}: exists; records and scores are added"),
    "a removed record": (lambda r: (r / OLD).unlink(), f"{OLD}: exists; records and scores are added"),
    "a link": (lambda r: (r / OLD).with_name("new.json").symlink_to("/etc/passwd"), "mode 120000; must be a plain"),
    "a program": (lambda r: ((r / OLD).with_name("new.json").touch(0o755)), "mode 100755; must be a plain file"),
    "an odd name": (lambda r: (r / OLD).with_name("a\nb.json").touch(), "an entry comes alone"),
    "nothing": (lambda r: None, "nothing is added"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_pull_request_that_does_more_than_add_data_is_refused_before_anything_is_read(repository, name):
    change, message = CHANGES[name]
    before = (repository / OLD).read_text()
    assert message in gate(repository, change, 1)
    assert (repository / OLD).read_text() == before


def test_the_workflow_has_no_rights_and_runs_only_the_base(tmp_path):
    text = (ROOT / ".github" / "workflows" / "entry.yml").read_text()
    workflow = yaml.safe_load(text)
    assert set(workflow[True]) == {"pull_request"}, "never pull_request_target, which has secrets and a token"
    assert workflow["permissions"] == {"contents": "read"}
    assert "secrets" not in text.partition("permissions")[2]
    (job,) = workflow["jobs"].values()
    assert "permissions" not in job
    checkout = job["steps"][0]["with"]
    assert checkout["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert checkout["persist-credentials"] is False
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[-1] == ".ci/entry HEAD refs/remotes/origin/entry"
    assert not [command for command in commands if "${{" in command], "nothing of the event is pasted into a shell"
    assert not [command for command in commands if "checkout" in command or "merge" in command]


def test_every_published_entry_passes():
    folder = ROOT / "leaderboard" / "entries"
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        assert check_file(entry).ok, entry


def test_equal_warnings_are_one_line_unless_all_are_asked_for():
    from attriboard.checking.problems import Problem
    from attriboard.cli.check import _warnings

    found = [Problem(f"records/{name}.json", "taken on trust") for name in "abc"] + [Problem("method.yaml", "no paper")]
    found += [Problem(f"records/{name}.json", f"near-duplicate: of {name * 2}") for name in "ab"]
    assert _warnings(found, False) == [
        "records/a.json and 2 more (--verbose names them): taken on trust",
        "method.yaml: no paper",
        "records/a.json and 1 more (--verbose names them): near-duplicate: of aa",
    ]
    assert len(_warnings(found, True)) == 6


def test_an_entry_without_records_of_its_method_says_of_which_methods_they_are(tmp_path):
    card = write_card(tmp_path / "method.yaml", name="mine")
    (tmp_path / "results").mkdir()
    with pytest.raises(InputError, match="records: none was found; make one with attriboard score or attriboard run"):
        draft_entry(card, [tmp_path / "results"], [])
    path = next((published_results() / "digits_mlp" / "iffim").glob("*.json"))
    with pytest.raises(InputError, match="records: none of those given is of mine, they are of iffim; make one"):
        draft_entry(card, [path], [])


def test_a_card_that_promises_selected_hyperparameters_needs_a_record_that_has_them(tmp_path):
    default, selected = (
        next(
            record
            for path in (published_results() / "digits_mlp" / "iffim").glob("*.json")
            if isinstance(record := read_record(path), AttributionRecord) and record.variant == variant
        )
        for variant in ("default", "selected")
    )
    card = load_method_card(write_card(tmp_path / "method.yaml", name="iffim", protocol="selected", tuned_on="ξ"))
    assert "every record has default hyperparameters" in (broken_promise(card, [default]) or "")
    assert broken_promise(card, [default, selected]) is None
    assert broken_promise(load_method_card(write_card(tmp_path / "plain.yaml", name="iffim")), [default]) is None
    write_record(default, tmp_path / "results")
    with pytest.raises(InputError, match="add the records that attriboard select wrote"):
        draft_entry(tmp_path / "method.yaml", [tmp_path / "results"], [])
