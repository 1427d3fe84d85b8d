"""Verdicts of the sensitivity panels, on made records whose answer is known."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from attriboard.evaluation.sensitivity import PANELS, PanelSweep, panels_page, points_table
from attriboard.evaluation.sweeps import parse_grid
from attriboard.records.model import AttributionRecord

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "record-v1.json").read_text(encoding="utf-8"))
JUDGES = {panel.key: panel.judge for panel in PANELS}


def point(mean: float | None, **hyperparameters: Any) -> AttributionRecord:
    data = json.loads(json.dumps(GOLDEN))
    data |= {"hyperparameters": hyperparameters, "variant": "sweep"}
    if mean is None:
        data |= {"lds": None, "status": "failed", "reason": "nan: all rows", "scores_sha256": None}
    else:
        data["lds"] |= {"mean": mean, "ci95": [mean - 0.02, mean + 0.02], "per_test": None, "mask_influence": None}
    return AttributionRecord.model_validate(data)


def surface(values: Mapping[tuple[int, float], float | None]) -> list[AttributionRecord]:
    return [point(mean, projection_dim=d, regularization=λ) for (d, λ), mean in values.items()]


def test_a_curve_with_a_clear_peak_is_sensitive_and_a_flat_one_is_not() -> None:
    peaked = [point(mean, regularization=10.0**k) for k, mean in enumerate((0.1, 0.4, 0.2))]
    flat = [point(mean, regularization=10.0**k) for k, mean in enumerate((0.39, 0.4, 0.385))]
    verdict = JUDGES["a"](peaked)
    assert verdict.holds
    assert verdict.sentence == "LDS runs from 0.100 to 0.400 over the grid, the best at regularization = 10."
    assert not JUDGES["a"](flat).holds


def test_failed_points_do_not_take_part() -> None:
    records = [point(0.4, epoch=1), point(None, epoch=2), point(0.39, epoch=3)]
    assert not JUDGES["e"](records).holds


def test_projection_alone_hurts_and_tuned_does_not() -> None:
    hurts = surface({(64, 1e-9): 0.3, (64, 1.0): 0.3, (512, 1e-9): 0.1, (512, 1.0): 0.4})
    verdict = JUDGES["c"](hurts)
    assert verdict.holds
    assert "from 0.300 (d = 64) to 0.100 at d = 512; with λ tuned at each d it goes from 0.300 (d = 64) to 0.400" in (
        verdict.sentence
    )


def test_a_dip_on_the_way_counts_although_the_last_dimension_is_the_best() -> None:
    dips = {(64, 1e-9): 0.2, (128, 1e-9): 0.05, (512, 1e-9): 0.4, (64, 1.0): 0.2, (128, 1.0): 0.3, (512, 1.0): 0.3}
    verdict = JUDGES["c"](surface(dips))
    assert verdict.holds
    assert "from 0.200 (d = 64) to 0.050 at d = 128 and is 0.400 at d = 512; with λ" in verdict.sentence


@pytest.mark.parametrize(
    "values",
    [
        {(64, 1e-9): 0.1, (64, 1.0): 0.3, (512, 1e-9): 0.2, (512, 1.0): 0.4},  # more dimensions never hurt
        {(64, 1e-9): 0.3, (64, 1.0): 0.4, (512, 1e-9): 0.1, (512, 1.0): 0.2},  # they hurt even when tuned
    ],
)
def test_the_projection_finding_is_denied_where_it_fails(values: dict[tuple[int, float], float]) -> None:
    assert not JUDGES["c"](surface(values)).holds


def test_a_failed_point_is_no_fall() -> None:
    rising = {(64, 1e-9): 0.1, (128, 1e-9): None, (512, 1e-9): 0.3, (64, 1.0): 0.3, (128, 1.0): 0.3, (512, 1.0): 0.4}
    verdict = JUDGES["c"](surface(rising))
    assert verdict.holds is False
    assert "LDS rises throughout, from 0.100 (d = 64) to 0.300; with λ" in verdict.sentence
    alone = JUDGES["c"](surface({(64, 1e-9): 0.3, (512, 1e-9): None, (64, 1.0): 0.3, (512, 1.0): 0.4}))
    assert (alone.holds, alone.sentence) == (None, "Fewer than two dimensions were scored at λ = 1e-09.")


def test_every_panels_grids_can_be_read() -> None:
    for panel in PANELS:
        for grid in panel.grids:
            name, values = parse_grid(grid.format(epochs="1,5,10"))
            assert name
            assert len(values) > 1


def test_points_of_one_hyperparameter_are_a_row_each_and_failures_stay() -> None:
    records = [point(0.4, epoch=1), point(None, epoch=2)]
    assert points_table(records, ["epoch"]).splitlines() == [
        "| epoch | LDS | 95 % interval |",
        "| --- | ---: | ---: |",
        "| 1 | 0.400 | 0.380 … 0.420 |",
        "| 2 | failed | – |",
    ]


def test_points_of_two_hyperparameters_are_a_grid() -> None:
    records = surface({(64, 1e-9): 0.3, (64, 1.0): 0.35, (512, 1e-9): 0.1})
    assert points_table(records, ["projection_dim", "regularization"]).splitlines() == [
        r"| regularization \ projection_dim | 64 | 512 |",
        "| --- | ---: | ---: |",
        "| 1e-09 | 0.300 | 0.100 |",
        "| 1 | 0.350 | – |",
    ]


@pytest.mark.parametrize(
    ("means", "verdict"),
    [((0.1, 0.4), "holds here"), ((0.39, 0.4), "does not hold here"), ((None, 0.4), "cannot be told here")],
)
def test_a_panel_with_too_few_scores_is_not_said_to_be_refuted(means: tuple[float | None, ...], verdict: str) -> None:
    panel = next(panel for panel in PANELS if panel.key == "e")
    records = [point(mean, epoch=epoch) for epoch, mean in enumerate(means, start=1)]
    summary = PanelSweep(panel, "trak", ["epoch"], records, {}).summary(None)
    assert summary.verdict == verdict
    assert f"The finding {verdict}. 2 points" in panels_page("digits", [summary])
