"""The score of selection, against the slow way from score matrices and ground truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import selecting
from scipy.stats import spearmanr
from selecting import GRID, brute_lds, make_job, write, write_ridge
from tiny import Published

from attriboard.attribution.context import build_context
from attriboard.attributors.iffim import IFFIM
from attriboard.base.errors import InputError
from attriboard.contracts.selector import GroundTruthSelector
from attriboard.evaluation.catalog import load_oracle
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.selection import Study, study_selection
from attriboard.records.model import SelectionRecord

pytestmark = pytest.mark.usefixtures("inline")
LAMBDAS = (1e-6, 1e-4, 1e-2, 1.0, 100.0)


class Watching(GroundTruthSelector):
    """The oracle, keeping what it was shown."""

    name = "watching"

    def __init__(self) -> None:
        self.shown: list[float] = []

    def select(self, lds: Any) -> int:
        self.shown = list(lds)
        return load_oracle().select(lds)


def study(published: Published, grader: Grader, attributor: str | Path, *names: str | Path, **more: Any) -> Study:
    configuration = more.pop("configuration", {})
    oracle = more.pop("oracle", load_oracle())
    job = make_job(published, attributor, configuration, selectors=names or ("surrogate",))
    return study_selection(published.task, grader, job, oracle, **more)


def by_selector(found: Study) -> dict[str, SelectionRecord]:
    return {record.selector: record for record in found.selections}


@pytest.fixture(scope="module")
def brute(published: Published, grader: Grader) -> dict[float, tuple[float, float]]:
    """λ → LDS on calibration and on scoring points, without the engine."""
    context = build_context(published.task, published.checkpoints)
    attributor = IFFIM()
    state = attributor.fit(context, **IFFIM.stage(IFFIM.configure({}), "fit"))
    found = {}
    for value in (0.0, *LAMBDAS):
        scores = attributor.score(state, regularization=value).numpy()
        halves = (grader.split.calibration, grader.split.scoring)
        masks, target = grader.truth.masks, grader.truth.target
        found[value] = tuple(brute_lds(scores, masks, target, points) for points in halves)
    return found  # type: ignore[return-value]


@pytest.fixture(scope="module")
def watched(published: Published, grader: Grader) -> tuple[Study, Watching]:
    oracle = Watching()
    names = ("default", "surrogate", "gcv", "training_horizon", "random_grid", "effective_dimension")
    return study(published, grader, "iffim", *names, oracle=oracle, candidates=LAMBDAS), oracle


def test_oracle_is_shown_calibration_points_only_the_defaults_last(watched: Any, brute: Any) -> None:
    found, oracle = watched
    candidates = (*LAMBDAS, 0.0)
    assert oracle.shown == pytest.approx([brute[value][0] for value in candidates], abs=1e-6)
    best = candidates[oracle.shown.index(max(oracle.shown))]
    for record in found.selections:
        assert record.oracle.hyperparameters["regularization"] == best
        assert record.oracle.lds == pytest.approx(brute[best][1], abs=1e-6)


def test_the_oracle_never_loses_to_a_default_outside_the_candidates(
    published: Published, grader: Grader, brute: Any
) -> None:
    best = max(brute, key=lambda value: brute[value][0])
    worse = [value for value in LAMBDAS if value != best]
    found = study(published, grader, "iffim", candidates=worse, configuration={"regularization": best})
    record = by_selector(found)["surrogate"]
    assert record.oracle == record.default
    assert record.oracle.hyperparameters["regularization"] == best


def test_default_selected_and_regret_are_on_scoring_points(watched: Any, brute: Any) -> None:
    found, _ = watched
    record = by_selector(found)["surrogate"]
    assert record.hyperparameter == "regularization"
    assert record.default.hyperparameters["regularization"] == 0.0
    assert record.default.lds == pytest.approx(brute[0.0][1], abs=1e-6)
    chosen = record.selected.hyperparameters["regularization"]
    oracle = record.oracle.hyperparameters["regularization"]
    assert record.selected.lds == pytest.approx(brute[chosen][1], abs=1e-6)
    assert record.regret.mean == pytest.approx(brute[oracle][1] - brute[chosen][1], abs=1e-6)
    assert record.regret.ci95[0] <= record.regret.mean <= record.regret.ci95[1]


def test_gap_closed_is_the_share_of_the_way_to_the_oracle(watched: Any, brute: Any) -> None:
    found, _ = watched
    for record in found.selections:
        default, oracle = record.default.lds, record.oracle.lds
        if oracle - default < 0.005:
            assert record.gap_closed is None
        else:
            assert record.gap_closed == pytest.approx((record.selected.lds - default) / (oracle - default))


def test_selector_default_has_the_default_for_its_choice(watched: Any) -> None:
    found, _ = watched
    record = by_selector(found)["default"]
    assert record.selected == record.default
    assert record.gap_closed in (0.0, None)
    assert record.rank_correlation is None


def test_rank_correlation_is_between_the_objective_and_the_lds_curve(watched: Any, brute: Any) -> None:
    found, _ = watched
    for name in ("surrogate", "gcv"):
        record = by_selector(found)[name]
        assert record.candidates == LAMBDAS
        expected = spearmanr([-x for x in record.objective], [brute[value][1] for value in LAMBDAS]).statistic
        assert record.rank_correlation == pytest.approx(expected)


def test_pick_outside_the_grid_is_scored_as_well(watched: Any) -> None:
    found, _ = watched
    record = by_selector(found)["training_horizon"]
    assert record.selected.hyperparameters["regularization"] not in LAMBDAS
    assert record.selected.lds is not None
    assert record.status == "ok"


def test_selector_of_another_hyperparameter_says_so(watched: Any) -> None:
    found, _ = watched
    record = by_selector(found)["effective_dimension"]
    assert record.hyperparameter == "projection_dim"
    assert record.candidates == tuple(float(2**power) for power in range(6, 14))
    assert record.selected.hyperparameters["projection_dim"] == 256


def test_every_configuration_becomes_a_record_for_each_part_it_plays(watched: Any) -> None:
    found, _ = watched
    variants = [record.variant for record in found.records]
    assert variants.count("default") == variants.count("oracle") == variants.count("selected") == 1
    values = {record.hyperparameters["regularization"] for record in found.records}
    assert {0.0, *LAMBDAS} <= values
    on_path = [r for r in found.records if r.hyperparameters["projection_dim"] is None]
    criteria = {r.hyperparameters["regularization"]: r.criteria.get("surrogate") for r in on_path}
    record = by_selector(found)["surrogate"]
    assert [criteria[value] for value in LAMBDAS] == pytest.approx(list(record.criterion))
    assert criteria[0.0] is None


def test_what_starts_from_other_values_than_the_defaults_is_neither_default_nor_selected(
    published: Published, grader: Grader
) -> None:
    found = study(published, grader, "iffim", "surrogate", configuration={"checkpoints": "2"}, candidates=LAMBDAS)
    assert {record.variant for record in found.records} == {"custom", "sweep"}
    (selection,) = found.selections
    assert selection.default.hyperparameters["checkpoints"] == selection.selected.hyperparameters["checkpoints"] == 2
    assert selection.oracle.lds is not None


def test_cost_is_counted(watched: Any, grader: Grader) -> None:
    found, _ = watched
    for record in found.selections:
        assert record.n_retrains == 24  # 8 masks × 3 repeats
        assert record.seconds > 0


def test_a_method_gets_the_spectrum_of_the_matrix_that_it_names(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    criteria = {}
    for curvature, donor in (("fisher", "iffim"), ("hessian", "if_cg")):
        found = study(published, grader, write_ridge(tmp_path, curvature=curvature), "surrogate")
        record = by_selector(found)["surrogate"]
        assert record.transferred
        assert record.note == f"spectrum of {donor}"
        criteria[curvature] = record.criterion
    assert criteria["fisher"] != criteria["hessian"]


def test_a_curvature_that_nobody_knows_is_refused(published: Published, grader: Grader, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Ridge.curvature = 'Hessian': must be fisher or hessian"):
        study(published, grader, write_ridge(tmp_path, curvature="Hessian"), "surrogate")


@pytest.mark.parametrize("stage", ["score", "fit"])
def test_a_default_that_fails_still_leaves_selected_and_oracle(
    published: Published, grader: Grader, tmp_path: Path, stage: str
) -> None:
    path = write_ridge(tmp_path, stage=stage, broken=(0.0, GRID[-1]))
    found = study(published, grader, path, "surrogate", "default")
    record = by_selector(found)["surrogate"]
    assert record.default.lds is None
    assert record.gap_closed is None
    assert record.status == "ok"
    assert record.transferred
    assert record.oracle.hyperparameters["regularization"] in set(GRID[:-1])
    assert record.regret is not None
    unchanged = by_selector(found)["default"]
    assert (unchanged.status, unchanged.selected) == ("failed", unchanged.default)
    assert unchanged.reason.startswith("error: ZeroDivisionError: singular")
    failed = [r for r in found.records if r.status == "failed"]
    assert {r.hyperparameters["regularization"] for r in failed} == {0.0, GRID[-1]}


def test_when_every_configuration_fails_each_selector_is_a_failed_row(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    path = write_ridge(tmp_path, stage="fit", broken=(0.0, *GRID))
    found = study(published, grader, path, "surrogate", "gcv")
    assert set(by_selector(found)) == {"surrogate", "gcv"}
    for record in found.selections:
        assert record.status == "failed"
        assert record.reason == "error: ZeroDivisionError: singular"
        assert record.selected is record.oracle is record.regret is None
    assert {record.status for record in found.records} == {"failed"}


def test_method_without_regularization_is_a_row_that_says_so(
    published: Published, grader: Grader, tmp_path: Path
) -> None:
    found = study(published, grader, write(tmp_path / "plain.py", selecting.PLAIN), "surrogate")
    (record,) = found.selections
    assert record.reason == "not_applicable: the method has no regularization to choose"
    assert (record.status, record.candidates, record.selected) == ("failed", (), None)
    assert record.default.lds is not None


def test_equal_candidates_are_run_once(published: Published, grader: Grader, tmp_path: Path) -> None:
    path = write_ridge(tmp_path)
    found = study(published, grader, path, "surrogate", candidates=("0.1", "1e-1", "1", "10"))
    assert by_selector(found)["surrogate"].candidates == (0.1, 1.0, 10.0)
    assert len(selecting.calls(tmp_path, "score")) == 4
    assert len(selecting.calls(tmp_path, "fit")) == 1


def test_regret_of_the_oracles_own_pick_is_exactly_zero(published: Published, grader: Grader, tmp_path: Path) -> None:
    path = write_ridge(tmp_path)
    found = study(published, grader, path, "surrogate", candidates=(0.5,), configuration={"regularization": 0.5})
    (record,) = found.selections
    assert record.selected == record.oracle
    assert record.regret.mean == 0.0
    assert np.allclose(record.regret.ci95, 0.0)
    assert record.rank_correlation is None


@pytest.mark.parametrize("start", [0.1, 10.0])
def test_a_start_on_the_path_is_scored_once_and_is_a_point_of_it(
    published: Published, grader: Grader, tmp_path: Path, start: float
) -> None:
    path = write_ridge(tmp_path)
    found = study(
        published, grader, path, "surrogate", candidates=("0.1", "1", "10"), configuration={"regularization": start}
    )
    assert by_selector(found)["surrogate"].candidates == (0.1, 1.0, 10.0)
    assert len(selecting.calls(tmp_path, "score")) == 3
    swept = [record.hyperparameters["regularization"] for record in found.records if record.variant == "sweep"]
    assert sorted(swept) == [0.1, 1.0, 10.0]
    best = max(found.records, key=lambda record: record.calibration or -2.0)
    assert found.selections[0].oracle.hyperparameters == best.hyperparameters
