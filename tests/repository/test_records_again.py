"""`python -m bench.records`: what is due, what supersedes, what a check finds, and where it goes on after a stop."""

import argparse
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from generated import ROOT
from leaderboard_records import LAMBDAS, make_record, make_removal, make_selection, make_use
from selecting import few_resamples, run_inline

from attriboard.base.errors import InputError
from attriboard.groundtruth.listing import BundleEntry
from attriboard.leaderboard.reading import read_entries
from attriboard.leaderboard.study import studies
from attriboard.records.files import AnyRecord, read_records, write_record
from attriboard.records.model import AttributionRecord
from attriboard.records.published import published_results
from bench.code_digest import FOLDERS, History
from bench.records import Remaking, parse, summary
from bench.records_plan import (
    SCORES,
    Confirmed,
    Unit,
    changed_inputs,
    current_records,
    paths_of_scores,
    plan,
    sampled,
    unit_code,
    units,
)
from bench.records_run import TOLERANCE, check, compared, make, outcome, sample, tolerance

TASK = "digits_mlp"
TRUTH, CHECKPOINTS = "c0" * 32, "cd" * 32
HISTORY = History(Path(__file__).parent)
OLD, NEW = "2025-11-24T21:05:00Z", "2026-01-01T00:00:00Z"


def bundle(kind: str, sha256: str, **changes: Any) -> BundleEntry:
    fingerprint = make_record().task.fingerprint
    fields = {"task": TASK, "version": 1, "fingerprint": fingerprint, "kind": kind, "file": f"{kind}.safetensors"}
    return BundleEntry.model_validate(fields | {"sha256": sha256, "bytes": 9} | changes)


BUNDLES = {
    (TASK, "groundtruth", ""): bundle("groundtruth", TRUTH),
    (TASK, "checkpoints", ""): bundle("checkpoints", CHECKPOINTS),
}


def options(*arguments: str) -> argparse.Namespace:
    return parse(["make", *arguments])


def unit_of(*records: AnyRecord) -> Unit:
    (unit,) = units(records, {})
    return unit


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods with scores, one with a use of them."""
    folder = tmp_path / "results"
    for record in (
        make_record("grad_dot", 0.3, fit_seconds=5.0),
        make_record("iffim", 0.4, fit_seconds=50.0),
        make_removal("grad_dot"),
    ):
        write_record(record, folder)
    return folder


class Maker:
    """Makes every record again, later, with scores that moved by so much; stops when it has made some units."""

    def __init__(self, moved: float = 0.0, stop_after: int = 99) -> None:
        self.moved, self.left, self.made = moved, stop_after, list[str]()

    def __call__(self, unit: Unit) -> Sequence[AnyRecord]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.made.append(unit.name)
        return [self._again(record) for record in unit.records]

    def _again(self, record: AnyRecord) -> AnyRecord:
        if isinstance(record, AttributionRecord):
            assert record.lds is not None
            level = {"grad_dot": 0.3, "iffim": 0.4}[record.attributor.name] + self.moved
            return make_record(record.attributor.name, level, created=NEW, fit_seconds=record.fit_seconds)
        return make_removal(record.attributor.name, created=NEW)


def remaking(results: Path, *arguments: str) -> Remaking:
    return Remaking(results, results.parent / "confirmed.json", BUNDLES, {TASK: 1.0}, options(*arguments))


def names(found: Remaking) -> list[str]:
    return [due.unit.name for due in found.due(found.units())]


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
    write_record(make_record(status="failed", reason="not_applicable: takes 287.2 GB", fit_seconds=None), results)
    starved = make_record(status="failed", reason="out_of_memory: needs 298.3 GB", fit_seconds=None, created=NEW)
    lines = list(remaking(results).make(lambda unit: [starved], hours=1.0))
    assert any("the records hold" in line for line in lines)


def test_a_stopped_run_goes_on_where_it_stopped(results: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(remaking(results).make(Maker(stop_after=1), hours=1.0))
    maker = Maker()
    list(remaking(results).make(maker, hours=1.0))
    assert maker.made == [f"{TASK}/iffim/scores"]


def test_a_unit_whose_records_were_all_in_a_sample_that_holds_is_not_due(results: Path) -> None:
    list(remaking(results, "--sample", "2", "--method", "iffim").make(Maker(), hours=1.0))
    assert f"{TASK}/iffim/scores" not in names(remaking(results))


def test_a_sample_of_a_unit_that_holds_puts_it_last_and_makes_no_record(results: Path) -> None:
    for value in LAMBDAS:
        write_record(make_record("iffim", variant="sweep", hyperparameters={"regularization": value}), results)
    before = {path: path.read_bytes() for path in results.rglob("*.json")}
    maker = Maker()
    lines = list(remaking(results, "--sample", "2", "--method", "iffim").make(maker, hours=1.0))
    assert maker.made == [f"{TASK}/iffim/scores"]
    assert any("2 records hold" in line for line in lines)
    assert {path: path.read_bytes() for path in results.rglob("*.json")} == before
    first, last = remaking(results).due(remaking(results).units())
    assert (first.unit.method, first.sample) == ("grad_dot", None)
    assert last.reason.endswith("; 2 of its records hold")
    assert "2 of 3 units are due" in summary([first, last], remaking(results).units())
    assert "of 1 a sample holds" in summary([first, last], remaking(results).units())
    again = Maker()
    list(remaking(results, "--sample", "2", "--method", "iffim").make(again, hours=1.0))
    assert not again.made
    list(remaking(results, "--method", "iffim").make(again, hours=1.0))  # in full, it is not due any more
    assert again.made == [f"{TASK}/iffim/scores"]
    assert names(remaking(results, "--method", "iffim")) == []


def test_a_sample_that_moved_says_so_and_leaves_the_unit_due(results: Path) -> None:
    lines = list(remaking(results, "--sample", "3", "--method", "grad_dot").make(Maker(moved=0.1), hours=1.0))
    assert any("LDS 0.3" in line and "→ 0.4" in line for line in lines)
    (due,) = remaking(results, "--method", "grad_dot").due(remaking(results, "--method", "grad_dot").units())
    assert due.sample is None
    assert len(read_records(results)) == 3


def test_a_sample_has_the_default_the_best_and_no_time_limits() -> None:
    points = [make_record("iffim", level, variant="sweep", hyperparameters={"regularization": level})
              for level in (0.1, 0.5, 0.2)]  # fmt: skip
    hurried = make_record(status="failed", reason="timeout: not finished after 900 s", fit_seconds=None)
    unit = unit_of(hurried, *points, make_record("iffim", 0.05), make_selection())
    part = sampled(unit, 2, {})
    assert part is not None
    assert {r.variant for r in part.records} == {"default", "sweep"}
    levels = sorted(r.lds.mean for r in part.records if isinstance(r, AttributionRecord) and r.lds)
    assert levels == pytest.approx([0.05, 0.5], abs=0.01)
    assert sampled(unit, 9, {}) == sampled(unit_of(*unit.records[::-1]), 9, {})
    assert sampled(unit_of(hurried), 3, {}) is None


def test_what_does_not_fit_into_the_hours_is_left(results: Path) -> None:
    maker = Maker()
    *_, last = remaking(results).make(maker, hours=20 / 3600)
    assert maker.made == [f"{TASK}/grad_dot/scores"]
    assert last.startswith("1 units left")


@pytest.mark.parametrize(
    "reason",
    [
        "timeout: not finished after 900 s",
        "timeout: needs at least 2,918 s (rotations 1.1e+14 operations, at 37·10⁹ a second); the limit is 900 s",
    ],
)
def test_what_ran_into_a_time_limit_is_expected_to_take_that_long_again_and_is_in_no_sample(reason: str) -> None:
    unit = unit_of(make_record(status="failed", reason=reason, fit_seconds=None))
    assert unit.seconds == pytest.approx(900, abs=10)
    assert sampled(unit, 3, {}) is None


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


def test_a_check_wants_the_bits_where_nothing_explains_others() -> None:
    record, other_bits = make_record(), make_record(scores_sha256="ac" * 32)
    assert compared(record, make_record(), same_code=True).remark == "the same bits"
    assert "nothing that could explain them" in (compared(record, other_bits, same_code=True).problem or "")
    assert compared(record, other_bits, same_code=False).remark.endswith("other code")
    for changes in (
        {"provenance__hardware__cpu": "Another"},
        {"provenance__threads": 1},
        {"provenance__packages": {"torch": "2.14.0", "numpy": "2.4.6"}},
    ):
        checked = compared(record, make_record(scores_sha256="ac" * 32, **changes), same_code=True)
        assert checked.problem is None
        assert "other" in checked.remark


def test_a_check_refuses_what_moved_by_more_than_the_tolerance_on_any_machine() -> None:
    again = make_record("trak", 0.41, scores_sha256="ac" * 32, provenance__hardware__cpu="Another")
    assert "lds.mean" in (compared(make_record("trak", 0.4), again, same_code=False).problem or "")


def test_a_check_knows_the_code_of_the_commit_that_made_a_record() -> None:
    """Not that of the attributor's own file: scores come from shared code too."""
    published = next(
        record
        for record in read_records(published_results() / TASK / "random")
        if isinstance(record, AttributionRecord) and not record.ground_truth.question
    )
    no_repository = History(Path("/"))
    (checked,) = check([published.model_copy(update={"scores_sha256": "ac" * 32})], no_repository)
    assert checked.problem is None
    assert "code" in checked.remark.rpartition("other ")[2].split(", ")


def test_a_sample_follows_from_its_seed_is_cheap_and_spreads_over_methods() -> None:
    many = [make_record("iffim", variant="sweep", hyperparameters={"regularization": value}) for value in LAMBDAS]
    slow = make_record("trak", fit_seconds=100.0)
    hurried = make_record("if_cg", status="failed", reason="timeout: not finished after 300 s", fit_seconds=None)
    records = [*many, make_record("grad_dot"), slow, hurried, make_selection()]
    assert sample(records, 3, "a", 60) == sample(records[::-1], 3, "a", 60)
    assert {tuple(r.id for r in sample(many, 3, str(seed), 60)) for seed in range(9)} != {()}
    assert {record.attributor.name for record in sample(records, 2, "b", 60)} == {"iffim", "grad_dot"}
    assert len(sample(records, 99, "c", 60)) == len(many) + 1


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
