"""Brittleness on the tiny task, against retraining by hand, and what the store and the records save."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selecting import make_job
from tiny import N_TEST, N_TRAIN, Published

from attriboard.attribution.runner import Runner
from attriboard.base.errors import InputError
from attriboard.evaluation.brittleness import BrittlenessBench, BrittlenessPlan
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.variants import Part, attribute_parts, finished_parts
from attriboard.groundtruth.plan import removal_seed
from attriboard.leaderboard.plots.uses import draw_brittleness
from attriboard.leaderboard.removal_rows import compare_brittleness
from attriboard.records.files import read_record, write_record
from attriboard.records.uses import BrittlenessRecord
from attriboard.retraining.engine import retrain
from attriboard.retraining.executors import InProcess
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.store import RetrainStore

pytestmark = pytest.mark.usefixtures("inline")
PLAN = BrittlenessPlan(n_points=3, largest=0.9, n_seeds=3, n_confirm=2)


def bench_of(
    published: Published, grader: Grader | None, folder: Path, plan: BrittlenessPlan = PLAN
) -> BrittlenessBench:
    bench = BrittlenessBench(published.task, grader, plan, RetrainStore(folder, published.task.card.fingerprint))
    bench.choose_points(InProcess())
    return bench


def correct(published: Published, store: RetrainStore, rows: np.ndarray, seeds: range, point: int) -> list[bool]:
    requests = [RetrainRequest(rows, removal_seed(s)) for s in seeds]
    retrain(published.task, requests, store)
    read = store.read("outputs/correct", [r.digest(published.task.card.fingerprint) for r in requests])
    return (read[:, point] == 1).tolist()


def test_points_are_scoring_points_that_every_full_model_gets_right(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    bench = bench_of(published, grader, tmp_path)
    assert len(set(bench.points)) == 3
    assert set(bench.points) <= set(grader.split.scoring.tolist())
    for point in bench.points:
        assert all(correct(published, bench.store, np.arange(N_TRAIN), range(10), point))
    again = bench_of(published, grader, tmp_path)
    assert (again.points, again.work.done) == (bench.points, 0)
    assert (again.work.asked, bench.work.asked, bench.work.done) == (10, 10, 10)


def test_every_size_found_is_a_flip_by_the_majority_and_the_one_below_is_none(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    bench = bench_of(published, grader, tmp_path)
    # Scores that remove the point's own class first: they flip.
    data = published.task.load_data()
    same = (data.test.targets[:, None] == data.train.targets[None, :]).float().numpy()
    helpful, useless = bench.order(same), bench.order(np.zeros((N_TEST, N_TRAIN), np.float32))
    (found, other) = bench.search([helpful, useless], InProcess())
    assert [p.test_point for p in found] == [p.test_point for p in other] == list(bench.points)
    assert all(p.n_removed is not None for p in found)
    for point in found:
        order = np.argsort(-same[point.test_point], kind="stable")
        at = correct(published, bench.store, np.sort(order[point.n_removed :]), range(3), point.test_point)
        assert (at.count(False), point.flipped) == (point.flipped, at.count(False))
        assert at.count(False) >= 2
        fresh = correct(published, bench.store, np.sort(order[point.n_removed :]), range(1000, 1002), point.test_point)
        assert point.confirmed == fresh.count(False)
        below = correct(published, bench.store, np.sort(order[point.not_enough :]), range(3), point.test_point)
        assert below.count(False) <= 1
    done = bench.work.done
    assert bench.work.asked == done, "nothing was in the store"
    assert bench.search([helpful, useless], InProcess()) == [found, other]
    assert bench.work.done == done, "nothing is trained twice"


def record_of(published: Published, grader: Grader | None, folder: Path, attributor: str = "grad_dot") -> Any:
    bench = bench_of(published, grader, folder)
    job = make_job(published, attributor)
    (attributed,) = attribute_parts(job, [Part("default", None, {})], bench.order)
    (points,) = bench.search([attributed.made], InProcess())
    return bench, job, bench.record(attributed, points)


def test_a_record_keeps_every_point_and_answers_the_same_plan(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    bench, job, record = record_of(published, grader, tmp_path / "store")
    assert isinstance(record, BrittlenessRecord)
    assert read_record(write_record(record, tmp_path / "out")) == record
    described = Runner().describe(job)
    part = Part("default", None, described.configurations[0])
    assert finished_parts(job, described, [part], [record], bench.answers) == {"default": record}
    for plan in (BrittlenessPlan(3, 0.5, 3, 2), BrittlenessPlan(3, 0.9, 1, 2), BrittlenessPlan(2, 0.9, 3, 2)):
        assert not bench_of(published, grader, tmp_path / "store", plan).answers(record)
    found = [p.n_removed for p in record.points]
    assert record.share_flipped == sum(n is not None for n in found) / 3
    middle = sorted(n or np.inf for n in found)[1]
    assert record.median_removed == (middle if np.isfinite(middle) else None)
    assert {row["series"] for row in draw_brittleness([record])["layer"][0]["data"]["values"]} == {"grad_dot, default"}


def test_points_with_nan_are_left_out_and_counted(published: Published, grader: Grader, tmp_path: Path) -> None:
    bench = bench_of(published, grader, tmp_path)
    scores = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN)).astype(np.float32)
    scores[bench.points[1], 0] = np.nan
    orders = bench.order(scores)
    (points,) = bench.search([orders], InProcess())
    assert [p.test_point for p in points] == [bench.points[0], bench.points[2]]
    scores[list(bench.points)] = np.inf
    with pytest.raises(InputError, match="all 3 points have NaN"):
        bench.order(scores)


def test_fewer_removals_than_the_default_are_counted_with_the_sign_test(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    _, _, record = record_of(published, grader, tmp_path)
    sizes = record.sizes

    def with_sizes(*found: int | None) -> BrittlenessRecord:
        points = tuple(
            p.model_copy(update={"n_removed": n, "not_enough": 0}) for p, n in zip(record.points, found, strict=True)
        )
        return record.model_copy(update={"points": points})

    one, other = with_sizes(sizes[0], sizes[1], None), with_sizes(sizes[1], None, None)
    assert compare_brittleness(one, other) == {"fewer": 2, "more": 0, "p": 0.5}
    assert compare_brittleness(one, one) == {"fewer": 0, "more": 0, "p": 1.0}


@pytest.mark.parametrize("plan", [{"n_points": 0}, {"n_seeds": 4}, {"n_confirm": -1}])
def test_a_plan_needs_points_and_an_odd_number_of_seeds(plan: dict[str, int]) -> None:
    with pytest.raises(InputError, match="needs a point, an odd number of seeds"):
        BrittlenessPlan(**plan)


def test_a_task_without_right_answers_is_refused(published: Published, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(type(published.task), "measurements", ("loss", "margin"))
    with pytest.raises(InputError, match="needs predictions that are right or wrong"):
        BrittlenessBench(published.task, None, PLAN, RetrainStore(tmp_path, published.task.card.fingerprint))
