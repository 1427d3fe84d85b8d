"""Leaderboards as data: which record counts, what ranks, what the cells say. No page is built."""

from pathlib import Path

import pytest
from leaderboard_records import make_record, make_removal, make_selection, make_study, make_use

from attriboard.leaderboard import formats
from attriboard.leaderboard.comparison import comparison
from attriboard.leaderboard.curves import curves
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.selector_table import selector_summary, selector_table
from attriboard.leaderboard.shortfalls import shortfalls
from attriboard.leaderboard.site import Site
from attriboard.leaderboard.study import CONTROLS, MethodStudy
from attriboard.leaderboard.tables import Row
from attriboard.records.verifications import verify_record
from attriboard.scoring.differences import lds_difference

SELECTED = {"variant": "selected", "selector": "surrogate"}


def site_of(*records) -> Site:
    return Site([Entry(record, record.id, Path()) for record in records], [], {})


def rows(*records, metric: str = "lds", task: str = "digits_mlp") -> dict[str, Row]:
    return {row.name: row for row in site_of(*records).tables[task][metric].rows}


def texts(row: Row, *keys: str) -> tuple[str, ...]:
    return tuple(row.cell(key).text for key in keys)


def test_cells_of_the_lds_board_are_the_records_numbers():
    default = make_record("iffim", 0.4)
    records = {
        "default": default,
        "selected": make_record("iffim", 0.5, **SELECTED),
        "oracle": make_record("iffim", 0.55, variant="oracle", selector="oracle"),
    }
    row = rows(*records.values(), make_selection("iffim"))["iffim"]
    for variant, record in records.items():
        cell, (low, high) = row.cell(variant), record.lds.ci95
        assert (cell.value, cell.text) == (record.lds.mean, f"{record.lds.mean:.3f}")
        assert cell.note == f"{low:.3f} to {high:.3f}"
        assert cell.link.path == f"records/{record.id}.html"
        assert cell.emphasis == (variant == "selected")
    assert row.cell("pearson").value == records["selected"].lds.pearson
    assert (row.cell("seconds").value, row.cell("memory").value) == (3.75, default.peak_bytes)
    assert (row.cell("regret").value, row.cell("regret").note) == (0.02, "0.010 to 0.030")
    assert row.cell("gap_closed").value == 0.9375
    assert texts(row, "seconds", "memory", "gap_closed", "rank", "status") == ("3.75", "812", "94 %", "1", "measured")
    assert row.cell("settings").text.startswith("checkpoints = 1, mode = exact, normalize = false")


def test_a_negative_score_has_a_minus_sign():
    record = make_record("sign_flipped", -0.3)
    assert texts(rows(record)["sign_flipped"], "default") == (f"−{-record.lds.mean:.3f}",)


def test_controls_are_shown_even_when_they_were_not_run():
    found = rows(make_record("iffim"), make_record("random", 0.0))
    assert set(found) >= set(CONTROLS)
    assert texts(found["embedding_similarity"], "status", "default") == ("not run", "—")
    assert texts(found["random"], "rank") == ("2",)


def test_controls_stay_in_view_on_every_leaderboard():
    records = [make_use("mislabel"), make_use("mislabel", "random"), make_removal("trak"), make_removal("random")]
    for metric in ("mislabel", "removal"):
        assert rows(*records, metric=metric)["random"].fixed


def test_the_flipped_control_is_minus_the_best_method_without_a_run():
    best = make_record("iffim", 0.5, **SELECTED)
    records = [make_record("iffim", 0.2), best, make_record("trak", 0.4), make_record("input_similarity", 0.9)]
    row = rows(*records, make_record("grad_dot", 0.8, variant="oracle", selector="oracle"))["sign_flipped"]
    low, high = best.lds.ci95
    assert row.cell("default").value == -best.lds.mean
    assert row.cell("default").note == f"−{high:.3f} to −{low:.3f}"
    assert row.cell("pearson").value == -best.lds.pearson
    assert row.cell("default").link.path == f"records/{best.id}.html"
    assert texts(row, "status", "rank") == ("derived", "—")
    assert "iffim" in row.cell("status").note
    assert row.heading.link is None, "it has no page of its own"


def test_a_record_of_the_flipped_control_takes_the_place_of_the_derived_row():
    best = make_record("iffim", 0.5)
    negates = {"record": best.id, "attributor": "iffim", "hyperparameters": {"regularization": 0.001}}
    flipped = make_record("sign_flipped", -0.45, negates=negates, hyperparameters={})
    row = rows(best, flipped)["sign_flipped"]
    assert row.cell("default").value == flipped.lds.mean
    assert (row.cell("status").text, row.cell("status").note) == ("measured", "negates iffim")
    assert texts(rows(make_record("random", 0.0))["sign_flipped"], "status") == ("not run",), "no method, no negative"


def test_the_oracle_considers_the_default():
    """Where the default is better on calibration points, it is the oracle, and regret is against it."""
    default = make_record("datainf", 0.3, calibration=0.31, hyperparameters={"regularization": None})
    selected = make_record("datainf", 0.2, **SELECTED, calibration=0.2, hyperparameters={"regularization": 1.0})
    tuned = {"variant": "oracle", "selector": "oracle"}
    oracle = make_record("datainf", 0.25, **tuned, calibration=0.25, hyperparameters={"regularization": 0.1})
    row = rows(default, selected, oracle, make_selection("datainf"))["datainf"]
    assert row.cell("oracle").text == row.cell("default").text
    assert row.cell("oracle").detail == "λ: method's rule, as default"
    assert row.cell("regret").value == pytest.approx(default.lds.mean - selected.lds.mean)
    row = rows(default.model_copy(update={"calibration": 0.1}), selected, oracle, make_selection("datainf"))["datainf"]
    assert (row.cell("oracle").value, row.cell("oracle").detail) == (oracle.lds.mean, "λ = 0.1")


def test_a_failure_is_a_row_with_its_reason():
    failed = make_record("datainf", status="failed", reason="nan: 500 of 500 rows")
    row = rows(make_record("iffim"), failed)["datainf"]
    assert texts(row, "rank", "default", "status") == ("—", "failed", "failed")
    assert row.cell("status").note == "nan"


def test_the_newest_record_of_a_variant_wins():
    old, new = make_record("iffim", 0.5), make_record("iffim", 0.3, created="2025-12-01T00:00:00Z")
    assert rows(new, old)["iffim"].cell("default").value == new.lds.mean


def test_a_newer_selection_that_starts_elsewhere_does_not_replace_that_of_the_defaults():
    default, chosen = make_record("iffim", 0.5), make_record("iffim", 0.6, **SELECTED)
    start = {"default__hyperparameters": default.hyperparameters}
    other = {"default__hyperparameters": default.hyperparameters | {"checkpoints": 5}}
    elsewhere = make_selection(
        "iffim", created="2027-12-01T00:00:00Z", **other, regret={"mean": 0.25, "ci95": [0.2, 0.3]}
    )
    found = rows(default, chosen, elsewhere)
    assert list(found)[:2] == ["iffim", "iffim, checkpoints = 5"]
    assert texts(found["iffim"], "regret", "gap_closed") == ("—", "—")
    version = found["iffim, checkpoints = 5"]
    assert (version.parent, version.heading.text) == ("iffim", "iffim, checkpoints = 5")
    assert texts(version, "rank", "default", "selected", "oracle", "regret") == (
        "—", "0.200", "0.500", "0.520", "0.250",
    )  # fmt: skip
    assert version.cell("selected").detail == "λ = 0.01"
    found = rows(default, chosen, elsewhere, make_selection("iffim", **start))
    assert found["iffim"].cell("regret").value == 0.02
    assert "iffim, checkpoints = 5" not in found


def test_a_method_that_was_run_beside_its_defaults_alone_has_one_row_there():
    settings = {"regularization": 0.0, "projection_dim": 4096}
    custom = make_record("iffim", 0.1, variant="custom", hyperparameters=settings)
    chosen = {"default__hyperparameters": settings, "selected__hyperparameters": settings | {"regularization": 10.0}}
    found = rows(custom, make_selection("iffim", **chosen), make_record("trak"))
    assert "iffim" not in found
    row = found["iffim, projection_dim = 4096"]
    assert row.parent == ""
    assert (row.cell("default").value, row.cell("default").detail) == (custom.lds.mean, "λ = 0")
    assert (row.cell("selected").text, row.cell("selected").detail) == ("0.500", "λ = 10")
    assert texts(row, "seconds", "status", "custom") == ("3.75", "measured", "—")


def test_what_was_chosen_by_hand_says_what_differs_from_the_defaults():
    default = make_record("ekfac", hyperparameters={"regularization": 1e-8, "fisher": "true"})
    by_hand = make_record(
        "ekfac", 0.5, variant="custom", hyperparameters={"regularization": 0.1, "fisher": "empirical"}
    )
    assert rows(default, by_hand)["ekfac"].cell("custom").detail == "fisher = empirical, λ = 0.1"


def test_a_dash_in_place_of_a_selected_score_has_its_reason():
    def why(*records) -> str:
        return rows(*records)[records[0].attributor.name].cell("selected").note

    no_lambda, has_lambda = ({"hyperparameters": {name: 0.1}} for name in ("epoch", "regularization"))
    failed = {"status": "failed", "reason": "timeout: not finished after 900 s"}
    refused = {"status": "failed", "regret": None, "selected": None}
    assert why(make_record("less", **no_lambda)) == "no λ"
    assert why(make_record("astra", **has_lambda)) == "ξ not run"
    assert why(make_record("astra", **has_lambda, **failed)) == "default failed: timeout"
    spectrum = make_selection("astra", **refused, reason="not_applicable: no spectrum")
    assert why(make_record("astra", **has_lambda), spectrum) == "λ, but no spectrum"
    diverged = {"status": "failed", "reason": "not_applicable: diverged: scaling = 50"}
    found = rows(
        make_record("if_lissa", **has_lambda, **diverged),
        make_record("if_lissa", **has_lambda, **SELECTED, **diverged),
        make_selection("if_lissa", **refused, reason=diverged["reason"]),
    )["if_lissa"]
    for variant in ("default", "selected"):
        assert (found.cell(variant).text, found.cell(variant).note) == ("failed", "diverged")


def test_a_measured_row_without_seconds_says_so():
    assert rows(make_record(score_seconds=None, fit_seconds=None))["iffim"].cell("seconds").note == "not timed"


@pytest.mark.parametrize(
    "change", [{"ground_truth__sha256": "ee" * 32}, {"task__version": 2}, {"task__fingerprint": "ee" * 32}]
)
def test_other_versions_never_share_a_table(change):
    old = make_record("trak", 0.6, created="2025-01-01T00:00:00Z", **change)
    site = site_of(make_record("iffim"), old)
    assert site.superseded == {old.id}
    assert "trak" not in {row.name for row in site.tables["digits_mlp"]["lds"].rows}


def test_records_that_need_no_ground_truth_are_current_on_any():
    site = site_of(
        make_record("iffim"),
        make_removal("trak", ground_truth=None),
        make_removal("trak", ground_truth=None, task__name="other_task"),
    )
    assert site.superseded == set()
    assert set(site.tables["other_task"]) == {"removal"}


def test_without_removal_there_is_no_leaderboard_of_it():
    assert set(site_of(make_record("iffim")).tables["digits_mlp"]) == {"lds"}


def test_selected_or_default_ranks_and_neither_custom_nor_oracle_nor_sweeps_do():
    found = rows(
        make_record("iffim"),
        make_record("outside", 0.7, variant="custom", attributor__origin="scores"),
        make_record("swept", 0.7, variant="sweep"),
        make_record("trak", 0.7, variant="oracle", selector="oracle"),
        make_record("tuned", 0.1),
        make_record("tuned", 0.6, **SELECTED),
    )
    ranked = {
        key: {name: row.cell(key).text for name, row in found.items() if row.cell(key).value is not None}
        for key in ("rank", "rank_default")
    }
    assert ranked == {"rank": {"tuned": "1", "iffim": "2"}, "rank_default": {"iffim": "1", "tuned": "2"}}
    assert texts(found["outside"], "status") == ("self-reported",)


def test_data_selection_has_default_beside_selected():
    records = [
        make_removal("iffim", 0.93),
        chosen := make_removal("iffim", 0.85, **SELECTED),
        make_removal("trak", 0.8, created="2025-01-01T00:00:00Z"),
        make_removal("trak", 0.9, created="2025-01-02T00:00:00Z"),
        make_removal("ekfac", 0.5, direction="harmful"),
        make_removal("datainf", status="failed", reason="nan: every row"),
    ]
    found = rows(*records, metric="removal")
    assert list(found) == ["nothing removed", "random subsets", "iffim", "trak", "datainf"]
    row = found["iffim"]
    assert row.cell("selected_50").detail == formats.chosen_regularization(chosen.hyperparameters)
    assert texts(row, "default_50", "selected_50", "difference_50", "default_10") == (
        "88.00 ± 0.58", "80.00 ± 0.58", "−8.00 ± 0.00", "92.00 ± 0.58",
    )  # fmt: skip
    assert row.cell("selected_50").value == pytest.approx(80)
    assert row.cell("selected_50").link.path == f"records/{chosen.id}.html"
    assert texts(found["datainf"], "default_50", "selected_50") == ("failed", "—")
    assert texts(found["trak"], "default_50") == ("85.00 ± 0.58",), "the newest counts"
    assert texts(found["nothing removed"], "default_50") == ("95.00 ± 0.58",)
    assert texts(found["random subsets"], "default_50") == ("94.00 ± 0.58",)
    beside = rows(make_record("iffim"), *records)
    assert (beside["iffim"].cell("removal").text, beside["iffim"].cell("removal").note) == ("80.0", "selected")
    assert beside["trak"].cell("removal").value == pytest.approx(85)


def test_seed_counts_are_noted_where_they_differ():
    two = [p | {k: {n: v[:2] for n, v in p[k].items()} for k in ("measured", "random")}
           for p in make_removal().to_json()["points"]]  # fmt: skip
    full = {"correct": [0.94, 0.95], "loss": [0.3, 0.2]}
    found = rows(
        make_removal("iffim"), make_removal("trak", points=two, full=full, retrain_seeds=[1, 2]), metric="removal"
    )
    assert found["iffim"].cell("default_50").note == "3 seeds"
    assert found["trak"].cell("default_50").note == "2 seeds"


def test_query_loss_differences_have_default_beside_selected_and_one_fraction():
    failed = {"status": "failed", "reason": "nan: all", "scores_sha256": None, "drop": None, "ci95": None}
    none = {"test_points": [], "removed": {}, "random": {}}
    found = rows(
        make_use("qld"),
        make_use("qld", "bad", **failed, **none),
        make_use("qld", **SELECTED, removed={"target": [0.5, 2.0, -3.0], "loss": [0.51, 0.51, 2.0]}, drop=9.5 / 3),
        make_use("qld", fraction=0.1, n_removed=130, removed={"target": [0.0] * 3, "loss": [0.0] * 3}, drop=3.0),
        metric="qld",
    )
    assert list(found) == ["iffim", "bad"]
    iffim = found["iffim"]
    assert texts(iffim, "default", "default_harmed", "default_loss") == ("1.167", "67 %", "−0.040")
    assert texts(iffim, "selected", "selected_harmed", "selected_loss") == ("3.167", "100 %", "0.500")
    assert iffim.cell("default").note == "−3.000 to 5.000, 3 points"
    assert iffim.cell("selected").detail.startswith("λ = ")
    assert texts(found["bad"], "default", "default_harmed") == ("failed", "—")


def test_brittleness_and_mislabel_detection_have_default_beside_selected():
    first = make_use("brittleness")
    failed = {"status": "failed", "reason": "nan: all", "scores_sha256": None}
    points = first.to_json()["points"]
    brittle = rows(
        first,
        make_use("brittleness", "bad", points=[], **failed),
        make_use("brittleness", **SELECTED, points=points[:1]),
        make_use("brittleness", "trak", points=points[2:]),
        metric="brittleness",
    )
    assert list(brittle) == ["iffim", "trak", "bad"]
    assert texts(brittle["bad"], "default", "default_flipped") == ("failed", "—")
    assert texts(brittle["iffim"], "default", "default_flipped", "selected", "selected_flipped") == (
        "11", "67 %", "4", "100 %",
    )  # fmt: skip
    assert brittle["iffim"].cell("default").note == "3 points, 50 % confirmed"
    assert texts(brittle["trak"], "default") == ("> 648",)
    assert {brittle[name].cell("default").detail for name in ("iffim", "trak")} == {
        formats.chosen_regularization(first.hyperparameters)
    }
    wrong = rows(
        make_use("mislabel"),
        make_use("mislabel", by="summed", auc=0.7, ci95=[0.6, 0.8], **SELECTED),
        metric="mislabel",
    )["iffim"]
    assert (wrong.cell("default_self").value, wrong.cell("default_self").note) == (0.95, "0.940 to 0.960")
    assert wrong.cell("selected_summed").detail.startswith("λ = ")
    assert (wrong.cell("selected_summed").value, wrong.cell("selected_summed").note) == (0.7, "0.600 to 0.800")


def test_where_the_surrogate_falls_short_is_counted_by_a_stated_rule():
    tuned = {"variant": "oracle", "selector": "oracle"}
    worse = [make_record("worse", 0.5), make_record("worse", 0.3, **SELECTED), make_record("worse", 0.5, **tuned)]
    far = [make_record("far", 0.1), make_record("far", 0.4, **SELECTED), make_record("far", 0.6, **tuned)]
    fine = [make_record("fine", 0.1), make_record("fine", 0.4, **SELECTED), make_record("fine", 0.42, **tuned)]
    given = [("worse", 0.2), ("far", 0.2001), ("fine", 0.02)]
    reports = [make_selection(name, regret={"mean": mean, "ci95": [0.0, 0.3]}) for name, mean in given]
    found = shortfalls(site_of(*worse, *far, *fine, *reports).tasks.values())
    assert (found.n, found.n_worse, found.n_far) == (3, 1, 2)
    assert [row.name for row in found.table.rows] == ["far on digits_mlp", "worse on digits_mlp"]
    row = found.table.rows[0]
    assert texts(row, "default", "selected", "oracle", "regret") == tuple(
        f"{value:.3f}" for value in (*(record.lds.mean for record in far), 0.2)
    )
    assert row.cell("selected").detail.startswith("λ = ")
    assert shortfalls(site_of(*fine, reports[-1]).tasks.values()) is None


def test_selectors_are_averaged_and_listed():
    refused = {"status": "failed", "reason": "not_applicable: no spectrum", "regret": None, "selected": None}
    studies = site_of(
        make_selection("iffim"),
        make_selection("trak", regret={"mean": 0.04, "ci95": [0.0, 0.1]}, rank_correlation=0.6),
        make_selection("datainf", **refused),
        make_selection(
            "iffim", "gcv", regret={"mean": 0.3, "ci95": [0.2, 0.4]}, rank_correlation=None, gap_closed=-5.34
        ),
        make_selection("bm25", gap_closed=-5.34, regret=None),
    ).tasks.values()
    summary = {row.name: row for row in selector_summary(studies).rows}
    assert summary["surrogate"].cell("regret").value == pytest.approx(0.03), "the mean of 0.02 and 0.04"
    assert summary["gcv"].cell("regret").value == 0.3
    assert summary["gcv"].cell("surrogate").value == 0.02, "the surrogate's on the same pair"
    assert summary["surrogate"].cell("failed").value == 2
    assert (summary["surrogate"].cell("gap_closed").text, summary["gcv"].cell("gap_closed").text) == (
        "94 %",
        "< −100\u00a0%",
    ), "the median, not led by one choice far below the default"
    chosen = selector_table(studies).rows[-1].cell("chosen")
    assert (chosen.text, chosen.note) == ("not applicable", "no spectrum")


def test_a_curve_without_points_at_the_default_is_drawn_where_the_selection_has_them():
    def at(dim: int, value: float, **changes):
        record = make_record("trak", hyperparameters={"projection_dim": dim, "regularization": value}, **changes)
        return Entry(record, record.id, Path())

    grid = [at(dim, value, variant="sweep") for dim in (64, 128, 256) for value in (0.01, 1.0, 100.0)]
    chosen = at(128, 1.0, **SELECTED)
    found = curves("t", MethodStudy("trak", [*grid, at(128, 0.0), chosen]), None)
    curve = next(c for c in found if c.axis.name == "projection_dim")
    assert curve.fixed == {"regularization": 1.0}
    assert curve.marks["selected"].value == 128


def test_a_curve_beside_the_defaults_is_marked_where_its_choice_started_and_ended():
    points = [{"projection_dim": 4096, "regularization": value} for value in (0.0, 0.01, 0.1, 1.0)]
    swept = [make_record("iffim", variant="sweep", hyperparameters=point) for point in points]
    chosen = make_selection(
        "iffim",
        default__hyperparameters=points[0],
        selected__hyperparameters=points[1],
        oracle__hyperparameters=points[2],
    )
    study = site_of(*swept, chosen).tasks["digits_mlp"].methods["iffim"]
    marks = curves("t", study, None)[0].marks
    assert {name: point.value for name, point in marks.items()} == {"default": 0.0, "selected": 0.01, "oracle": 0.1}


def test_the_showcase_is_of_the_task_with_most_of_the_headline_attributors():
    site = site_of(
        *make_study("trak", 0.5, task__name="a"),
        *make_study("iffim", 0.5, task__name="a"),
        *make_study("iffim", 0.5, task__name="b"),
    )
    assert [(curve.task, curve.attributor) for curve in site.showcase] == [("a", "iffim"), ("a", "trak")]


def test_of_several_such_tasks_the_showcase_is_of_the_one_where_lambda_matters_most():
    studies = [*make_study("iffim", 0.5, task__name="a"), *make_study("iffim", 0.5, task__name="b")]
    better = {"variant": "oracle", "selector": "oracle", "created": "2027-01-01T00:00:00Z"}
    for task in ("a", "b"):
        site = site_of(*studies, make_record("iffim", 0.6, task__name=task, **better))
        assert site.showcase[0].task == task


def test_what_cannot_be_right_is_shown_and_never_ranks():
    sound = make_record("iffim", 0.5)
    bound = sound.lds.ci95[0] - 0.1
    ok = make_record("trak", 0.6)
    claims_ok = ok.model_copy(update={"ceiling": bound})
    says_so = ok.model_copy(update={"ceiling": bound, "status": "implausible", "reason": "implausible: LDS 0.600"})
    for record in (claims_ok, says_so):
        found = rows(sound, record)
        assert texts(found["trak"], "rank", "rank_default", "default", "status") == (
            "—",
            "—",
            "implausible",
            "implausible",
        )
        assert texts(found["iffim"], "rank") == ("1",)
    verification = verify_record(ok, ok, "x").model_copy(update={"status": "implausible", "reason": "implausible: y"})
    entries = [Entry(sound, sound.id, Path()), Entry(ok, ok.id, Path(), verification)]
    found = {row.name: row for row in Site(entries, [], {}).tables["digits_mlp"]["lds"].rows}
    assert texts(found["trak"], "rank", "status") == ("—", "implausible")
    assert found["trak"].cell("status").note == "implausible: y"


def test_methods_are_compared_by_the_paired_difference_of_their_records():
    iffim, trak = make_record("iffim", 0.3), make_record("trak", 0.5)
    tuned = make_record("iffim", 0.6, **SELECTED)
    found = comparison(site_of(iffim, trak, tuned).tasks)
    assert found["methods"][:2] == ["iffim", "trak"], "best first, without retraining"
    task = found["tasks"]["digits_mlp"]
    for variant, one in (("default", iffim), ("headline", tuned)):
        expected = lds_difference(one.lds, trak.lds)
        assert task[variant]["differences"]["iffim trak"] == pytest.approx([expected.mean, *expected.ci95], abs=1e-6)
        assert task[variant]["scores"]["iffim"]["id"] == one.id
    assert "trak" not in task["selected"]["scores"]
    assert task["default"]["scores"]["iffim"]["chosen"].startswith("λ = ")


def test_a_comparison_says_why_a_method_has_no_score():
    failed = make_record("datainf", status="failed", reason="timeout: not finished after 900 s")
    elsewhere = make_record("datainf", 0.3, task__name="mnist_lr")
    less = make_record("less", 0.3, hyperparameters={"epoch": 1})
    found = comparison(site_of(make_record("iffim", 0.4), failed, elsewhere, less).tasks)["tasks"]
    task = found["digits_mlp"]
    assert task["headline"]["missing"] == {"datainf": "failed: timeout"}
    assert task["selected"]["missing"] == {
        "datainf": "default failed: timeout", "iffim": "ξ not run", "less": "no λ",
    }  # fmt: skip
    assert task["oracle"]["missing"] == {"datainf": "not run", "iffim": "not run", "less": "no λ"}
    assert found["mnist_lr"]["default"]["missing"] == {"iffim": "not run", "less": "not run"}
