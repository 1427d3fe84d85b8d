"""Sweeps: grids as texts, products of them, and points that are never computed twice."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selecting import calls, make_job, write_ridge
from tiny import Published

from attriboard.attribution.executors import OwnProcess
from attriboard.attribution.job import Job
from attriboard.attribution.limits import NO_LIMITS, Limits, beyond_memory
from attriboard.attribution.runner import Runner
from attriboard.base.errors import InputError
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.sweeps import grid_configurations, parse_grid, sweep
from attriboard.records.files import AnyRecord, read_record, write_record
from attriboard.records.model import AttributionRecord

pytestmark = pytest.mark.usefixtures("inline")
NAMES = st.from_regex(r"[a-z][a-z_]{0,10}", fullmatch=True)


@given(NAMES, st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 60))
def test_linear_range_has_equal_steps(name: str, low: float, width: float, count: int) -> None:
    found, texts = parse_grid(f"{name}={low!r}:{low + width!r}:{count}")
    values = [float(text) for text in texts]
    assert found == name
    assert len(values) == count
    expected = [low + step * width / (count - 1) for step in range(count)]
    assert values == pytest.approx(expected, rel=1e-9, abs=1e-9 * width)


@given(st.floats(1e-12, 1e3), st.floats(1.1, 1e12), st.integers(2, 60))
def test_logarithmic_range_has_equal_ratios(low: float, ratio: float, count: int) -> None:
    _, texts = parse_grid(f"regularization={low!r}:{low * ratio!r}:{count}log")
    expected = [low * ratio ** (step / (count - 1)) for step in range(count)]
    assert [float(text) for text in texts] == pytest.approx(expected, rel=1e-5)


def test_half_decades_are_written_as_the_methods_grids_are() -> None:
    from attriboard.toolkit.knobs import REGULARIZATION_GRID

    _, texts = parse_grid("regularization=1e-9:1e3:25log")
    assert tuple(float(text) for text in texts) == REGULARIZATION_GRID


@given(NAMES, st.lists(st.from_regex(r"[a-z0-9.\-]{1,6}", fullmatch=True), min_size=1, max_size=8))
def test_list_keeps_order_and_drops_repetitions(name: str, values: list[str]) -> None:
    assert parse_grid(f"{name}={', '.join(values)}") == (name, tuple(dict.fromkeys(values)))


@pytest.mark.parametrize(
    "text",
    [
        "", "=", "regularization", "regularization=", "=1,2", "a=1,,2", "a=,", "a= ,1",
        "a=1:2", "a=1:2:3:4", "a=1:2:", "a=:2:3", "a=1::3", "a=x:2:3", "a=1:2:x", "a=1:2:3.5", "a=1:2:log",
        "a=1:2:1", "a=1:2:0", "a=1:2:-3", "a=2:1:3", "a=1:1:3", "a=1:2:100001",
        "a=0:1:3log", "a=-1:1:3log", "a=nan:1:3", "a=1:inf:3", "a=-inf:1:3log", "a=1:2:3LOG", "a=1:2:3loglog",
    ],
)  # fmt: skip
def test_every_other_form_is_refused_with_the_rule(text: str) -> None:
    with pytest.raises(InputError, match="--grid"):
        parse_grid(text)


@settings(max_examples=300)
@given(st.text(alphabet="ab=:,0123456789.e-+ loginf", max_size=20))
def test_any_text_is_a_grid_or_an_input_error(text: str) -> None:
    try:
        name, values = parse_grid(text)
    except InputError:
        return
    assert name
    assert values
    assert all(values)


def test_product_varies_the_last_grid_fastest() -> None:
    found = grid_configurations([("a", ("1", "2")), ("b", ("x", "y", "z"))], {"c": "0"})
    expected = [{"c": "0", "a": a, "b": b} for a, b in itertools.product("12", "xyz")]
    assert found == expected
    assert grid_configurations([], {"c": "0"}) == [{"c": "0"}]


@pytest.mark.parametrize(
    ("grids", "fixed", "message"),
    [
        ([("a", "12"), ("a", "34")], {}, "--grid a: given 2 times; put all its values into one"),
        ([("a", "12")], {"a": "1"}, "--grid a: fixed by --hp a=1 as well"),
    ],
    ids=["twice", "fixed"],
)
def test_a_name_that_is_given_twice_is_refused(grids: Any, fixed: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        grid_configurations(grids, fixed)


def swept(
    published: Published, grader: Grader, job: Job, finished: list[AnyRecord], limits: Limits = NO_LIMITS
) -> list[AttributionRecord]:
    """All points of a sweep."""
    with Runner(OwnProcess(limits)).open(job) as attribution:
        return list(sweep(published.task, grader, attribution, finished))


VALUES = ("0", "1e-3", "0.1", "1", "10", "1.0")  # 1 twice


def configurations(values: tuple[str, ...] = VALUES, powers: tuple[str, ...] = ("1", "2")) -> list[dict[str, str]]:
    return grid_configurations([("power", powers), ("regularization", values)], {})


def test_resumed_sweep_computes_only_what_is_missing(published: Published, grader: Grader, tmp_path: Path) -> None:
    """Stop after four points, as Ctrl-C does; go on; go on with nothing to do; then with changed code."""
    path = write_ridge(tmp_path, broken=(0.0,))
    job = make_job(published, path, *configurations())
    progress: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        progress.append((done, total))

    with Runner().open(job) as attribution:
        kept = list(itertools.islice(sweep(published.task, grader, attribution, [], progress=note), 4))
    assert progress == [(0, 10), (1, 10), (2, 10), (3, 10)]
    files = [write_record(record, tmp_path / "out") for record in kept]
    kept = [read_record(file) for file in files]  # as another process finds them
    assert {r.status for r in kept} == {"ok", "failed"}

    fits, scores = len(calls(tmp_path, "fit")), len(calls(tmp_path, "score"))
    second = swept(published, grader, job, kept)
    assert second[:4] == kept
    assert len(second) == 10
    assert len(calls(tmp_path, "fit")) - fits == 2  # each power once; λ is of the score stage
    # ξ's pick may be a finished point: choosing it again costs one score, and no record.
    assert len(calls(tmp_path, "score")) - scores - 6 in (0, 1)
    points = [(r.hyperparameters["power"], r.hyperparameters["regularization"]) for r in second]
    assert sorted(points) == sorted(itertools.product((1, 2), (0.0, 1e-3, 0.1, 1.0, 10.0)))

    asked = len(calls(tmp_path, ""))
    third = swept(published, grader, job, second)
    assert third == second
    assert len(calls(tmp_path, "")) == asked

    path.write_text(path.read_text() + "\n# another digest\n")
    changed = make_job(published, path, *configurations(("1", "10"), ("1",)))
    again = swept(published, grader, changed, second)
    assert len(again) == 2
    assert not {r.id for r in again} & {r.id for r in second}
    assert {r.attributor.digest for r in again}.isdisjoint(r.attributor.digest for r in second)


@pytest.mark.parametrize(
    ("reason", "again"),
    [
        ("timeout: not finished after 60 s", [Limits(61), Limits(bytes=1), NO_LIMITS]),
        ("timeout: not finished after 0.5 s", [Limits(60)]),
        ("out_of_memory: 1,203 MiB resident, the limit is 1,200 MiB", [Limits(60), Limits(bytes=1201 << 20)]),
        ("out_of_memory: ended by the kernel, the limit is 1,200 MiB", [Limits(bytes=4 << 30), NO_LIMITS]),
        (
            "timeout: needs at least 9,000 s (products 3.0e+14 operations, at 33·10⁹ a second); the limit is 60 s",
            [Limits(60)],
        ),
        ("out_of_memory: needs 287.2 GB (the Hessian 95.7 GB); 8.0 GB are free", [Limits(60, 1)]),
    ],
)
def test_a_failure_of_a_limit_is_tried_again_where_the_limit_is_wider(
    published: Published, grader: Grader, tmp_path: Path, reason: str, again: list[Limits]
) -> None:
    job = make_job(published, write_ridge(tmp_path), {"regularization": "1"}, selectors=())
    (scored,) = swept(published, grader, job, [])
    failure = {"status": "failed", "reason": reason, "lds": None, "calibration": None, "scores_sha256": None}
    failed = scored.model_copy(update=failure)
    for limits in again:
        (record,) = swept(published, grader, job, [failed], limits)
        assert record.status == "ok"
    assert swept(published, grader, job, [failed, scored], Limits(60, 1200 << 20)) == [scored]
    if "needs" not in reason:
        before = len(calls(tmp_path, ""))
        assert swept(published, grader, job, [failed], Limits(0.4, 1)) == [failed]
        assert len(calls(tmp_path, "")) == before


@pytest.mark.parametrize(
    ("reason", "limits"),
    [
        (beyond_memory("ended by the kernel", 322122547), Limits(bytes=322122547)),  # 307.2 MiB
        ("timeout: not finished after 100 s", Limits(100.0001)),
    ],
)
def test_the_limit_that_ended_it_is_not_a_wider_one(
    published: Published, grader: Grader, tmp_path: Path, reason: str, limits: Limits
) -> None:
    job = make_job(published, write_ridge(tmp_path), {"regularization": "1"}, selectors=())
    (scored,) = swept(published, grader, job, [])
    failure = {"status": "failed", "reason": reason, "lds": None, "calibration": None, "scores_sha256": None}
    failed = scored.model_copy(update=failure)
    assert swept(published, grader, job, [failed], limits) == [failed]


def test_other_failures_are_not_tried_again(published: Published, grader: Grader, tmp_path: Path) -> None:
    job = make_job(published, write_ridge(tmp_path, broken=(1.0,)), {"regularization": "1"}, selectors=())
    (failed,) = swept(published, grader, job, [])
    before = len(calls(tmp_path, ""))
    assert swept(published, grader, job, [failed]) == [failed]
    assert len(calls(tmp_path, "")) == before


def test_surface_has_failures_as_records_and_xi_at_every_positive_lambda(published: Published, grader: Grader) -> None:
    """IFFIM over projection × λ, off the method's own grid: each fit has a spectrum of its own."""
    grid = grid_configurations([("projection_dim", ("4", "16")), ("regularization", ("0", "2e-4", "0.05", "7"))], {})
    records = swept(published, grader, make_job(published, "iffim", *grid), [])
    assert len(records) == 8
    assert all(isinstance(r, AttributionRecord) and r.variant == "sweep" and r.status == "ok" for r in records)
    xi: dict[Any, dict[Any, float]] = {}
    for record in records:
        value = record.hyperparameters["regularization"]
        assert ("surrogate" in record.criteria) == (value != 0.0)
        xi.setdefault(record.hyperparameters["projection_dim"], {})[value] = record.criteria.get("surrogate", math.nan)
    assert set(xi) == {4, 16}
    for path in xi.values():
        assert path[7.0] > 0.95
    assert xi[4][2e-4] != xi[16][2e-4]


def test_fit_stage_lambda_gets_xi_at_every_point(published: Published, grader: Grader, tmp_path: Path) -> None:
    path = write_ridge(tmp_path, stage="fit", broken=(0.01,))
    grid = grid_configurations([("regularization", ("0.001", "0.01", "0.3"))], {})
    job = make_job(published, path, *grid)
    records = swept(published, grader, job, [])
    assert [r.status for r in records] == ["ok", "failed", "ok"]
    assert [len(r.criteria) for r in records] == [1, 0, 1]
    assert len(calls(tmp_path, "fit")) == 3


def test_unknown_hyperparameter_is_refused_before_anything_runs(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    job = make_job(published, write_ridge(tmp_path), {"regularizaton": "1"})
    with pytest.raises(InputError, match="ridge has no hyperparameter 'regularizaton'"):
        swept(published, grader, job, [])
    assert calls(tmp_path, "") == []
