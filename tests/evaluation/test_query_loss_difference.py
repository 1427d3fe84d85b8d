"""Query loss difference on the tiny task, against a plain loop, and what the store, the plan and the records say."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from selecting import make_job
from tiny import N_TEST, N_TRAIN, NormedTinyTask, Published, TinyTask, tiny_card, tiny_task
from torch import nn

from attriboard.attribution.runner import Runner
from attriboard.base.errors import InputError
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.qld import QldBench, QldPlan, affordable_points
from attriboard.evaluation.variants import Part, attribute_parts, finished_parts
from attriboard.groundtruth.plan import removal_seed, shuffled_rows, split_of
from attriboard.leaderboard.plots.uses import draw_qld
from attriboard.leaderboard.removal_rows import compare_qld
from attriboard.records.files import read_record, write_record
from attriboard.records.uses import QldRecord
from attriboard.retraining import engine
from attriboard.retraining.executors import InProcess, LocalProcesses
from attriboard.retraining.request import epoch_order
from attriboard.retraining.store import RetrainStore

pytestmark = pytest.mark.usefixtures("inline")
PLAN = QldPlan(fraction=0.1, n_points=6, n_repeats=2)
REMOVED = 4  # of 45 training examples


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def bench_of(task: TinyTask, grader: Grader | None, folder: Path, plan: QldPlan = PLAN) -> QldBench:
    return QldBench(task, grader, plan, RetrainStore(folder, task.card.fingerprint))


def record_of(
    published: Published, grader: Grader | None, folder: Path, attributor: str = "grad_dot", plan: QldPlan = PLAN
) -> tuple[QldBench, QldRecord]:
    bench = bench_of(published.task, grader, folder, plan)
    (found,) = attribute_parts(make_job(published, attributor), [Part("default", None, {})], bench.order)
    bench.retrain([found.made] if found.made else [], InProcess())
    return bench, bench.record(found)


def same_class(task: TinyTask) -> np.ndarray:
    """Scores by which every point loses examples of its own class first: removing them must harm."""
    data = task.load_data()
    noise = np.random.default_rng(0).random((N_TEST, N_TRAIN))
    return ((data.test.targets[:, None] == data.train.targets[None, :]).numpy() + 0.1 * noise).astype(np.float32)


def trained(task: TinyTask, gone: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Margins and losses at every test point, by PyTorch's own modules and a plain loop; `gone` counts 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = task.build_model()
    data, recipe = task.load_data(), task.card.recipe
    weights = torch.ones(N_TRAIN)
    weights[gone] = 0
    optimizer = torch.optim.SGD(model.parameters(), recipe.learning_rate, recipe.momentum)
    for epoch in range(1, recipe.epochs + 1):
        for rows in np.split(epoch_order(N_TRAIN, seed, epoch), range(recipe.batch_size, N_TRAIN, recipe.batch_size)):
            optimizer.zero_grad()
            each = nn.functional.cross_entropy(
                model(data.train.inputs[rows]), data.train.targets[rows], reduction="none"
            )
            (weights[rows] * each).sum().div(len(rows)).backward()
            optimizer.step()
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(data.test.inputs), data.test.targets, reduction="none")
    return -torch.log(torch.expm1(losses)).numpy(), losses.numpy()  # log(p / (1 − p)) with p = exp(−loss)


@pytest.mark.usefixtures("double")
def test_every_number_is_that_of_a_plain_loop_in_float64(published: Published, tmp_path: Path) -> None:
    task = tiny_task(epochs=10)
    scores, bench = same_class(task), bench_of(task, None, tmp_path / "store")
    (found,) = attribute_parts(
        make_job(published, "grad_dot"), [Part("default", None, {})], lambda _: bench.order(scores)
    )
    bench.retrain([found.made] if found.made else [], InProcess())
    record = bench.record(found)
    assert (record.n_removed, record.removed_by, record.n_random) == (REMOVED, "weight", 5)
    assert record.retrain_seeds == tuple(removal_seed(s) for s in range(5))
    assert set(record.test_points) <= set(split_of(task.card).scoring.tolist())
    controls = {
        s: [trained(task, shuffled_rows(task.card, s + 5 * j)[:REMOVED], removal_seed(s)) for j in range(5)]
        for s in range(5)
    }
    drops = []
    for position, point in enumerate(record.test_points):
        top = np.argsort(-scores[point], kind="stable")[:REMOVED]
        seeds = [(position + repeat) % 5 for repeat in range(2)]
        own = [trained(task, top, removal_seed(s)) for s in seeds]
        for key, which in (("target", 0), ("loss", 1)):
            removed = np.mean([outputs[which][point] for outputs in own])
            random = np.mean([outputs[which][point] for s in seeds for outputs in controls[s]])
            assert record.removed[key][position] == pytest.approx(removed, abs=2e-5)
            assert record.random[key][position] == pytest.approx(random, abs=2e-5)
        drops.append(record.random["target"][position] - record.removed["target"][position])
    assert record.drop == pytest.approx(np.mean(drops), abs=1e-5)
    assert record.drop > 0
    assert record.loss_rise > 0
    assert record.share_harmed == np.mean(np.array(drops) > 0) > 0.8


def test_random_scores_do_what_random_removals_do(published: Published, grader: Grader, tmp_path: Path) -> None:
    held = 0
    for seed in range(8):
        bench = bench_of(published.task, grader, tmp_path / "store", QldPlan(0.1, None, 1))
        job = make_job(published, "random", seed=seed)
        (found,) = attribute_parts(job, [Part("default", None, {})], bench.order)
        bench.retrain([found.made] if found.made else [], InProcess())
        record = bench.record(found)
        assert record.ci95 is not None
        held += record.ci95[0] <= 0 <= record.ci95[1]
        assert len(record.test_points) == len(split_of(published.task.card).scoring)
    assert held >= 7


def test_the_cost_is_said_and_random_removals_are_shared(published: Published, grader: Grader, tmp_path: Path) -> None:
    bench = bench_of(published.task, grader, tmp_path, QldPlan(0.1, 6, 2))
    cost = bench.choose_points(InProcess(), 4)
    assert (cost.n_points, cost.n_random, cost.n_retrains) == (6, 24, 6 * 4 * 2 + 24), "one was timed, and is kept"
    assert cost.seconds == pytest.approx(cost.n_retrains * cost.seconds_each)
    text = str(cost)
    assert text.startswith("at most 72 retrains (6 points × 4 configurations × 2 repeats + 24 random removals), about ")
    assert "on 1 process; one was trained to measure it" in text
    helpful, other = bench.order(same_class(published.task)), bench.order(-same_class(published.task))
    bench.retrain([helpful], InProcess())
    assert bench.work.done == 24 + 6 * 2
    bench.retrain([helpful, other], InProcess())
    assert bench.work.done == 24 + 2 * 6 * 2, "neither the random removals nor the first order again"
    again = bench.choose_points(LocalProcesses(2), 1)
    assert (again.n_random, again.processes) == (0, 2)
    assert "; measured on the 25 that are done" in str(again)
    assert "random" not in str(again).split(";")[0]


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.1, 400), (0.15, 400), (0.2, 100), (18.0, 100), (30.0, 60), (90.0, 20), (9e9, 20)]
)
def test_points_are_fewer_where_they_take_long(seconds: float, expected: int) -> None:
    assert affordable_points(400, seconds) == expected
    assert affordable_points(10, seconds) == 10


def test_points_of_a_smaller_sample_are_the_first_of_a_larger_one_and_a_finished_record_sets_their_number(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    scoring = split_of(published.task.card).scoring
    few, all_ = (bench_of(published.task, grader, tmp_path, QldPlan(0.1, n)) for n in (3, 100))
    assert few.points == all_.points[:3]
    assert sorted(all_.points) == scoring.tolist()
    _, record = record_of(published, grader, tmp_path / "store", plan=QldPlan(0.1, 3))
    open_ = bench_of(published.task, grader, tmp_path / "store", QldPlan(0.1))
    assert open_.choose_points(InProcess(), 1).n_points == len(scoring)
    assert open_.choose_points(InProcess(), 1, [record]).n_points == 3
    assert open_.answers(record)
    other = bench_of(published.task, grader, tmp_path / "store", QldPlan(0.2))
    assert other.choose_points(InProcess(), 1, [record]).n_points == len(scoring)


def test_a_record_answers_the_same_plan_only(published: Published, grader: Grader, tmp_path: Path) -> None:
    bench, record = record_of(published, grader, tmp_path / "store")
    assert read_record(write_record(record, tmp_path / "out")) == record
    job = make_job(published, "grad_dot")
    described = Runner().describe(job)
    part = Part("default", None, described.configurations[0])
    assert finished_parts(job, described, [part], [record], bench.answers) == {"default": record}
    for plan in (QldPlan(0.1, 6, 1), QldPlan(0.2, 6, 2), QldPlan(0.1, 5, 2)):
        assert not bench_of(published.task, grader, tmp_path / "store", plan).answers(record)
    assert not bench_of(published.task, None, tmp_path / "store").answers(record)
    chart = draw_qld([record])
    assert {row["series"] for row in chart["layer"][0]["data"]["values"]} == {"grad_dot, default"}


def test_examples_of_a_model_with_batch_norm_are_left_out_instead(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    task = NormedTinyTask(tiny_card(epochs=2))
    bench = bench_of(task, None, tmp_path / "store", QldPlan(0.15, 3))  # so that no batch has one example
    scores = same_class(task)
    (found,) = attribute_parts(
        make_job(published, "grad_dot"), [Part("default", None, {})], lambda _: bench.order(scores)
    )
    bench.retrain([found.made] if found.made else [], InProcess())
    record = bench.record(found)
    assert (record.removed_by, record.status, len(record.test_points)) == ("subset", "ok", 3)


def test_points_with_nan_are_left_out_and_counted(published: Published, grader: Grader, tmp_path: Path) -> None:
    bench = bench_of(published.task, grader, tmp_path)
    scores = same_class(published.task)
    scores[bench.points[1], 0] = np.nan
    order = bench.order(scores)
    bench.retrain([order], InProcess())
    job = make_job(published, "grad_dot")
    (found,) = attribute_parts(job, [Part("default", None, {})], lambda _: order)
    record = bench.record(found)
    assert record.test_points == (bench.points[0], *bench.points[2:])
    assert record.n_degenerate == 1
    scores[list(bench.points[1:])] = np.nan
    with pytest.raises(InputError, match="all but one of 6 points have NaN"):
        bench.order(scores)
    (failed,) = attribute_parts(job, [Part("default", None, {})], lambda _: bench.order(scores))
    record = bench.record(failed)
    assert (record.status, record.drop, record.test_points) == ("failed", None, ())
    assert record.reason is not None
    assert record.reason.startswith("nan: ")
    assert bench.answers(record)


def test_a_better_method_is_told_from_the_default_point_by_point(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    _, record = record_of(published, grader, tmp_path)
    better = record.model_copy(
        update={"removed": record.removed | {"target": tuple(v - 1 for v in record.removed["target"])}}
    )
    found = compare_qld(better, record)
    assert found is not None
    assert found.mean == pytest.approx(1)
    assert found.ci95 == pytest.approx((1, 1))
    assert (
        compare_qld(record, record.model_copy(update={"test_points": tuple(p + 1000 for p in record.test_points)}))
        is None
    )


def test_an_interrupt_keeps_the_retrains_that_are_done(
    published: Published, grader: Grader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_stacks", lambda task, requests, n: [[request] for request in requests])
    bench = bench_of(published.task, grader, tmp_path)
    order = bench.order(same_class(published.task))

    def progress(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.retrain([order], InProcess(), progress)
    again = bench_of(published.task, grader, tmp_path)
    again.retrain([order], InProcess())
    assert again.work.done == 25 + 6 * 2 - 7


@pytest.mark.parametrize(
    "plan", [{"n_points": 1}, {"n_points": 0}, {"n_points": 2.5}, {"n_repeats": 0}, {"n_repeats": "3"}]
)
def test_a_plan_needs_two_points_and_a_repeat(plan: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="needs whole numbers, at least two points and one repeat"):
        QldPlan(**plan)


def test_a_fraction_removes_at_least_one_and_not_all_and_a_task_needs_a_recipe(
    published: Published, tmp_path: Path
) -> None:
    assert bench_of(published.task, None, tmp_path, QldPlan(0.001)).size == 1
    for fraction in (0.0, 0.999, 1.0, -0.1, float("nan")):
        with pytest.raises(InputError, match=rf"fraction = {fraction:g}: must lie in \(0, 1\) and leave some of 45"):
            bench_of(published.task, None, tmp_path, QldPlan(fraction))
    task = TinyTask(tiny_card(optimizer="none"))
    with pytest.raises(InputError, match="has no recipe, so nothing can be retrained"):
        bench_of(task, None, tmp_path)
