"""The commands that retrain with `--executor`: their numbers, files and words are those of a run without a cluster."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_site import Site
from selecting import few_resamples, retrain_inline, run_inline
from tiny import small_digits_yaml
from typer.testing import CliRunner, Result

from attriboard.cli.app import app
from attriboard.evaluation import workspace
from attriboard.leaderboard.plots import charts
from attriboard.retraining import cluster
from attriboard.retraining.store import RetrainStore

Run = Callable[..., Result]
REMOVAL = ("removal", "random", "--rates", "0.5", "--seeds", "2")
SWEEP = ("sweep", "grad_dot", "--grid", "epoch=2", "--metric", "removal", "--seeds", "2", "--groundtruth", "truth")
BRITTLENESS = ("brittleness", "random", "--points", "2", "--seeds", "1", "--confirm", "1", "--largest", "0.01")

QLD = ("qld", "random", "--points", "2")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`attriboard COMMAND small_digits.yaml …` in a folder of its own, where all that it keeps is too."""
    run_inline(monkeypatch)
    monkeypatch.setattr(cluster, "BEAT_SECONDS", 0.3)
    few_resamples(monkeypatch)
    monkeypatch.setattr(charts, "save_figure", lambda figure, stem: stem)  # seconds that say nothing of clusters
    card = small_digits_yaml(tmp_path)

    def invoke(folder: str, command: str, *arguments: str, code: int = 0) -> Result:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / folder / "cache"))
        result = CliRunner().invoke(app, [*command.split(), str(card), *arguments, "--json"])
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


def comparable(result: Result) -> Any:
    document = json.loads(result.stdout)
    document.pop("seconds", None)
    document.get("retrains", {}).pop("seconds", None)
    return without_circumstances(document)


def without_circumstances(part: Any) -> Any:
    """A document without what differs between two runs of the same command: times, and who was where."""
    if isinstance(part, list):
        return [without_circumstances(each) for each in part]
    if not isinstance(part, dict):
        return part
    named = {"created", "provenance", "peak_bytes", "record", "figure", "latex", "ground_truth", "checkpoints_sha256"}
    return {
        name: without_circumstances(value)
        for name, value in part.items()
        if name not in named and not name.endswith("seconds")
    }


def test_commands_retrain_on_the_cluster_and_give_what_they_give_without_one(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up("one")
    build = ("groundtruth build", "--out", "truth")
    works = (REMOVAL, BRITTLENESS, QLD, SWEEP)
    monkeypatch.setattr(workspace, "LocalProcesses", None)  # nothing may be trained on this side
    run("there", *build, "--executor", site.address)
    there = [run("there", *work, "--executor", site.address) for work in works]
    retrain_inline(monkeypatch)
    run("here", *build)
    here = [run("here", *work) for work in works]
    assert list(map(comparable, there)) == list(map(comparable, here))
    assert all(json.loads(result.stdout)["retrains"]["done"] for result in there)
    for result, shown in zip(there, ("retrains", "full-data models", "retrains", "retrains"), strict=True):
        assert re.search(f"{shown} of small_digits: .*1 worker, ", result.stderr)
    assert "worker" not in "".join(result.stderr for result in here)


def test_checkpoints_that_nobody_published_are_trained_on_the_cluster_too(
    run: Run, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up("one")
    monkeypatch.setattr(workspace, "LocalProcesses", None)
    result = run("bare", *REMOVAL, "--executor", site.address)
    assert re.search("checkpoints of small_digits: .*1 worker, ", result.stderr)
    assert len(list((tmp_path / "bare" / "cache" / "checkpoints").iterdir())) == 1


def test_a_scheduler_that_is_lost_ends_the_command_and_what_was_trained_is_not_trained_again(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.up("one")
    retrain_inline(monkeypatch)
    one, two = (*REMOVAL[:-1], "1"), REMOVAL
    run("lost", *one)
    add = RetrainStore.add

    def add_and_kill(store: RetrainStore, content: bytes) -> int:
        added = add(store, content)
        site.kill("scheduler")
        return added

    monkeypatch.setattr(RetrainStore, "add", add_and_kill)
    lost = json.loads(run("lost", *two, "--executor", site.address, code=1).stdout)
    expected = f"the connection to the dask scheduler {site.address} is lost; finished retrains are kept"
    assert expected in lost["error"]
    monkeypatch.setattr(RetrainStore, "add", add)
    assert 1 <= json.loads(run("lost", *two).stdout)["retrains"]["done"] < 3, "two stacks, of one and two retrains"


@pytest.mark.parametrize("work", [REMOVAL, SWEEP, BRITTLENESS, QLD], ids=lambda work: work[0])
def test_a_scheduler_that_does_not_answer_is_told_before_anything_is_attributed(
    run: Run, work: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nobody" / "truth").mkdir(parents=True)
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    result = run("nobody", *work, "--executor", "tcp://127.0.0.1:1", code=2)
    assert (
        "no dask scheduler answers within 0.2 s; start one with: dask scheduler" in json.loads(result.stdout)["error"]
    )
