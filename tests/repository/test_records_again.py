"""`python -m bench.records make`: what is due, what supersedes, and where it goes on after a stop."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generated import ROOT
from leaderboard_records import LAMBDAS, make_record, make_selection, make_use
from remaking import BUNDLES, HISTORY, NEW, OLD, TASK, Maker, bundle, names, remaking, unit_of, written
from selecting import few_resamples, run_inline

from attriboard.base.errors import InputError
from attriboard.leaderboard.reading import read_entries
from attriboard.leaderboard.study import studies
from attriboard.records.files import AnyRecord, read_records, write_record
from attriboard.records.model import AttributionRecord
from bench.code_digest import FOLDERS, History
from bench.records_confirmed import Confirmed
from bench.records_plan import changed_inputs, plan
from bench.records_run import TOLERANCE, make, outcome, tolerance
from bench.records_units import SCORES, Unit, current_records, paths_of_scores, unit_code, units


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods with scores, one with a use of them."""
    return written(tmp_path / "results")


def test_what_nobody_ran_again_is_due_and_the_cheapest_comes_first(results: Path) -> None:
    assert names(remaking(results)) == [f"{TASK}/grad_dot/scores", f"{TASK}/iffim/scores"]


def test_what_holds_stays_and_is_not_due_again(results: Path) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    maker = Maker()
    lines = list(remaking(results).make(maker, hours=1.0))
    assert maker.made == [f"{TASK}/grad_dot/scores", f"{TASK}/iffim/scores"]
    assert sum("the records hold" in line for line in lines) == 2
    assert {path: path.read_bytes() for path in results.rglob("*.json")} == before
    assert list(remaking(results).make(Maker(), hours=1.0)) == ["nothing is left"]


def test_scores_that_moved_supersede_and_make_their_uses_due(results: Path) -> None:
    maker = Maker(moved=0.1)
    lines = list(remaking(results, "--method", "grad_dot").make(maker, hours=1.0))
    assert maker.made == [f"{TASK}/grad_dot/scores", f"{TASK}/grad_dot/removal"]
    assert any("LDS 0.3" in line and "→ 0.4" in line for line in lines)
    study = studies(read_entries([results]), [])[TASK]
    assert study.methods["grad_dot"].variants["default"].record.created == NEW
    assert [use.record.created for use in study.methods["grad_dot"].newest_uses.values()] == [NEW]
    grad_dot = [record for record in read_records(results) if record.attributor.name == "grad_dot"]
    assert sorted(record.created for record in grad_dot) == [OLD, OLD, NEW, NEW]  # the old ones stay readable
    assert not names(remaking(results, "--method", "grad_dot"))


@pytest.mark.parametrize("sample", [(), ("--sample", "2")])
def test_where_memory_is_short_nothing_is_written(results: Path, sample: tuple[str, ...]) -> None:
    def starved(unit: Unit) -> list[AnyRecord]:
        reason = "out_of_memory: needs 9.1 GB (the kernel 9.0 GB); 2.0 GB are free"
        return [make_record(unit.method, status="failed", reason=reason, created=NEW)]

    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    lines = list(remaking(results, "--method", "iffim", *sample).make(starved, hours=1.0))
    assert any("not made: out_of_memory: needs 9.1 GB" in line and "more memory is free" in line for line in lines)
    assert {path: path.read_bytes() for path in results.rglob("*.json")} == before
    assert f"{TASK}/iffim/scores" in names(remaking(results))


def test_what_failed_before_may_fail_for_memory(tmp_path: Path) -> None:
    """As one that no machine has memory for, by another rule then."""
    results = tmp_path / "results"
    reason = "not_applicable: takes 287.2 GB; the limit is half of the free memory, 9.2 GB"
    write_record(make_record(status="failed", reason=reason, fit_seconds=None), results)
    starved = make_record(status="failed", reason="out_of_memory: needs 298.3 GB", fit_seconds=None, created=NEW)
    lines = list(remaking(results).make(lambda unit: [starved], hours=1.0))
    assert any("the records hold" in line for line in lines)


@pytest.mark.parametrize("before", ["timeout: not finished after 900 s", None])
def test_what_did_not_fail_for_memory_may_not_now(before: str | None, tmp_path: Path) -> None:
    """Not by a time limit, nor where only another configuration failed for memory."""
    results = tmp_path / "results"
    short = "out_of_memory: needs 298.3 GB; 2.0 GB are free"
    if before is None:
        other = {"variant": "sweep", "hyperparameters": {"regularization": 1e3}}
        write_record(make_record(**other, status="failed", reason=short, fit_seconds=None), results)
        write_record(make_record(), results)
    else:
        write_record(make_record(status="failed", reason=before, fit_seconds=None), results)
    starved = make_record(status="failed", reason=short, fit_seconds=None, created=NEW)
    lines = list(remaking(results).make(lambda unit: [starved], hours=1.0))
    assert any("not made: out_of_memory" in line for line in lines)


def test_a_stopped_run_goes_on_where_it_stopped(results: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(remaking(results).make(Maker(stop_after=1), hours=1.0))
    maker = Maker()
    list(remaking(results).make(maker, hours=1.0))
    assert maker.made == [f"{TASK}/iffim/scores"]


def test_what_does_not_fit_into_the_hours_is_left(results: Path) -> None:
    maker = Maker()
    *_, last = remaking(results).make(maker, hours=20 / 3600)
    assert maker.made == [f"{TASK}/grad_dot/scores"]
    assert last.startswith("1 units left")


def test_time_that_passed_counts_against_the_hours(results: Path) -> None:
    ticks = iter([0.0, 0.0, 0.0, 70.0, 70.0])
    maker = Maker()
    list(remaking(results).make(maker, hours=100 / 3600, clock=lambda: next(ticks)))
    assert maker.made == [f"{TASK}/grad_dot/scores"]


def test_a_unit_that_cannot_be_made_does_not_keep_others_from_it(results: Path) -> None:
    made = Maker()

    def maker(unit: Unit) -> Sequence[AnyRecord]:
        if unit.method == "grad_dot":
            raise InputError("grad_dot: not here")
        return made(unit)

    lines = list(remaking(results).make(maker, hours=1.0))
    assert any("not made: grad_dot: not here" in line for line in lines)
    assert made.made == [f"{TASK}/iffim/scores"]
    assert names(remaking(results)) == [f"{TASK}/grad_dot/scores"]


def test_older_records_are_made_again_on_demand_and_superseded_even_where_they_hold(results: Path) -> None:
    list(remaking(results).make(Maker(), hours=1.0))
    maker = Maker()
    list(remaking(results, "--before", "2025-12-01T00:00:00Z", "--kind", SCORES).make(maker, hours=1.0))
    assert maker.made == [f"{TASK}/grad_dot/scores", f"{TASK}/iffim/scores"]
    assert not names(remaking(results, "--before", "2025-12-01T00:00:00Z", "--kind", SCORES))


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("groundtruth", {"sha256": "ee" * 32}, "inputs: other ground truth"),
        ("groundtruth", {"fingerprint": "ee" * 32, "version": 2}, "inputs: another version of the task"),
        ("checkpoints", {"sha256": "ee" * 32}, "inputs: other checkpoints"),
    ],
)
def test_changed_inputs_are_due_first_and_for_sure(
    results: Path, tmp_path: Path, kind: str, changes: dict[str, Any], reason: str
) -> None:
    bundles = BUNDLES | {(TASK, kind, ""): bundle(kind, **({"sha256": BUNDLES[TASK, kind, ""].sha256} | changes))}
    every = units(read_records(results), {})
    found = plan(every, Confirmed(tmp_path / "confirmed.json"), bundles, HISTORY)
    assert {due.reason for due in found} == {reason}
    assert all(due.certain for due in found)
    assert len(found) == len(every)  # uses, too
    assert changed_inputs(every[0], BUNDLES) is None


def test_other_code_is_due_again_and_what_was_made_with_it_is_not(results: Path, tmp_path: Path) -> None:
    (unit,) = units([make_record("grad_dot")], {})
    confirmed = Confirmed(tmp_path / "confirmed.json")
    confirmed.add(unit.name, unit_code(unit), NEW, moved=False)
    assert plan([unit], Confirmed(tmp_path / "confirmed.json"), BUNDLES, HISTORY) == []
    confirmed.add(unit.name, "0" * 64, NEW, moved=False)
    (due,) = plan([unit], confirmed, BUNDLES, HISTORY)
    assert (due.reason, due.certain) == (f"code: changed since {NEW}", False)


def test_records_on_the_ground_truths_of_two_questions_are_two_units_each_with_its_own_bundle() -> None:
    small = make_record(ground_truth__question="1pct-same", ground_truth__sha256="5a" * 32)
    assert len(current_records([make_record(), small])) == 2
    usual, other = units([make_record(), small], {})
    assert [unit.name for unit in (usual, other)] == [f"{TASK}/iffim/scores", f"{TASK}/iffim/scores/1pct-same"]
    bundles = BUNDLES | {(TASK, "groundtruth", "1pct-same"): bundle("groundtruth", "5a" * 32, question="1pct-same")}
    assert [changed_inputs(unit, bundles) for unit in (usual, other)] == [None, None]
    assert changed_inputs(replace(usual, question="1pct-same"), bundles) == "inputs: other ground truth"


def test_uses_without_scores_beside_them_are_due_like_scores(tmp_path: Path) -> None:
    (due,) = plan([unit_of(make_use("mislabel"))], Confirmed(tmp_path / "confirmed.json"), BUNDLES, HISTORY)
    assert due.reason.startswith("code: changed since 20")


def test_the_newest_record_of_a_question_counts_and_choices_are_one_question() -> None:
    old, new = (make_record(created=created) for created in (OLD, NEW))
    chosen = [
        make_record(
            variant="selected", selector="surrogate", created=created, hyperparameters={"regularization": value}
        )
        for created, value in ((OLD, 0.1), (NEW, 0.2))
    ]
    negated = {"record": old.id, "attributor": "iffim", "hyperparameters": {}}
    others = [make_record("own", attributor__origin="file"), make_record("sign_flipped", negates=negated)]
    assert {record.id for record in current_records([new, old, *chosen, *others])} == {new.id, chosen[1].id}


def test_a_selection_makes_the_points_on_its_path_and_selectors_of_other_values_join_it() -> None:
    start = {"regularization": 0.0}
    default = make_record(hyperparameters=start)
    path = [make_record(hyperparameters={"regularization": value}, variant="sweep") for value in LAMBDAS]
    other = make_record(hyperparameters={"regularization": 0.123}, variant="sweep")
    by_size = make_selection(
        selector="effective_dimension", hyperparameter="projection_dim", candidates=[64.0, 128.0],
        criterion=None, objective=None, created=NEW,
    )  # fmt: skip
    unit = unit_of(default, *path, other, by_size, make_selection())
    (chosen, covered), (none, left) = paths_of_scores(unit)
    assert [record.selector for record in chosen] == ["surrogate", "effective_dimension"]
    assert {record.id for record in covered} == {record.id for record in (default, *path)}
    assert (none, left) == ([], [other])


def test_a_change_within_the_tolerance_of_a_method_is_none() -> None:
    for method, allowed in (("grad_dot", tolerance("grad_dot")), ("trak", TOLERANCE)):
        unit = unit_of(make_record(method, 0.4))
        assert not outcome(unit, [make_record(method, 0.4 + 0.9 * allowed)]).moved
        again = make_record(method, 0.4 + 1.1 * allowed)
        found = outcome(unit, [again])
        assert found.scores_moved
        assert found.news == (again,)


def test_another_choice_moves_a_selection_and_leaves_scores_alone() -> None:
    old = [make_record(), make_selection()]
    again = [make_record(created=NEW), make_selection(selected={"hyperparameters": {}, "lds": 0.3}, created=NEW)]
    found = outcome(unit_of(*old), again)
    assert [text.partition(", ")[2] for text in found.moved] == [
        "selector surrogate: LDS of the selected 0.5000 → 0.3000"
    ]
    assert (found.news, found.scores_moved) == ((again[1],), False)


@pytest.mark.parametrize(("load", "timed"), [(0.0, True), (9.0, False)])
def test_records_of_a_busy_machine_have_no_times(monkeypatch: pytest.MonkeyPatch, load: float, timed: bool) -> None:
    monkeypatch.setattr("bench.records_run.load", lambda: load)
    monkeypatch.setattr("bench.records_run.usable_cores", lambda: 2)
    run_inline(monkeypatch)
    few_resamples(monkeypatch)
    (scores,) = units([make_record("random", hyperparameters={})], {})
    (record,) = make(scores, 1)
    assert isinstance(record, AttributionRecord)
    assert [seconds is not None for seconds in (record.fit_seconds, record.score_seconds)] == [timed, timed]
    assert record.peak_bytes


def test_a_failure_is_compared_like_a_number() -> None:
    worked, failed = make_record(), make_record(status="failed", reason="nan: 3 of 500 rows")
    assert "→ failed" in outcome(unit_of(worked), [failed]).moved[0]
    assert "failed →" in outcome(unit_of(failed), [worked]).moved[0]
    assert not outcome(unit_of(failed), [make_record(status="failed", reason="nan: 4 of 500 rows")]).moved


def test_records_of_a_commit_with_todays_code_are_not_due(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(tmp_path / "repository"), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / "repository" / folder)
    git("init", "-q")
    commits = []
    for text in ("# another comment", "EXTRA = 1"):
        with (tmp_path / "repository" / "benchmark" / "scoring" / "lds.py").open("a", encoding="utf-8") as file:
            file.write(f"{text}\n")
        git("add", ".")
        git("commit", "-q", "-m", text)
        commits.append(git("rev-parse", "HEAD"))

    def due(commit: str, *, dirty: bool = False) -> list[str]:
        record = make_record("grad_dot", provenance__git={"commit": commit, "dirty": dirty})
        history = History(tmp_path / "repository" / "attributors")
        return [d.reason for d in plan([unit_of(record)], Confirmed(tmp_path / "none.json"), BUNDLES, history)]

    assert due(commits[0]) == []
    changed = f"code: changed since {make_record().created}"
    assert due(commits[1]) == [changed]
    assert due(commits[0], dirty=True) == [changed]
    assert due("0" * 40) == [changed]
