"""Figures of sweeps: every point is there, nothing is cut off or hidden, and the bytes repeat."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attriboard.base.errors import InputError
from attriboard.leaderboard.plots.style import Marks, save_figure
from attriboard.leaderboard.plots.sweeps import draw_criterion, draw_curve, draw_surface, marks_of
from attriboard.records.model import AttributionRecord

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "record-v1.json").read_text(encoding="utf-8"))
GRID = [float(f"{10 ** (step / 2):.6g}") for step in range(-18, 7)]


def make(mean: float | None = 0.3, xi: float | None = None, name: str = "iffim", **hyperparameters: Any) -> Any:
    """A point of a sweep; without a mean, a failed one."""
    data = json.loads(json.dumps(GOLDEN))
    data |= {"hyperparameters": hyperparameters, "ceiling": 0.8, "variant": "sweep"}
    data["attributor"]["name"] = name
    if xi is not None:
        data["criteria"] = {"surrogate": xi}
    if mean is None:
        data |= {"lds": None, "status": "failed", "reason": "nan: all rows", "scores_sha256": None, "calibration": None}
    else:
        data["lds"] |= {"mean": mean, "ci95": [mean - 0.05, mean + 0.05], "per_test": None, "mask_influence": None}
        data["calibration"] = mean
    return AttributionRecord.model_validate(data)


def bell(value: float) -> float:
    return 0.1 + 0.4 * math.exp(-((math.log10(value) + 2.6) ** 2) / 8)


def path(*, failed: tuple[float, ...] = (), xi: bool = True) -> list[AttributionRecord]:
    return [
        make(
            None if value in failed else bell(value),
            1 / (1 + (0.01 / value) ** 0.4) if xi and value not in failed else None,
            regularization=value,
        )
        for value in GRID
    ]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def line(axis: Any, label: str) -> Any:
    return next(line for line in axis.lines if str(line.get_label()).startswith(label))


def assert_nothing_is_clipped_or_hidden(figure: Figure) -> None:
    """All that is drawn lies within the figure, tick labels do not overlap, and the legend covers no axes."""
    FigureCanvasAgg(figure).draw()
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert -0.01 <= drawn.x0 <= drawn.x1 <= width + 0.01
    assert -0.01 <= drawn.y0 <= drawn.y1 <= height + 0.01
    for axis in figure.axes:
        if axis.get_xticklabels() and axis.get_xticklabels()[0].get_rotation():
            continue  # slanted labels have overlapping boxes
        low, high = axis.get_xlim()
        labels = [tick.label1 for tick in axis.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        shown = [label for label in labels if label.get_text() and label.get_visible()]
        spans = sorted((label.get_window_extent().x0, label.get_window_extent().x1) for label in shown)
        assert all(right <= left for (_, right), (left, _) in itertools.pairwise(spans))
    covered = figure.legends[0].get_window_extent()
    assert not any(covered.overlaps(axis.get_window_extent()) for axis in figure.axes)


def test_curve_has_every_point_its_interval_and_its_failures() -> None:
    failed = (GRID[0], GRID[1], GRID[5])
    records = path(failed=failed)
    figure = draw_curve(records, "regularization", marks_of(records, "regularization", 0.0))
    top, bottom = figure.axes
    assert top.get_xscale() == bottom.get_xscale() == "log"
    good = [value for value in GRID if value not in failed]
    assert list(line(top, "LDS").get_xdata()) == good
    assert list(line(top, "LDS").get_ydata()) == pytest.approx([bell(value) for value in good])
    assert list(line(top, "failed").get_xdata()) == list(failed)
    assert line(top, "noise ceiling").get_ydata()[0] == 0.8
    band = top.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(max(map(bell, good)) + 0.05)
    assert list(bottom.lines[0].get_xdata()) == good
    assert bottom.get_ylabel() == "mean ξ"
    assert legend(figure) == [
        "95 % interval", "LDS", "noise ceiling = 0.800", "failed", "default = 0", "selected (ξ) = 0.01",
        "oracle = 0.00316",
    ]  # fmt: skip
    assert_nothing_is_clipped_or_hidden(figure)


def test_default_beyond_the_axis_is_an_arrowhead_at_its_edge() -> None:
    records = path()
    low = draw_curve(records, "regularization", Marks(default=0.0)).axes[0]
    high = draw_curve(records, "regularization", Marks(default=1e6)).axes[0]
    assert (line(low, "default").get_marker(), list(line(low, "default").get_xdata())) == ("<", [0])
    assert (line(high, "default").get_marker(), list(line(high, "default").get_xdata())) == (">", [1])
    assert low.get_xlim() == high.get_xlim()


def test_default_within_the_axis_is_a_line() -> None:
    axis = draw_curve(path(), "regularization", Marks(default=1e-3)).axes[0]
    assert list(line(axis, "default").get_xdata()) == [1e-3, 1e-3]


def test_zero_among_the_points_gets_a_place_on_the_axis() -> None:
    records = [make(0.1, regularization=0.0), *path()[5:]]
    figure = draw_curve(records, "regularization", marks_of(records, "regularization", 0.0))
    axis = figure.axes[0]
    assert axis.get_xscale() == "symlog"
    assert line(axis, "LDS").get_xdata()[0] == 0.0
    assert list(line(axis, "default").get_xdata()) == [0.0, 0.0]
    assert_nothing_is_clipped_or_hidden(figure)


def test_marks_differ_without_colour() -> None:
    axis = draw_curve(path(), "regularization", Marks(1e-4, 1e-3, 1e-2)).axes[0]
    styles = [line(axis, name)._dash_pattern for name in ("default", "selected", "oracle")]
    assert len({str(style) for style in styles}) == 3


def test_narrow_range_stays_linear_and_whole_numbers_are_ticks() -> None:
    epochs = [make(0.1 + 0.01 * epoch, epoch=epoch) for epoch in (1, 5, 10, 25, 50)]
    figure = draw_curve(epochs, "epoch", marks_of(epochs, "epoch", None))
    assert figure.axes[0].get_xscale() == "linear"
    assert not any(text.startswith("default") for text in legend(figure))
    assert_nothing_is_clipped_or_hidden(figure)
    wide = [make(0.1 + 0.02 * step, projection_dim=2**step) for step in range(6, 14)]
    figure = draw_curve(wide, "projection_dim", Marks(default=2048.0))
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [str(2**step) for step in range(6, 14)]
    assert len(figure.axes) == 1
    assert_nothing_is_clipped_or_hidden(figure)


def test_points_without_a_number_are_left_out_of_a_curve() -> None:
    records = [make(0.2, projection_dim=None), *(make(0.3, projection_dim=d) for d in (8, 16))]
    axis = draw_curve(records, "projection_dim", Marks()).axes[0]
    assert list(line(axis, "LDS").get_xdata()) == [8, 16]


def test_marks_follow_from_xi_and_calibration_points() -> None:
    records = [make(0.2, 0.1, regularization=1.0), make(0.5, 0.2, regularization=2.0), make(0.3, 0.6, regularization=3)]
    assert marks_of(records, "regularization", 0.0) == Marks(0.0, 3.0, 2.0)
    assert marks_of(records, "epoch", None) == Marks()
    assert marks_of([make(None, regularization=1.0)], "regularization", 1) == Marks(default=1.0)


def surface(columns: list[float], rows: list[int], failed: tuple[float, ...] = ()) -> list[AttributionRecord]:
    return [
        make(
            None if value in failed else bell(value) * (1 + row / 1e5),
            None if value in failed else 1 / (1 + (0.01 / value) ** 0.4),
            name="trak",
            regularization=value,
            projection_dim=row,
        )
        for row in rows
        for value in columns
    ]


@pytest.mark.parametrize(
    ("columns", "rows", "failed"),
    [(GRID, [64, 512, 1024, 4096, 8192], (1e-9,)), ([1e-4, 1e-2], [64, 128], ()), (GRID[:5], [64, 128, 256], (1e-9,))],
    ids=["many", "few", "some"],
)
def test_surface_has_every_cell(columns: list[float], rows: list[int], failed: tuple[float, ...]) -> None:
    figure = draw_surface(surface(columns, rows, failed), "regularization", "projection_dim")
    axis = figure.axes[0]
    cells = np.asarray(axis.images[0].get_array().filled(np.nan))  # type: ignore[union-attr]
    assert cells.shape == (len(rows), len(columns))
    expected = [[math.nan if v in failed else bell(v) * (1 + row / 1e5) for v in columns] for row in rows]
    np.testing.assert_allclose(cells, expected)
    assert [label.get_text() for label in axis.get_yticklabels()] == [str(row) for row in rows]
    assert len(axis.get_xticklabels()) == len(columns)
    numbered = len(columns) * len(rows) <= 100
    assert len(axis.texts) == (len(rows) * (len(columns) - len(failed)) if numbered else 0)
    if failed:
        assert len(line(axis, "failed").get_xdata()) == len(rows)
    assert len(line(axis, "selected").get_xdata()) == len(rows)  # one pick for every projection
    (frame,) = [p for p in axis.patches if isinstance(p, Rectangle)]
    row, column = np.unravel_index(np.nanargmax(cells), cells.shape)
    assert frame.get_xy() == (column - 0.5, row - 0.5)
    assert_nothing_is_clipped_or_hidden(figure)


def test_surface_of_other_hyperparameters_has_no_picks() -> None:
    records = [make(0.1 * i + 0.01 * j, epoch=i, checkpoints=j) for i in (1, 2) for j in (1, 2, 3)]
    figure = draw_surface(records, "epoch", "checkpoints")
    assert legend(figure) == ["best"]


def test_combinations_that_were_not_run_stay_empty() -> None:
    records = surface([1e-4, 1e-2], [64, 128])[:-1]
    axis = draw_surface(records, "regularization", "projection_dim").axes[0]
    assert np.isnan(np.asarray(axis.images[0].get_array().filled(np.nan))).sum() == 1  # type: ignore[union-attr]
    assert not [found for found in axis.lines if found.get_label() == "failed"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "there are 0"),
        ([make(0.1, regularization=1.0)], "at least two points that did not fail, there are 1"),
        ([make(None, regularization=v) for v in (1.0, 2.0)], "there are 0"),
    ],
)
def test_too_little_for_a_curve_is_refused(records: list[AttributionRecord], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw_curve(records, "regularization", Marks())


def test_too_little_for_a_surface_is_refused() -> None:
    with pytest.raises(InputError, match="there are 2 and 1"):
        draw_surface(surface([1e-3, 1e-2], [64]), "regularization", "projection_dim")
    with pytest.raises(InputError, match="needs a point that did not fail"):
        draw_surface(surface([1e-3, 1e-2], [64, 128], (1e-3, 1e-2)), "regularization", "projection_dim")


def test_criterion_alone_can_be_drawn() -> None:
    figure = draw_criterion(GRID, [1 / (1 + (0.01 / value) ** 0.4) for value in GRID], 0.01)
    assert legend(figure) == ["selected (ξ) = 0.01"]
    assert_nothing_is_clipped_or_hidden(figure)


@pytest.mark.parametrize("kind", ["curve", "surface"])
def test_the_same_records_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    def draw() -> Figure:
        if kind == "curve":
            return draw_curve(path(failed=(1e-9,)), "regularization", Marks(0.0, 0.01, 0.001))
        return draw_surface(surface(GRID[:4], [64, 128]), "regularization", "projection_dim")

    for name in ("one", "two"):
        png = save_figure(draw(), tmp_path / name / "v1.2-figure")
        assert png == tmp_path / name / "v1.2-figure.png"
    for ending in ("svg", "png"):
        one, two = ((tmp_path / name / f"v1.2-figure.{ending}").read_bytes() for name in ("one", "two"))
        assert one == two
    svg = (tmp_path / "one" / "v1.2-figure.svg").read_text(encoding="utf-8")
    assert "<dc:date>" not in svg
    assert "on digits_mlp" in svg  # texts are texts: they can be searched and edited


def test_an_ending_in_the_stem_is_not_doubled(tmp_path: Path) -> None:
    png = save_figure(draw_criterion([0.1, 1.0], [0.4, 0.6], 0.1), tmp_path / "figure.png")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figure.png", "figure.svg"]
    assert png.name == "figure.png"
