"""`python -m bench.records make --sample` and `check`: what is drawn, and what a check finds."""

from pathlib import Path

import pytest
from leaderboard_records import LAMBDAS, make_record, make_selection
from remaking import TASK, Maker, names, remaking, unit_of, written

from attriboard.records.files import read_records, write_record
from attriboard.records.model import AttributionRecord
from attriboard.records.published import published_results
from bench import same_scores
from bench.code_digest import History
from bench.records import main, parse, summary
from bench.records_run import check, compared, sample
from bench.records_units import sampled


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two methods with scores, one with a use of them."""
    return written(tmp_path / "results")


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


def test_the_cheapest_unit_of_a_method_is_sampled_first_and_says_something_of_the_others(results: Path) -> None:
    for task, seconds in (("mnist_lr", 90.0), ("mnist_mlp", 20.0)):
        for value in LAMBDAS:
            point = {"variant": "sweep", "hyperparameters": {"regularization": value}}
            write_record(make_record("iffim", fit_seconds=seconds, task__name=task, **point), results)
    maker = Maker()
    list(remaking(results, "--sample", "1").make(maker, hours=1.0))
    assert maker.made == [
        f"{TASK}/grad_dot/scores", "mnist_mlp/iffim/scores", f"{TASK}/iffim/scores", "mnist_lr/iffim/scores"
    ]  # fmt: skip
    found = remaking(results)
    found._confirmed._samples.pop("mnist_lr/iffim/scores")
    (due,) = (due for due in found.due(found.units()) if due.unit.task == "mnist_lr")
    assert due.sample is None
    assert due.reason.endswith("; mnist_mlp/iffim/scores holds")
    assert "of 1 more a sample of the method elsewhere" in summary(found.due(found.units()), found.units())


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


@pytest.mark.parametrize("action", ["plan", "make", "check"])
@pytest.mark.parametrize(
    "asked", [("--task", "nosuch"), ("--method", "nosuch", "--method", "neither"), ("--kind", "nosuch")]
)
def test_what_matches_no_record_is_no_success(
    results: Path, capsys: pytest.CaptureFixture[str], action: str, asked: tuple[str, ...]
) -> None:
    assert main([action, *asked, "--results", str(results)]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"no record matches {' '.join(asked)} in {results}\n")


def test_a_check_that_would_run_nothing_is_no_success(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--task", TASK, "--max-seconds", "0.5", "--results", str(results)]) == 1
    assert capsys.readouterr().err == f"no record matches --task {TASK} --max-seconds 0.5 in {results}\n"


@pytest.mark.parametrize("count", ["0", "-1", "few"])
def test_a_sample_of_nothing_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(["check", f"--sample={count}"])
    assert f"--sample: {count}: must be a whole number, 1 or more" in capsys.readouterr().err


def test_scores_are_not_said_to_be_the_same_where_none_were_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class NoRunner:
        def __init__(self, *_: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(same_scores, "Runner", NoRunner)
    words = ["--against", "HEAD", "--checkout", str(same_scores.ROOT), "--tasks", TASK, "--methods", "trak"]
    assert same_scores.main([*words, "--at-most", "0"]) == 1
    assert capsys.readouterr().err == "nothing was compared; 1 cases left out\n"
