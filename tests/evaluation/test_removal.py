"""Data selection on the tiny task: every number against a plain twin, and what the store and the records save."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selecting
from selecting import GRID, make_job, write, write_ridge
from tiny import N_TRAIN, Published, TinyTask

from attriboard.attribution.runner import Runner
from attriboard.base.errors import InputError
from attriboard.evaluation.catalog import load_oracle
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.removal import RemovalBench, RemovalPlan
from attriboard.evaluation.selection import Study
from attriboard.evaluation.variants import VARIANTS, Part, attribute_parts, choose_parts, finished_parts
from attriboard.groundtruth.plan import removal_seed, shuffled_rows
from attriboard.leaderboard.plots.uses import draw_removal
from attriboard.leaderboard.removal_rows import latex_table, removal_rows
from attriboard.records.files import read_record, write_record
from attriboard.records.uses import RemovalRecord
from attriboard.retraining.engine import retrain
from attriboard.retraining.executors import InProcess
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore

pytestmark = pytest.mark.usefixtures("inline")
PLAN = RemovalPlan((0.5, 0.2), n_seeds=3)


def bench_of(published: Published, grader: Grader | None, folder: Path, plan: RemovalPlan = PLAN) -> RemovalBench:
    return RemovalBench(published.task, grader, plan, RetrainStore(folder, published.task.card.fingerprint))


def records_of(
    published: Published, grader: Grader | None, folder: Path, attributor: str | Path, plan: RemovalPlan = PLAN
) -> list[RemovalRecord]:
    bench = bench_of(published, grader, folder, plan)
    parts = [Part("default", None, {})]
    found = list(attribute_parts(make_job(published, attributor), parts, bench.rank))
    bench.retrain([a.made for a in found if a.made is not None], InProcess())
    return [bench.record(a) for a in found]


def accuracy(task: TinyTask, folder: Path, rows: np.ndarray, seed: int, points: np.ndarray) -> float:
    """One retrain in a store of its own."""
    request = RetrainRequest(rows, seed)
    store = RetrainStore(folder, task.card.fingerprint)
    retrain(task, [request], store)
    return float(store.read("outputs/correct", [request.digest(task.card.fingerprint)])[0, points].mean())


@pytest.mark.parametrize("direction", ["helpful", "harmful"])
def test_every_number_is_that_of_retraining_by_hand(
    published: Published, grader: Grader, tmp_path: Path, direction: Any
) -> None:
    plan = RemovalPlan((0.2, 0.5), 2, direction)
    (record,) = records_of(published, grader, tmp_path / "store", "grad_dot", plan)
    scores = []
    job = make_job(published, "grad_dot")
    list(attribute_parts(job, [Part("default", None, {})], lambda matrix: scores.append(matrix.copy())))
    sums = [sum(float(scores[0][p, i]) for p in grader.split.calibration) for i in range(N_TRAIN)]
    order = sorted(range(N_TRAIN), key=lambda i: -sums[i] if direction == "helpful" else sums[i])
    everything, points = np.arange(N_TRAIN), grader.split.scoring
    for s in range(2):
        seed = removal_seed(s)
        at = lambda rows: pytest.approx(accuracy(published.task, tmp_path / "own", rows, seed, points), abs=1e-6)  # noqa: B023, E731
        assert record.full["correct"][s] == at(everything)
        for point, n in zip(record.points, (9, 22), strict=True):
            assert point.n_removed == n
            assert point.measured["correct"][s] == at(np.array(sorted(order[n:])))
            assert point.random["correct"][s] == at(np.sort(shuffled_rows(published.task.card, s)[n:]))
    assert record.n_calibration + record.n_scoring == published.task.card.data.n_test
    assert record.retrain_seeds == (removal_seed(0), removal_seed(1))


def test_balanced_removal_leaves_every_class_its_share(published: Published, grader: Grader, tmp_path: Path) -> None:
    bench = bench_of(published, grader, tmp_path, RemovalPlan((0.2,), 1, balanced=True))
    targets = published.task.load_data().train.targets.numpy()
    ranking = bench.rank(np.random.default_rng(0).normal(size=(13, N_TRAIN)).astype(np.float32))
    for request in (*bench._ranked(ranking, 0.2), *bench._random(0.2)):
        assert np.bincount(targets[request.indices]).tolist() == [12, 12, 12]


def test_full_and_random_are_trained_once_for_all_and_a_second_run_trains_nothing(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    bench = bench_of(published, grader, tmp_path)
    rng = np.random.default_rng(1)
    one, other = (bench.rank(rng.normal(size=(13, N_TRAIN)).astype(np.float32)) for _ in range(2))
    assert (bench.retrain([one], InProcess()).asked, len(bench.store)) == (3 + 6 + 6, 15)
    work = bench.retrain([one, other, one], InProcess())
    assert (work.asked, work.done) == (21, 6)
    assert bench_of(published, grader, tmp_path).retrain([one, other], InProcess()).done == 0


def test_an_interrupted_run_goes_on(published: Published, grader: Grader, tmp_path: Path) -> None:
    """Ctrl-C after the first stack: what is finished is kept, the rest is done later."""
    bench = bench_of(published, grader, tmp_path)
    ranking = bench.rank(np.random.default_rng(2).normal(size=(13, N_TRAIN)).astype(np.float32))

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.retrain([ranking], InProcess(), stop)
    again = bench_of(published, grader, tmp_path)
    kept = len(again.store)
    assert 0 < kept < 15
    assert again.retrain([ranking], InProcess()).done == 15 - kept


def test_records_answer_the_same_plan_and_nothing_else(published: Published, grader: Grader, tmp_path: Path) -> None:
    (record,) = records_of(published, grader, tmp_path / "store", "grad_dot")
    assert read_record(write_record(record, tmp_path / "out")) == record
    job = make_job(published, "grad_dot")
    described = Runner().describe(job)
    parts = [Part("default", None, described.configurations[0])]

    def answered(plan: RemovalPlan = PLAN, parts: list[Part] = parts, **changes: Any) -> bool:
        bench = bench_of(published, grader, tmp_path / "store", plan)
        changed = job.model_copy(update=changes)
        return bool(finished_parts(changed, described, parts, [record], bench.answers))

    assert answered()
    assert not answered(RemovalPlan((0.2,), 3))
    assert not answered(RemovalPlan(PLAN.rates, 4))
    assert not answered(RemovalPlan(PLAN.rates, 3, "harmful"))
    assert not answered(RemovalPlan(PLAN.rates, 3, balanced=True))
    assert not answered(seed=1)
    assert not answered(parts=[Part("default", None, {"width": 1.0})])
    assert not bench_of(published, None, tmp_path / "store").answers(record)


def test_selection_is_made_once_and_then_known(published: Published, grader: Grader, tmp_path: Path) -> None:
    path = write_ridge(tmp_path)
    job = make_job(published, path)
    described = Runner().describe(job)
    studies: list[Study] = []

    def parts(records: list[Any], **changes: Any) -> list[Part]:
        changed = job.model_copy(update=changes)
        return choose_parts(
            published.task, grader, changed, described, VARIANTS, records, load_oracle(), keep=studies.append
        )

    first = parts([])
    assert [part.variant for part in first] == ["default", "selected", "oracle"]
    assert len(studies) == 1
    (selection,) = studies[0].selections
    assert dict(first[1].hyperparameters) == selection.selected.hyperparameters
    assert dict(first[2].hyperparameters) == selection.oracle.hyperparameters
    assert parts(studies[0].all_records) == first
    assert len(studies) == 1, "nothing is selected twice"
    parts(studies[0].all_records, seed=1)
    assert len(studies) == 2, "another seed is another question"


def test_without_ground_truth_the_selector_is_asked_alone(published: Published, tmp_path: Path) -> None:
    job = make_job(published, write_ridge(tmp_path))
    default, selected = choose_parts(published.task, None, job, Runner().describe(job), VARIANTS, [], load_oracle())
    assert (default.variant, selected.variant, selected.selector) == ("default", "selected", "surrogate")
    assert selected.hyperparameters["regularization"] in GRID
    (record,) = records_of(published, None, tmp_path / "store", tmp_path / "ridge.py", RemovalPlan((0.5,), 1))
    assert record.ground_truth is None


def test_a_method_without_lambda_has_its_default_alone(published: Published, grader: Grader, tmp_path: Path) -> None:
    job = make_job(published, write(tmp_path / "plain.py", selecting.PLAIN))
    parts = choose_parts(published.task, grader, job, Runner().describe(job), ("selected", "oracle"), [], load_oracle())
    assert [part.variant for part in parts] == ["default"]


def test_a_failure_is_a_record_and_a_row(published: Published, grader: Grader, tmp_path: Path) -> None:
    good = records_of(published, grader, tmp_path / "store", "grad_dot")
    bad = records_of(published, grader, tmp_path / "store", write_ridge(tmp_path, broken=(0.0,)))
    (record,) = bad
    assert (record.status, record.points, record.full) == ("failed", (), None)
    assert record.reason == "error: ZeroDivisionError: singular"
    rows = removal_rows([*good, *bad], PLAN.rates)
    assert [(row.attributor, row.variant, row.rate) for row in rows] == [
        (None, "full", 0.0), (None, "random", 0.2), (None, "random", 0.5),
        ("grad_dot", "default", 0.2), ("grad_dot", "default", 0.5),
        ("ridge", "default", 0.2), ("ridge", "default", 0.5),
    ]  # fmt: skip
    assert rows[-1].document()["status"] == "failed"
    assert rows[-1].document()["accuracy"] is None
    text = latex_table(rows, PLAN.rates, "tiny")
    assert text.count("failed") == 2
    assert r"grad\_dot & default & $" in text
    assert r" \pm " in text
    assert len({row["series"] for row in draw_removal(rows, "tiny")["layer"][0]["data"]["values"]}) == 2


def test_scores_that_are_nan_at_every_calibration_point_fail_with_the_reason(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    lost = grader.split.calibration.tolist()
    source = selecting.PLAIN.replace(
        "state.clone()", f"state.index_fill(0, __import__('torch').tensor({lost}), float('nan'))"
    )
    (record,) = records_of(published, grader, tmp_path / "store", write(tmp_path / "plain.py", source))
    assert record.status == "failed"
    assert record.reason.startswith("nan: scores of all")


def test_differences_to_the_default_are_paired_by_seed(published: Published, grader: Grader, tmp_path: Path) -> None:
    (default,) = records_of(published, grader, tmp_path / "store", "grad_dot")
    selected = default.model_copy(
        update={
            "variant": "selected",
            "points": tuple(
                p.model_copy(update={"measured": {k: tuple(x - 0.25 for x in v) for k, v in p.measured.items()}})
                for p in default.points
            ),
        }
    )
    rows = removal_rows([default, selected], PLAN.rates)
    differences = [row.document()["against_default"] for row in rows]
    assert differences[:5] == [None] * 5
    for difference in differences[5:]:
        assert difference["mean"] == pytest.approx(-0.25)
        assert difference["p"] < 1e-6


@pytest.mark.parametrize(("rates", "seeds"), [((), 3), ((0.5,), 0)])
def test_a_plan_needs_a_rate_and_a_seed(rates: tuple[float, ...], seeds: int) -> None:
    with pytest.raises(InputError, match="needs at least one of each"):
        RemovalPlan(rates, seeds)
