"""Figures: every point is there, what the browser fills is what files are made of, and the bytes repeat."""

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from leaderboard_records import make_cost, make_removal, make_use

from attriboard.base.errors import InputError
from attriboard.leaderboard.curves import curves
from attriboard.leaderboard.plots.charts import PAGE, PRINT, filled, save_figure, svg, templates
from attriboard.leaderboard.plots.curves import PAGE_SIZE, curve_chart, curve_figure
from attriboard.leaderboard.plots.selection_cost import draw_selection_cost
from attriboard.leaderboard.plots.sweeps import Marks, draw_curve, draw_surface, marks_of, sweep_curve
from attriboard.leaderboard.plots.uses import draw_brittleness, draw_qld, draw_recall, draw_removal, draw_removal_sweep
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.removal_rows import removal_rows
from attriboard.leaderboard.study import MethodStudy
from attriboard.records.model import AttributionRecord

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "record-v1.json").read_text(encoding="utf-8"))
SVG = "http://www.w3.org/2000/svg"
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


def drawn(chart: Any) -> tuple[list[str], str]:
    """Texts of the rendered figure, and the whole of it; what is drawn must lie within the picture."""
    text = svg(chart)
    root = ET.fromstring(text)
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    assert width < 900
    assert height < 900
    return [line for kind in ("text", "tspan") for e in root.iter(f"{{{SVG}}}{kind}") if (line := e.text)], text


def datasets(part: Any) -> list[list[dict[str, Any]]]:
    """All data of a chart, in order."""
    if isinstance(part, dict):
        own = [part["values"]] if isinstance(part.get("values"), list) and len(part) == 1 else []
        return own + [found for value in part.values() for found in datasets(value)]
    return [found for value in part for found in datasets(value)] if isinstance(part, list) else []


def points(chart: Any) -> list[dict[str, Any]]:
    return max(datasets(chart), key=lambda rows: (all("at" in row for row in rows), len(rows)))


def layer(chart: Any, kind: str) -> Any:
    """The last layer of a kind of mark."""
    return [found for found in chart["layer"] if found["mark"]["type"] == kind][-1]


def test_curve_has_every_point_its_interval_its_failures_and_its_marks() -> None:
    failed = (GRID[0], GRID[1], GRID[5])
    records = path(failed=failed)
    chart = draw_curve(records, "regularization", marks_of(records, "regularization", 0.0))
    rows = points(chart)
    assert [row["at"] for row in rows] == pytest.approx([math.log10(value) for value in GRID], abs=1e-4)
    good = [row for row in rows if "lds" in row]
    assert [row["lds"] for row in good] == [bell(value) for value in GRID if value not in failed]
    assert all(row["high"] - row["low"] == pytest.approx(0.1) for row in good)
    assert [row["reason"] for row in rows if "lds" not in row] == ["nan: all rows"] * 3
    texts, _ = drawn(chart)
    assert {"default = 0", "selected (ξ) = 0.01", "oracle = 0.00316", "noise ceiling 0.800"} <= set(texts)
    assert {"iffim on digits_mlp", "mean ξ", "regularization λ (log)", "0", "1e-9", "1000"} <= set(texts)
    assert texts.count("regularization λ (log)") == 1


@pytest.mark.parametrize(("default", "place"), [(0.0, -10.0), (1e6, 6.0), (1e-3, -3.0)])
def test_a_default_that_was_not_run_has_its_place_on_the_axis(default: float, place: float) -> None:
    curve = sweep_curve(path(), "regularization", Marks(default=default))
    assert curve.axis.position(default) == pytest.approx(place)
    assert (curve.marks["default"].lds is None) == (default not in GRID)


def test_narrow_range_stays_linear_and_a_curve_without_xi_has_one_panel() -> None:
    epochs = [make(0.1 + 0.01 * epoch, epoch=epoch) for epoch in (1, 2, 5, 10, 15)]
    chart = draw_curve(epochs, "epoch", marks_of(epochs, "epoch", None))
    texts, _ = drawn(chart)
    assert len(chart["vconcat"]) == 1
    assert "epoch" in texts
    assert not any(text.startswith("default") for text in texts)


def test_points_without_a_number_are_left_out_of_a_curve() -> None:
    records = [make(0.2, projection_dim=None), *(make(0.3, projection_dim=d) for d in (8, 16))]
    assert [row["label"] for row in points(draw_curve(records, "projection_dim", Marks()))] == ["8", "16"]


def test_marks_follow_from_xi_and_calibration_points() -> None:
    records = [make(0.2, 0.1, regularization=1.0), make(0.5, 0.2, regularization=2.0), make(0.3, 0.6, regularization=3)]
    assert marks_of(records, "regularization", 0.0) == Marks(0.0, 3.0, 2.0)
    assert marks_of(records, "epoch", None) == Marks()
    assert marks_of([make(None, regularization=1.0)], "regularization", 1) == Marks(default=1.0)


def test_a_page_has_the_same_figure_in_the_colors_of_its_theme() -> None:
    curve = sweep_curve(path(), "regularization", Marks(0.0, 0.01, 0.001))
    legend = {name: name for name in curve.marks}
    page, print_ = (curve_chart(curve, "λ", legend, PAGE_SIZE, colors) for colors in (PAGE, PRINT))
    assert datasets(page) == datasets(print_)
    text = str(curve_figure(curve))
    assert "var(--selected)" in text
    assert not any(color in text for color in PRINT.values())
    assert f"selected at 0.01: {bell(0.01):.3f}" in text, "in words, for those who do not see it"


@pytest.mark.parametrize(
    ("columns", "rows", "failed"),
    [(GRID, [64, 512, 1024, 4096, 8192], (1e-9,)), ([1e-4, 1e-2], [64, 128], ()), (GRID[:5], [64, 128, 256], (1e-9,))],
    ids=["many", "few", "some"],
)
def test_surface_has_every_cell(columns: list[float], rows: list[int], failed: tuple[float, ...]) -> None:
    records = surface(columns, rows, failed)
    chart = draw_surface(records, "regularization", "projection_dim")
    cells, marks = (layer(chart, kind)["data"]["values"] for kind in ("rect", "point"))
    assert sorted(cell["lds"] for cell in cells if "lds" in cell) == sorted(r.lds.mean for r in records if r.lds)
    assert sum("reason" in cell for cell in cells) == len(failed) * len(rows)
    assert all(("text" in cell) == (len(cells) <= 100) for cell in cells if "lds" in cell)
    assert [mark["mark"] for mark in marks] == ["selected (ξ)"] * len(rows) + ["best"], "one pick per projection"
    assert marks[-1]["lds"] == max(r.lds.mean for r in records if r.lds)
    texts, _ = drawn(chart)
    assert {str(row) for row in rows} <= set(texts)
    assert texts.count("×") == len(failed) * len(rows)


def test_a_surface_says_which_cells_were_not_run() -> None:
    full = surface([1e-3, 1e-2, 1e-1], [64, 128])
    values = draw_surface(full[:-1], "regularization", "projection_dim")["layer"][0]["data"]["values"]
    assert values == [{"value": "0.1", "second": "128", "state": "not run"}]
    texts, _ = drawn(draw_surface(full[:-1], "regularization", "projection_dim"))
    assert "not run" in texts
    assert "not run" not in drawn(draw_surface(full, "regularization", "projection_dim"))[0]


@pytest.mark.parametrize(("xi", "said"), [((0.6, 0.9), "ξ̄ is above ½"), ((0.1, 0.4), "ξ̄ is below ½"), ((0.1, 0.9), "")])
def test_a_curve_says_where_xi_crosses_one_half_nowhere(xi: tuple[float, float], said: str) -> None:
    low, high = xi
    records = [make(0.3, low + (high - low) * k / 5, regularization=10.0 ** (k - 5)) for k in range(6)]
    texts, _ = drawn(draw_curve(records, "regularization", marks_of(records, "regularization", 0.0)))
    assert [text for text in texts if "½" in text and said in text] == [t for t in texts if "½" in t]
    assert any("½" in text for text in texts) == bool(said)


@pytest.mark.parametrize(("pick", "align"), [(1e-9, "right"), (1e3, "left")])
def test_the_text_of_the_ceiling_is_away_from_the_line_of_the_pick(pick: float, align: str) -> None:
    layers = draw_curve(path(), "regularization", Marks(selected=pick))["vconcat"][0]["layer"]
    assert [layer["mark"]["align"] for layer in layers if layer["mark"]["type"] == "text"] == [align]


def test_surface_of_other_hyperparameters_has_no_picks() -> None:
    records = [make(0.1 * i + 0.01 * j, epoch=i, checkpoints=j) for i in (1, 2) for j in (1, 2, 3)]
    chart = draw_surface(records, "epoch", "checkpoints")
    assert [mark["mark"] for mark in layer(chart, "point")["data"]["values"]] == ["best"]


def test_removal_is_a_line_per_variant_and_equal_ones_are_drawn_once() -> None:
    selected = {"variant": "selected", "selector": "surrogate"}
    worse = [make_removal("trak", 0.7).to_json()["points"][0] | {"rate": rate, "n_removed": 9} for rate in (0.1, 0.5)]
    for point in worse:
        point["measured"] = {"correct": [0.6, 0.7, 0.8], "loss": [1.0, 1.1, 1.2]}
    records = [make_removal("iffim"), make_removal("iffim", **selected), make_removal("trak", points=worse)]
    chart = draw_removal(removal_rows(records, [0.1, 0.5]), "digits_mlp")
    rows = chart["layer"][0]["data"]["values"]
    assert {row["series"] for row in rows} == {"random examples", "iffim, default", "trak, default"}
    trak = [row for row in rows if row["series"] == "trak, default"]
    assert [row["x"] for row in trak] == [0.0, 0.1, 0.5]
    assert [row["y"] for row in trak] == pytest.approx([95, 70, 70])
    assert [row["high"] - row["y"] for row in trak] == pytest.approx([1 / 3**0.5, 10 / 3**0.5, 10 / 3**0.5])
    assert {"random examples", "accuracy (%)"} <= set(drawn(chart)[0])


def test_removal_over_a_hyperparameter_has_a_panel_of_its_own() -> None:
    graded = path()
    removed = [make_removal("iffim", 0.9, variant="sweep", hyperparameters={"regularization": v}) for v in GRID[::6]]
    chart = draw_removal_sweep(graded, removed, "regularization", 0.5, marks_of(graded, "regularization", 0.0))
    assert len(chart["vconcat"]) == 3
    rows = chart["vconcat"][1]["data"]["values"]
    assert [row["at"] for row in rows] == pytest.approx([math.log10(value) for value in GRID[::6]], abs=1e-4)
    assert [row["y"] for row in rows] == pytest.approx([85] * 5)
    assert {"accuracy (%)", "with 50 % removed"} <= set(drawn(chart)[0])


def test_brittleness_is_the_share_flipped_by_each_size() -> None:
    chart = draw_brittleness([make_use("brittleness"), make_use("brittleness"), make_use("brittleness", "trak")])
    rows = [row for row in chart["layer"][0]["data"]["values"] if row["series"] == "iffim, default"]
    assert [(row["x"], round(row["y"])) for row in rows] == [
        (1, 0), (2, 0), (4, 33), (8, 33), (11, 67), (16, 67), (648, 67),
    ]  # fmt: skip
    assert {"iffim, default", "trak, default"} <= set(drawn(chart)[0])


def test_query_loss_differences_are_the_share_of_points_that_drop_by_at_least_so_much() -> None:
    chart = draw_qld([make_use("qld"), make_use("qld", "trak")])
    rows = [row for row in chart["layer"][0]["data"]["values"] if row["series"] == "iffim, default"]
    assert [(row["x"], round(row["y"])) for row in rows] == [(-0.25, 100), (0.75, 67), (3.0, 33)]
    assert {"iffim, default", "trak, default", "drop of the margin beyond that of random removals"} <= set(
        drawn(chart)[0]
    )


def test_recall_begins_at_nothing_and_ends_at_everything() -> None:
    chart = draw_recall([make_use("mislabel")])
    rows = [row for row in chart["layer"][0]["data"]["values"] if row["series"] != "chance"]
    assert [(row["x"], row["y"]) for row in rows] == [(0, 0), (10, 60), (20, 90), (100, 100)]
    assert "iffim, default: AUC 0.950" in drawn(chart)[0]


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


def test_too_little_for_other_figures_is_refused() -> None:
    with pytest.raises(InputError, match="there are 2 and 1"):
        draw_surface(surface([1e-3, 1e-2], [64]), "regularization", "projection_dim")
    with pytest.raises(InputError, match="needs a point that did not fail"):
        draw_surface(surface([1e-3, 1e-2], [64, 128], (1e-3, 1e-2)), "regularization", "projection_dim")
    for draw in (draw_brittleness, draw_qld, draw_recall):
        with pytest.raises(InputError, match="did not fail"):
            draw([])
    with pytest.raises(InputError, match="did not fail"):
        draw_removal([], "digits_mlp")
    with pytest.raises(InputError, match="needs two points, there are 0"):
        draw_removal_sweep(path(), [], "regularization", 0.5, Marks())


def test_every_name_in_a_template_is_a_template_or_filled() -> None:
    for chart in (
        draw_curve(path(), "regularization", Marks(0.0)),
        draw_surface(surface([1e-3, 1e-2], [64, 128]), "regularization", "projection_dim"),
        draw_recall([make_use("mislabel")]),
    ):
        assert '"$' not in json.dumps(chart)
    with pytest.raises(KeyError):
        filled("lines", {})
    assert {"config", "curve", "surface", "lines"} <= set(templates())


def test_the_same_records_give_the_same_bytes_and_an_ending_is_not_doubled(tmp_path: Path) -> None:
    for name in ("one", "two"):
        chart = draw_curve(path(failed=(1e-9,)), "regularization", Marks(0.0, 0.01, 0.001))
        assert save_figure(chart, tmp_path / name / "v1.2-figure") == tmp_path / name / "v1.2-figure.png"
    for ending in ("svg", "png"):
        one, two = ((tmp_path / name / f"v1.2-figure.{ending}").read_bytes() for name in ("one", "two"))
        assert one == two
    assert "on digits_mlp" in (tmp_path / "one" / "v1.2-figure.svg").read_text(encoding="utf-8"), "texts stay texts"
    save_figure(draw_recall([make_use("mislabel")]), tmp_path / "figure.png")
    assert sorted(file.name for file in tmp_path.glob("figure*")) == ["figure.png", "figure.svg"]


def test_regret_by_retrains_has_xi_at_zero_the_oracle_at_the_right_and_the_seconds_below() -> None:
    chart = draw_selection_cost([make_cost(), make_cost("trak")], "digits_mlp")
    _, band, line, dots, marks = chart["layer"]
    rows = line["data"]["values"]
    assert band["data"] == line["data"] == dots["data"]
    assert [(row["at"], row["mean"], row["low"], row["high"]) for row in rows if row["series"] == "trak"] == [
        (1.0, 0.04, 0.0, 0.09),
        (3.0, 0.0123, -0.001, 0.0456),
        (4.0, 0.004, -0.002, 0.01),
    ]
    by_name = {(mark["series"], mark["who"]): mark for mark in marks["data"]["values"]}
    assert by_name["iffim", "surrogate"]["at"] == 0.0
    assert by_name["iffim", "surrogate"]["mean"] == 0.05
    assert by_name["trak", "oracle"]["at"] > 4.0
    assert '"3.00": ["8", "20.0"]' in line["encoding"]["x"]["axis"]["labelExpr"]
    assert "<svg" in svg(chart)
    with pytest.raises(InputError, match="at least one record"):
        draw_selection_cost([], "nothing")


def test_a_curve_without_a_mark_has_a_height():
    """A layer without data would leave the scale of its legend without an end, and the drawing with it."""
    drawn = svg(curve_chart(sweep_curve(path(xi=False), "regularization", Marks()), "λ", {}, PAGE_SIZE))
    assert "Infinity" not in drawn
    assert float(ET.fromstring(drawn).attrib["height"]) > 100


def test_a_sweep_of_which_every_point_failed_is_a_sentence():
    records = [make(None, regularization=value) for value in (0.1, 1.0, 10.0)]
    method = MethodStudy("iffim", [Entry(record, record.id, Path()) for record in records])
    assert curve_figure(curves("t", method, None)[0]) == (
        '<p class="reason">All 3 configurations failed: nan: all rows.</p>'
    )
