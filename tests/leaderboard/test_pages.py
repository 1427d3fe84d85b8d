"""The pages of one site: numbers, links, failures, escaping. It is built once."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
from leaderboard_pages import Page
from leaderboard_records import (
    LAMBDAS,
    make_cost,
    make_path,
    make_record,
    make_removal,
    make_selection,
    make_study,
    make_use,
)

from attriboard.base.digests import digest_file
from attriboard.contracts.card import load_card
from attriboard.groundtruth.listing import BundleRegistry, write_listing
from attriboard.leaderboard import formats
from attriboard.leaderboard.board import build_board
from attriboard.leaderboard.citations import citation
from attriboard.records.files import write_record
from attriboard.records.metasmoothness import Metasmoothness, SmoothnessRow, write_metasmoothness

ROOT = Path(__file__).parent.parent.parent
BUNDLES = ROOT / "leaderboard" / "groundtruth"
BOARD = "leaderboards/digits_mlp-lds.html"
ATTACK = "<script>alert(1)</script>"
URL = "https://lab.org/board/"


def hostile() -> list:
    """Records with markup in every text."""
    fields = {"attributor__paper": ATTACK, "attributor__family": ATTACK, "hyperparameters": {ATTACK: f'"{ATTACK}'}}
    machine = {"cpu": ATTACK, "cores": 2, "memory_bytes": 1, "gpu": ATTACK}
    more = {
        "provenance__hardware": machine,
        "provenance__platform": ATTACK,
        "provenance__python": ATTACK,
        "provenance__packages": {ATTACK: ATTACK},
        "provenance__command_line": [ATTACK],
        "provenance__attriboard": ATTACK,
    }
    return [
        make_record("attacked", **fields, **more),
        make_record("linked", attributor__paper="javascript:alert(1)"),
        make_record("broken", status="failed", reason=f"crash: {ATTACK}", **more),
        make_selection("attacked", note=ATTACK, **more),
    ]


def records() -> SimpleNamespace:
    """What the site is built from, by the role that it plays."""
    sweep = {"variant": "sweep", "status": "failed"}
    flipped = {"task__name": "digits_mlp_flipped", "ground_truth": None}
    fingerprint = load_card(ROOT / "tasks" / "digits_mlp_flipped.yaml").fingerprint
    study = make_study("iffim", 0.5)
    best = study[1]
    return SimpleNamespace(
        study=study,
        failed=make_record("datainf", status="failed", reason="nan: 500 of 500 rows"),
        alike=[
            make_record("swept", **sweep, reason="nan: all", hyperparameters={"regularization": value, "epoch": 3})
            for value in (0.1, 0.2)
        ],
        unlike=make_record("swept", **sweep, reason="crash: 9", hyperparameters={"epoch": 5}),
        other_task=make_record(task__name="mnist_lr", created="2025-01-01T00:00:00Z"),
        unknown_task=make_record(task__name="unknown_task"),
        old=make_record("trak", 0.6, created="2025-01-01T00:00:00Z", task__version=2),
        removal=make_removal("iffim", 0.93),
        no_removal=make_removal("ekfac", status="failed", reason="nan: every row"),
        brittleness=make_use("brittleness"),
        qld=make_use("qld"),
        mislabel=make_use("mislabel"),
        without_truth=[
            make_use("mislabel", name, **flipped, task__fingerprint=fingerprint, auc=auc, ci95=[auc - 0.01, auc + 0.01])
            for name, auc in (("iffim", 0.95), ("trak", 0.935), ("less", 0.9))
        ],
        hostile=hostile(),
        cost=make_cost(),
        old_cost=make_cost(created="2025-01-01T00:00:00Z", retrain_seconds=9.0),
        negated=make_record(
            "sign_flipped", -0.5, negates={"record": best.id, "attributor": "iffim", "hyperparameters": {"seen": 3}}
        ),
    )


@pytest.fixture(scope="module")
def made() -> SimpleNamespace:
    return records()


@pytest.fixture(scope="module")
def site(made, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for part in vars(made).values():
        for record in part if isinstance(part, list) else [part]:
            write_record(record, folder / "results")
    build_board([folder / "results"], folder / "www", url=URL)
    return folder / "www"


@pytest.fixture(scope="module")
def bundles_alone(tmp_path_factory):
    """A site of the published bundles without a record."""
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "results").mkdir()
    build_board([folder / "results"], folder / "www", BUNDLES)
    return folder / "www"


@pytest.fixture(scope="module")
def page(site):
    read: dict[str, Page] = {}
    return lambda path: read.get(path) or read.setdefault(path, Page(site / path))


def test_numbers_on_the_leaderboard_are_exact_and_lead_to_their_records(made, page):
    board = page(BOARD)
    row, exact = board.rows["iffim"], board.exact["iffim"]
    for record in made.study[:3]:
        low, high = record.lds.ci95
        chosen = f"λ = {record.hyperparameters['regularization']:g}"
        assert row[record.variant] == f"{record.lds.mean:.3f}{low:.3f} to {high:.3f}".replace("-", "−") + chosen
        assert float(exact[record.variant]) == record.lds.mean
        assert f"../records/{record.id}.html" in board.links
    assert "0.810" in board.text, "the noise ceiling"


def test_a_record_page_has_every_number_its_json_and_the_command(made, site, page):
    record = made.study[0]
    shown = page(f"records/{record.id}.html")
    assert json.loads((site / "records" / f"{record.id}.json").read_text()) == record.to_json()
    for number in (record.lds.mean, *record.lds.ci95, record.lds.pearson, record.ceiling, record.fit_seconds):
        assert str(number) in shown.text
    for text in (record.scores_sha256, record.ground_truth.sha256, record.task.fingerprint, record.created):
        assert text in shown.text
    assert f"attriboard run {record.id}.json" in shown.text
    assert f"{record.id}.json" in shown.links
    assert f"{URL}records/{record.id}.html" in shown.text


def test_a_record_page_rounds_first_says_its_rank_and_can_be_cited(made, site, page):
    ranked = next(record for record in made.study if record.variant == "selected")
    shown = page(f"records/{ranked.id}.html")
    first = shown.source.partition("<summary>Exact values")[0]
    assert f"{ranked.lds.mean:.3f}" in first
    assert f"{ranked.lds.mean}<" not in first, "exact values come later"
    assert re.search(r"Rank by LDS</dt><dd><a href=\"../leaderboards/digits_mlp-lds.html\">\d+ of \d+</a>", first)
    low, high = ranked.lds.ci95
    entry = shown.text.partition(f"@misc{{attriboard-{ranked.id},")[2].partition("Provenance")[0]
    assert (
        f"iffim on digits\\_mlp, selected ($\\lambda$ = 0.01): LDS {ranked.lds.mean:.3f} [{low:.3f}, {high:.3f}]"
        in entry
    )
    assert f"url    = {{{URL}records/{ranked.id}.html}}" in entry
    assert "data-copy" in shown.source


def test_a_failed_record_is_not_cited(made, page):
    assert "Cite this number" not in page(f"records/{made.failed.id}.html").text


def test_without_an_address_a_citation_names_the_record():
    record = make_use("mislabel")
    found = citation(record, record.id, "")
    assert "iffim on digits\\_mlp, mislabel detection, by self-influence, default" in found
    assert "AUC 0.950 [0.940, 0.960]" in found
    assert f"howpublished = {{AttriBoard record {record.id}}}" in found


def test_records_of_every_kind_round_first_and_lead_to_their_board(made, page):
    selection = made.study[-1]
    exact = {
        "selection": (selection, "0.9375"),
        "removal": (made.removal, str(made.removal.fit_seconds)),
        "qld": (made.qld, str(made.qld.drop)),
        "mislabel": (made.mislabel, str(made.mislabel.peak_bytes)),
        "brittleness": (made.brittleness, str(made.brittleness.fit_seconds)),
        "selection_cost": (made.cost, "0.33"),
    }
    for kind, (record, number) in exact.items():
        shown = page(f"records/{record.id}.html")
        first, _, rest = shown.source.partition("<summary>Exact values")
        assert number.replace(",", "") in rest.replace(",", ""), kind
        board = {"selection": "leaderboards/digits_mlp-lds", "selection_cost": "selectors"}
        assert f'href="../{board.get(kind, f"leaderboards/digits_mlp-{kind}")}.html"' in first, kind
    assert "regret 0.020" in page(f"records/{selection.id}.html").words
    assert "Gap closed94 %" in page(f"records/{selection.id}.html").words


def test_a_record_of_the_oracle_says_whose_lambda_it_has(made, page):
    shown = page(f"records/{made.study[2].id}.html").words
    assert "iffim on digits_mlp, with the oracle's λ:" in shown
    assert "Selector surrogate, iffim on digits_mlp: regret 0.020" in page(f"records/{made.study[-1].id}.html").words


def test_one_of_something_has_no_plural_and_short_work_is_in_seconds():
    assert (formats.counted(1, "retrain"), formats.counted(1200, "retrain")) == ("1 retrain", "1,200 retrains")
    assert (formats.process_time(12.34), formats.process_time(7200)) == ("12.3 process-seconds", "2.0 process-hours")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("attriboard", "run", "a", "b", "--out", "x y"), "attriboard run a b"),
        (("attriboard", "select", "--out", "x", "a", "b"), "attriboard select a b"),
        (("attriboard", "run", "a", "b"), "attriboard run a b"),
    ],
)
def test_the_original_command_has_no_output_folder(words, expected):
    record = make_record("iffim")
    provenance = record.provenance.model_copy(update={"command_line": words})
    assert formats.original_command(record.model_copy(update={"provenance": provenance})) == expected


def test_records_of_uses_say_what_was_found_and_how_to_repeat_it(made, page):
    brittle = page(f"records/{made.brittleness.id}.html").words
    assert "11 training examples" in brittle
    assert "more than" not in brittle
    wrong = page(f"records/{made.mislabel.id}.html").words
    assert "AUC 0.950, 95 % interval 0.940 to 0.960, in finding 130 wrong labels by self-influence" in wrong
    shown = page(f"records/{made.qld.id}.html").words
    assert "own top 13 training examples, its margin drops by 1.167 more than without as many random ones" in shown
    assert "67 % of 3 points are harmed" in shown.replace("\u00a0", " ")
    for record in (made.brittleness, made.qld, made.mislabel, made.removal):
        assert f"attriboard run {record.id}.json" in page(f"records/{record.id}.html").text


@pytest.mark.parametrize("path", ["selectors.html", "tasks/digits_mlp.html"])
def test_what_choosing_costs_is_a_table_and_a_figure_of_the_newest_record(made, page, path):
    shown = page(path)
    assert f"records/{made.cost.id}.html" in " ".join(shown.links)
    assert f"records/{made.old_cost.id}.html" not in " ".join(shown.links)
    for text in ("0.0123", "90 %: 0.0456", "0.37", "0.33 to 0.42", "0.0777", "20.0"):
        assert text in shown.words
    assert "Mean regret of λ on digits_mlp; iffim: ξ 0.050, 0.040 with 2 retrains, 0.004 with 16" in shown.source


def test_a_record_of_what_choosing_costs_has_every_rule_and_pick(made, page):
    shown = page(f"records/{made.cost.id}.html").words
    assert "What choosing regularization of iffim on digits_mlp costs: 3 grid points, 200 random draws" in shown
    assert "1 grid point failed and is left out" in shown
    assert "pooled correlations, ξ as a prior, between grid points between" in shown, "the rule in words, and its name"
    assert "ω: what ξ must equal where LDS peaks" in shown
    assert "0.0400 90 %: 0.0900" in shown
    assert "not_applicable: no kernel" in shown
    assert f"attriboard run {made.cost.id}.json" in page(f"records/{made.cost.id}.html").text


def test_a_record_of_the_flipped_control_names_and_links_the_record_that_it_negates(made, page):
    shown, best = page(f"records/{made.negated.id}.html"), made.study[1]
    assert f"{best.id}.html" in shown.links
    assert "seen = 3" in shown.text
    assert f"attriboard run {best.id}.json" in shown.text


def test_a_failure_is_shown_on_its_own_board_its_attributors_page_and_its_record(made, page):
    assert page(BOARD).rows["datainf"]["status"] == f"failed{made.failed.reason.partition(':')[0]}"
    assert made.failed.reason in page("attributors/datainf.html").text
    assert "ekfac, default: nan: every row" in page("leaderboards/digits_mlp-removal.html").words
    assert "nan: every row" in page("attributors/ekfac.html").text
    assert "nan: every row" in page(f"records/{made.no_removal.id}.html").text
    assert "nan: every row" not in page(BOARD).text, "a failure is on the board of what was tried"


def test_a_reason_is_listed_once_with_a_link_to_every_record(made, page):
    swept = page("attributors/swept.html")
    assert swept.text.count("nan: all") == 1
    assert "With epoch = 3: regularization = 0.1; regularization = 0.2" in swept.words
    assert {f"../records/{record.id}.html" for record in (*made.alike, made.unlike)} <= set(swept.links)


def test_superseded_records_keep_their_page(made, page):
    assert "superseded record" in page(BOARD).text
    assert "Superseded" in page(f"records/{made.old.id}.html").text


def test_a_task_without_an_lds_shows_its_best_number_its_card_and_no_empty_column(page):
    overview = page("index.html")
    assert "0.950 AUC of finding wrong labels iffim, trak" in overview.words, "their intervals overlap"
    matrix = overview.source.split('<table class="matrix">')[1].split("</thead>")[0]
    assert "digits_" in matrix
    assert "flipped" not in matrix
    assert "No retrains, nothing to download." in page("downloads.html").words
    task = page("tasks/digits_mlp_flipped.html")
    assert "needs no retrains" in task.text
    assert "1,297 / 500" in task.text


def test_a_leaderboard_names_the_methods_that_were_not_run(page):
    words = page(BOARD).words
    assert re.search(r"\d+ of \d+ built-in methods were not run here: .*\bastra\b", words)
    assert "iffim" not in words.partition("were not run here: ")[2].partition(".")[0]


def test_an_attributors_page_has_its_versions_and_what_was_chosen_by_hand(tmp_path):
    settings = {"regularization": 0.1, "fisher": "true"}
    for record in (
        make_record("ekfac", 0.4, hyperparameters=settings),
        make_record("ekfac", 0.5, variant="custom", hyperparameters=settings | {"fisher": "empirical"}),
        make_selection("ekfac", default__hyperparameters=settings | {"fisher": "blocks"}),
    ):
        write_record(record, tmp_path / "results")
    build_board([tmp_path / "results"], tmp_path / "www")
    shown = Page(tmp_path / "www" / "attributors" / "ekfac.html")
    assert "Custom" in shown.words
    assert "fisher = empirical, λ = 0.1" in shown.words
    assert "digits_mlpfisher = blocks 0.200λ = 0.10.500λ = 0.010.520λ = 0.1" in shown.words


def test_a_card_is_not_shown_for_another_fingerprint(tmp_path):
    write_record(make_use("mislabel", task__name="digits_mlp_flipped", ground_truth=None), tmp_path / "results")
    build_board([tmp_path / "results"], tmp_path / "www")
    assert "1,297" not in Page(tmp_path / "www" / "tasks" / "digits_mlp_flipped.html").text


def test_a_task_page_shows_the_newest_metasmoothness_of_its_own_card(tmp_path):
    card = load_card(ROOT / "tasks" / "digits_mlp_flipped.yaml")
    record = make_use("mislabel", task__name=card.name, task__fingerprint=card.fingerprint, ground_truth=None)
    write_record(record, tmp_path / "results")
    fields = {"task": record.task, "provenance": record.provenance}
    for created, value in (("2026-01-02T00:00:00Z", 0.25), ("2026-01-01T00:00:00Z", 0.75)):
        row = SmoothnessRow(step=0.1, parameters=(value, value + 0.1), outputs=(0.5, 0.52))
        write_metasmoothness(Metasmoothness(created=created, rows=(row,), **fields), tmp_path / "results")
    other = record.task.model_copy(update={"fingerprint": "0" * 64})
    row = SmoothnessRow(step=0.1, parameters=(-0.9,), outputs=(-0.9,))
    late = Metasmoothness(created="2026-01-03T00:00:00Z", rows=(row,), provenance=record.provenance, task=other)
    write_metasmoothness(late, tmp_path / "results")
    build_board([tmp_path / "results"], tmp_path / "www")
    shown = Page(tmp_path / "www" / "tasks" / f"{card.name}.html").words
    shown = Page(tmp_path / "www" / "tasks" / f"{card.name}.html").words
    assert "0.10.300 0.250 to 0.3500.510 0.500 to 0.520" in shown
    assert "0.800" not in shown
    assert "-0.900" not in shown.replace("−", "-")


def test_a_task_page_offers_its_ground_truth_and_its_leaderboards(bundles_alone, page):
    task = Page(bundles_alone / "tasks" / "digits_mlp.html")
    for bundle in json.loads((BUNDLES / "registry.json").read_text())["bundles"]:
        assert (bundles_alone / "groundtruth" / bundle["file"]).stat().st_size == bundle["bytes"]
        if bundle["task"] == "digits_mlp":
            assert bundle["sha256"] in task.text
            assert f"../groundtruth/{bundle['file']}" in task.links
    assert "(200, 1297) (200, 5, 500)" in task.text
    assert "No record yet" in task.text
    tables = {
        f"../leaderboards/digits_mlp-{metric}.html" for metric in ("lds", "removal", "brittleness", "qld", "mislabel")
    }
    assert tables <= set(page("tasks/digits_mlp.html").links)


def test_weights_that_retrains_start_from_are_called_that(tmp_path):
    registry = BundleRegistry(BUNDLES)
    truth = next(entry for entry in registry.entries if entry.file == "digits_mlp-groundtruth.safetensors")
    golden = Path(__file__).parents[1] / "golden" / "start-v1.safetensors"
    facts = {"kind": "start", "file": "digits_mlp-start.safetensors", "sha256": digest_file(golden), "bytes": 1}
    for source, name in ((BUNDLES / truth.file, truth.file), (golden, facts["file"])):
        (tmp_path / name).write_bytes(source.read_bytes())
    write_listing(tmp_path, [truth, truth.model_copy(update=facts)])
    (tmp_path / "results").mkdir()
    build_board([tmp_path / "results"], tmp_path / "www", tmp_path)
    assert (tmp_path / "www" / "groundtruth" / facts["file"]).read_bytes() == golden.read_bytes()
    assert "weights that every retrain starts from: 21 parameters" in Page(tmp_path / "www" / "downloads.html").words
    task = Page(tmp_path / "www" / "tasks" / "digits_mlp.html")
    assert "the weights that every retrain starts from: 21 parameters, pretrained on 4,096 tokens" in task.words
    files = [link for link in task.links if link.endswith(".safetensors")]
    assert files == [f"../groundtruth/{truth.file}", f"../groundtruth/{facts['file']}"]


def test_the_overview_has_the_headline_figure(page):
    showcase = page("index.html").source.split('class="showcase"')[1].split("</section>")[0]
    assert showcase.count("<figure>") == 1
    assert "tasks/digits_mlp.html" in showcase
    assert "var(--accent)" in showcase


def test_badges_say_task_score_and_variant_and_their_snippet_has_the_address_of_the_site(site, page):
    badge = (site / "badges" / "digits_mlp-iffim.svg").read_text()
    assert "AttriBoard digits_mlp" in badge
    assert re.search(r"LDS \.\d\d \(selected\)", badge)
    snippet = f"]({URL}badges/digits_mlp-iffim.svg)]({URL}attributors/iffim.html)"
    assert snippet in page("attributors/iffim.html").text
    missing = page("404.html").source
    assert f'href="{URL}index.html"' in missing
    assert f'href="{URL}assets/board.css"' in missing


def test_the_explorer_has_every_point_with_its_surrogate(site):
    text = (site / "data" / "digits_mlp.js").read_text()
    method = json.loads(text.removeprefix("receiveTask(").removesuffix(");\n"))["methods"]["iffim"]
    values = method["axes"]["regularization"]["values"]
    assert method["names"] == ["regularization"]
    assert values == [0.0, *LAMBDAS]
    by_value = {values[point["c"][0]]: point for point in method["points"]}
    assert by_value[LAMBDAS[0]]["reason"] == "nan: 3 of 500 rows"
    for record in make_path("iffim"):
        if record.lds and record.hyperparameters["regularization"] not in (0.01, 0.1):
            point = by_value[record.hyperparameters["regularization"]]
            assert (point["lds"], point["xi"]) == (record.lds.mean, record.criteria["surrogate"])
    assert {m for p in method["points"] for m in p.get("marks", ())} == {"default", "selected", "oracle"}


def test_text_of_a_record_is_shown_not_executed(made, site, page):
    for path in site.rglob("*.html"):
        shown = page(str(path.relative_to(site)))
        assert not any("alert" in href for href in shown.links), path
        assert "<script>alert" not in shown.source, path
        assert shown.tags.count("script") <= 8, path
    assert page(f"records/{made.hostile[0].id}.html").text.count(ATTACK) >= 8


@pytest.mark.parametrize("kind", ["site", "bundles_alone"])
def test_links_resolve_and_nothing_is_loaded_from_elsewhere(kind, request):
    site = request.getfixturevalue(kind)
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    assert len(pages) > 10
    for path, shown in pages.items():
        for url in shown.loaded:
            assert url == "data:," or (path.parent / url.removeprefix(URL)).is_file(), (path, url)
        for url in shown.links:
            parts = urlsplit(url.removeprefix(URL))
            if parts.scheme:
                assert parts.scheme == "https", (path, url)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path, url)
            if parts.fragment and target.suffix == ".html" and "=" not in parts.fragment:
                assert unquote(parts.fragment) in pages[target].ids, (path, url)
    style = (site / "assets" / "board.css").read_text()
    assert "@import" not in style
    assert re.findall(r"url\(([^)]*)\)", style) == ['"stix-two-math.woff"']
    assert (site / "assets" / "stix-two-math.woff").read_bytes()[:4] == b"wOFF"
    assert "SIL OPEN FONT LICENSE" in (site / "assets" / "OFL.txt").read_text()
