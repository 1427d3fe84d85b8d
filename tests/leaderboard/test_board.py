"""The built files: numbers, links, bytes, escaping."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from leaderboard_records import LAMBDAS, make_path, make_removal, make_study, make_use

from attriboard.base.errors import FormatError, InputError
from attriboard.contracts.card import load_card
from attriboard.leaderboard import assets
from attriboard.leaderboard.board import build_board
from attriboard.leaderboard.curves import curves
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import CONTROLS, MethodStudy
from attriboard.records.files import write_record

ROOT = Path(__file__).parent.parent.parent
BOARD = "leaderboards/digits_mlp-lds.html"
VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Cells of the data table by row and column, resources that load, hyperlinks, ids, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: dict[str, dict[str, str]] = {}
        self.exact: dict[str, dict[str, str | None]] = {}
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self._keys: list[str] = []
        self._row: list[tuple[str, str | None]] | None = None
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert self._open == [], f"{path}: unclosed {self._open}"

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        elif "src" in values or ("href" in values and values.get("rel") != "canonical"):
            self.loaded.append(values.get("src") or values["href"])
        if "data-key" in values:
            self._keys.append(values["data-key"])
        if tag == "tr":
            self._row = []
        if tag in ("td", "th") and self._row is not None:
            self._row.append(("", values.get("data-order")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        if "src" in dict(attrs):
            self.loaded.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "tr" and self._row and self._row[0][1] is not None:
            name = self._row[0][1]
            cells = self._row[: len(self._keys)]
            self.rows[name] = {k: " ".join(c[0].split()) for k, c in zip(self._keys, cells, strict=False)}
            self.exact[name] = {k: c[1] for k, c in zip(self._keys, cells, strict=False)}
        if tag == "tr":
            self._row = None

    def handle_data(self, data):
        self.text += data
        if self._row:
            self._row[-1] = (self._row[-1][0] + data, self._row[-1][1])


@pytest.fixture
def build(tmp_path):
    def run(*records, **options):
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        for record in records:
            write_record(record, folder)
        return build_board([folder], tmp_path / "site", **options), tmp_path / "site"

    return run


def test_numbers_on_the_leaderboard_equal_the_records(build, make_record, make_selection):
    default = make_record("iffim", 0.4)
    selected = make_record("iffim", 0.5, variant="selected", selector="surrogate")
    oracle = make_record("iffim", 0.55, variant="oracle", selector="oracle")
    selection = make_selection("iffim")
    _, site = build(default, selected, oracle, selection)
    page = Page(site / BOARD)
    row, exact = page.rows["iffim"], page.exact["iffim"]
    for record in (default, selected, oracle):
        low, high = record.lds.ci95
        assert row[record.variant] == f"{record.lds.mean:.3f}{low:.3f} to {high:.3f}"
        assert float(exact[record.variant]) == record.lds.mean
        assert f"../records/{record.id}.html" in page.links
    assert float(exact["pearson"]) == selected.lds.pearson
    assert (float(exact["seconds"]), row["seconds"]) == (3.75, "3.75")
    assert (float(exact["memory"]), row["memory"]) == (default.peak_bytes, "812")
    assert (float(exact["regret"]), row["regret"]) == (0.02, "0.0200.010 to 0.030")
    assert (float(exact["gap_closed"]), row["gap_closed"]) == (0.9375, "94 %")
    assert (row["rank"], row["status"]) == ("1", "measured")
    assert row["settings"].startswith("checkpoints = 1, mode = exact, normalize = false, projection_dim = none")
    assert "0.810" in page.text


def test_a_record_page_has_every_number_its_json_and_the_command(build, make_record):
    record = make_record()
    _, site = build(record)
    page = Page(site / "records" / f"{record.id}.html")
    stated = json.loads((site / "records" / f"{record.id}.json").read_text())
    assert stated == record.to_json()
    for number in (record.lds.mean, *record.lds.ci95, record.lds.pearson, record.ceiling, record.fit_seconds):
        assert str(number) in page.text
    for text in (record.scores_sha256, record.ground_truth.sha256, record.task.fingerprint, record.created):
        assert text in page.text
    assert f"attriboard run {record.id}.json" in page.text
    assert f"{record.id}.json" in page.links


def test_selectors_are_averaged_and_listed(build, make_selection):
    refused = {"status": "failed", "reason": "not_applicable: no spectrum", "regret": None, "selected": None}
    _, site = build(
        make_selection("iffim"),
        make_selection("trak", regret={"mean": 0.04, "ci95": [0.0, 0.1]}, rank_correlation=0.6),
        make_selection("datainf", **refused),
        make_selection("iffim", "gcv", regret={"mean": 0.3, "ci95": [0.2, 0.4]}, rank_correlation=None),
    )
    text = (site / "selectors.html").read_text()
    summary = text.split('id="summary"')[1].split("</table>")[0]
    order = re.compile(r'data-order="([^"]*)"')
    cells = {n: order.findall(summary.split(f'<th scope="row" data-order="{n}">')[1]) for n in ("surrogate", "gcv")}
    assert float(cells["surrogate"][1]) == pytest.approx(0.03), "the mean of 0.02 and 0.04"
    assert (float(cells["gcv"][1]), float(cells["gcv"][2])) == (0.3, 0.02), "beside the surrogate's on the same pair"
    assert "not applicable" in text
    assert "no spectrum" in text


def test_a_negative_score_keeps_its_sign(build, make_record):
    record = make_record("sign_flipped", -0.3)
    _, site = build(record)
    assert Page(site / BOARD).rows["sign_flipped"]["default"].startswith(f"−{-record.lds.mean:.3f}")


def test_same_records_give_same_bytes_in_any_order(tmp_path, make_record):
    records = [*make_study("iffim", 0.5), make_record("trak", 0.4), make_record("random", 0.0)]
    sites = []
    for number, order in enumerate((records, records[::-1])):
        folders = [tmp_path / f"results{number}-{i}" for i, _ in enumerate(order)]
        for folder, record in zip(folders, order, strict=True):
            write_record(record, folder)
        build_board(folders, tmp_path / f"site{number}")
        files = sorted((tmp_path / f"site{number}").rglob("*"))
        sites.append({f.relative_to(tmp_path / f"site{number}"): f.read_bytes() for f in files if f.is_file()})
    assert sites[0] == sites[1]


def test_a_record_in_two_folders_counts_once(tmp_path, make_record):
    for name in ("a", "b"):
        write_record(make_record(), tmp_path / name)
    assert build_board([tmp_path / "a", tmp_path / "b"], tmp_path / "site").n_records == 1


def test_an_altered_record_stops_the_build(tmp_path, make_record):
    path = write_record(make_record(), tmp_path / "results")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(FormatError, match="altered or renamed"):
        build_board([tmp_path / "results"], tmp_path / "site")


def test_controls_are_shown_even_when_they_were_not_run(build, make_record):
    _, site = build(make_record("iffim"), make_record("random", 0.0))
    rows = Page(site / BOARD).rows
    assert set(rows) >= set(CONTROLS)
    assert rows["embedding_similarity"]["status"] == "not run"
    assert rows["random"]["rank"] == "2"


def test_the_flipped_control_names_and_links_whose_scores_were_negated(build, make_record):
    best = make_record("iffim", 0.5)
    negates = {"record": best.id, "attributor": "iffim", "hyperparameters": {"regularization": 0.001}}
    flipped = make_record("sign_flipped", -0.5, negates=negates, hyperparameters={})
    _, site = build(best, flipped)
    row = Page(site / BOARD).rows["sign_flipped"]
    assert row["status"] == "measurednegates iffim"
    page = (site / "records" / f"{flipped.id}.html").read_text(encoding="utf-8")
    assert f'<a href="{best.id}.html">' in page
    assert "regularization" in page
    assert f"attriboard run {best.id}.json</code>" in page


def test_a_failure_is_a_row_with_its_reason(build, make_record):
    failed = make_record("datainf", status="failed", reason="nan: 500 of 500 rows")
    _, site = build(make_record("iffim"), failed)
    page = Page(site / BOARD)
    row = page.rows["datainf"]
    assert (row["rank"], row["default"], row["status"]) == ("—", "failed", "failednan: 500 of 500 rows")
    assert "nan: 500 of 500 rows" in Page(site / "attributors" / "datainf.html").text


def test_what_fails_for_one_reason_is_told_once_with_a_link_to_every_record(build, make_record):
    failed = [
        make_record("datainf", variant="sweep", status="failed", reason="nan: all",
                    hyperparameters={"regularization": value, "epoch": 3})
        for value in (0.1, 0.2)
    ]  # fmt: skip
    other = make_record("datainf", variant="sweep", status="failed", reason="crash: 9", hyperparameters={"epoch": 5})
    _, site = build(*failed, other)
    page = Page(site / "attributors" / "datainf.html")
    assert page.text.count("nan: all") == 1
    assert "With epoch = 3: regularization = 0.1; regularization = 0.2" in " ".join(page.text.split())
    assert {f"../records/{record.id}.html" for record in (*failed, other)} <= set(page.links)


def test_the_newest_record_of_a_variant_wins(build, make_record):
    old, new = make_record("iffim", 0.5), make_record("iffim", 0.3, created="2025-12-01T00:00:00Z")
    _, site = build(new, old)
    page = Page(site / BOARD)
    assert page.rows["iffim"]["default"].startswith(f"{new.lds.mean:.3f}")
    assert "Newest record: 2025-12-01" in page.text
    assert (site / "records" / f"{old.id}.html").is_file()


def test_a_newer_selection_that_starts_elsewhere_does_not_replace_that_of_the_defaults(
    build, make_record, make_selection
):
    default = make_record("iffim", 0.5)
    own = make_selection("iffim", default__hyperparameters=default.hyperparameters)
    elsewhere = make_selection(
        "iffim",
        created="2027-12-01T00:00:00Z",
        default__hyperparameters=default.hyperparameters | {"checkpoints": 5},
        regret={"mean": 0.25, "ci95": [0.2, 0.3]},
    )
    _, site = build(default, elsewhere)
    assert Page(site / BOARD).rows["iffim"]["regret"].startswith("0.250")
    _, site = build(own)
    assert Page(site / BOARD).rows["iffim"]["regret"].startswith("0.020")


@pytest.mark.parametrize(
    "change",
    [{"ground_truth__sha256": "ee" * 32}, {"task__version": 2}, {"task__fingerprint": "ee" * 32}],
)
def test_other_versions_never_share_a_table_but_keep_their_links(build, make_record, change):
    old = make_record("trak", 0.6, created="2025-01-01T00:00:00Z", **change)
    summary, site = build(make_record("iffim"), old)
    page = Page(site / BOARD)
    assert (summary.n_records, summary.n_superseded) == (1, 1)
    assert "trak" not in page.rows
    assert "One superseded record is left out" in page.text
    assert "Superseded" in Page(site / "records" / f"{old.id}.html").text


def test_selected_or_default_ranks_and_neither_custom_nor_oracle_nor_sweeps_do(build, make_record):
    custom = make_record("outside", 0.9, variant="custom", attributor__origin="scores")
    sweep = make_record("swept", 0.9, variant="sweep")
    oracle = make_record("trak", 0.9, variant="oracle", selector="oracle")
    chosen = [make_record("tuned", 0.1), make_record("tuned", 0.6, variant="selected", selector="surrogate")]
    _, site = build(make_record("iffim"), custom, sweep, oracle, *chosen)
    rows = Page(site / BOARD).rows
    assert {name: row["rank"] for name, row in rows.items() if row["rank"] != "—"} == {"tuned": "1", "iffim": "2"}
    assert {name: row["rank_default"] for name, row in rows.items() if row["rank_default"] != "—"} == {
        "iffim": "1",
        "tuned": "2",
    }
    assert rows["outside"]["status"] == "self-reported"


def test_data_selection_has_a_leaderboard_with_default_beside_selected(build, make_record):
    selected = {"variant": "selected", "selector": "surrogate"}
    records = [
        make_record("iffim"),
        default := make_removal("iffim", 0.93),
        chosen := make_removal("iffim", 0.85, **selected),
        make_removal("trak", 0.8, created="2025-01-01T00:00:00Z"),
        make_removal("trak", 0.9, created="2025-01-02T00:00:00Z"),
        make_removal("ekfac", 0.5, direction="harmful"),
        failed := make_removal("datainf", status="failed", reason="nan: every row"),
    ]
    _, site = build(*records)
    page = Page(site / "leaderboards" / "digits_mlp-removal.html")
    assert list(page.rows) == ["nothing removed", "removed at random", "iffim", "trak", "datainf"]
    row = page.rows["iffim"]
    assert (row["default_50"], row["selected_50"]) == ("88.00 ± 0.58", "80.00 ± 0.58")
    assert (row["difference_50"], row["default_10"]) == ("−8.00 ± 0.00", "92.00 ± 0.58")
    assert "mean over 3 seeds" in page.text
    assert (page.rows["datainf"]["default_50"], page.rows["datainf"]["selected_50"]) == ("failed", "—")
    assert "datainf, default: nan: every row" in page.text
    assert "nan: every row" in Page(site / "attributors" / "datainf.html").text
    assert "nan: every row" not in Page(site / BOARD).text, "a failure stands on the board of what was tried"
    assert float(page.exact["iffim"]["selected_50"]) == pytest.approx(80)
    assert page.rows["trak"]["default_50"] == "85.00 ± 0.58", "the newest counts"
    assert page.rows["nothing removed"]["default_50"] == "95.00 ± 0.58"
    assert page.rows["removed at random"]["default_50"] == "94.00 ± 0.58"
    assert f"../records/{chosen.id}.html" in page.links
    assert "attriboard removal digits_mlp ATTRIBUTOR" in page.text
    assert Page(site / BOARD).rows["iffim"]["removal"] == "80.0selected"
    assert float(Page(site / BOARD).exact["trak"]["removal"]) == pytest.approx(85)
    record = Page(site / "records" / f"{default.id}.html")
    assert f"attriboard run {default.id}.json" in record.text
    assert "nan: every row" in Page(site / "records" / f"{failed.id}.html").text
    assert "digits_mlp-removal.html" in " ".join(Page(site / "tasks" / "digits_mlp.html").links)


def test_brittleness_and_mislabel_detection_have_leaderboards(build):
    selected = {"variant": "selected", "selector": "surrogate"}
    _, site = build(
        first := make_use("brittleness"),
        make_use(
            "brittleness", points=[], status="failed", reason="nan: all", scores_sha256=None, attributor__name="bad"
        ),
        make_use("brittleness", **selected, points=first.to_json()["points"][:1]),
        make_use("brittleness", "trak", points=first.to_json()["points"][2:]),
        found := make_use("mislabel"),
        make_use("mislabel", by="summed", auc=0.7, ci95=[0.6, 0.8], **selected),
    )
    brittle = Page(site / "leaderboards" / "digits_mlp-brittleness.html")
    assert list(brittle.rows) == ["iffim", "trak", "bad"]
    assert (brittle.rows["bad"]["default"], brittle.rows["bad"]["default_flipped"]) == ("failed", "—")
    row = brittle.rows["iffim"]
    assert (row["default"], row["default_flipped"]) == ("113 points, 50 % confirmed", "67 %")
    assert (row["selected"], row["selected_flipped"]) == ("41 points, 100 % confirmed", "100 %")
    assert brittle.rows["trak"]["default"] == "> 6481 points"
    wrong = Page(site / "leaderboards" / "digits_mlp-mislabel.html")
    assert wrong.rows["iffim"]["default_self"] == "0.9500.940 to 0.960"
    assert wrong.rows["iffim"]["selected_summed"] == "0.7000.600 to 0.800"
    text = Page(site / "records" / f"{first.id}.html").text
    assert "more than" not in text
    assert "11 training examples" in text
    assert f"attriboard run {first.id}.json" in text
    text = Page(site / "records" / f"{found.id}.html").text
    assert "AUC 0.950, 95 % interval 0.940 to 0.960, in finding 130 wrong labels by self-influence" in " ".join(
        text.split()
    )
    assert f"attriboard run {found.id}.json" in text


def test_a_task_without_an_lds_shows_its_best_number_its_card_and_no_empty_column(build, make_record):
    flipped = {"task__name": "digits_mlp_flipped", "ground_truth": None}
    fingerprint = load_card(ROOT / "tasks" / "digits_mlp_flipped.yaml").fingerprint
    records = [
        make_use("mislabel", **flipped, task__fingerprint=fingerprint),
        make_use("mislabel", "random", **flipped, created="2027-01-01T00:00:00Z"),
    ]
    _, site = build(make_record("iffim"), *records[:1])
    overview = " ".join(Page(site / "index.html").text.split())
    assert "0.950 AUC of finding wrong labels" in overview
    matrix = (site / "index.html").read_text().split('<table class="matrix">')[1].split("</thead>")[0]
    assert "digits_" in matrix
    assert "flipped" not in matrix
    task = Page(site / "tasks" / "digits_mlp_flipped.html")
    assert "None: what is measured here needs no retrains" in task.text
    assert "1,297 / 500" in task.text
    _, site = build(records[1])
    assert "1,297" not in Page(site / "tasks" / "digits_mlp_flipped.html").text, "another fingerprint, another card"


def test_controls_stay_in_view_on_every_leaderboard(build):
    _, site = build(make_use("mislabel"), make_use("mislabel", "random"), make_removal("trak"), make_removal("random"))
    for metric in ("mislabel", "removal"):
        text = (site / "leaderboards" / f"digits_mlp-{metric}.html").read_text()
        assert re.search(r'<tr class="fixed"[^>]*><th scope="row" data-order="random">', text)


def test_a_curve_without_points_at_the_default_is_drawn_where_the_selection_has_them(make_record):
    def at(dim: int, value: float, **changes):
        record = make_record("trak", hyperparameters={"projection_dim": dim, "regularization": value}, **changes)
        return Entry(record, record.id, Path())

    grid = [at(dim, value, variant="sweep") for dim in (64, 128, 256) for value in (0.01, 1.0, 100.0)]
    chosen = at(128, 1.0, variant="selected", selector="surrogate")
    curve = next(
        c
        for c in curves("t", MethodStudy("trak", [*grid, at(128, 0.0), chosen]), None)
        if c.axis.name == "projection_dim"
    )
    assert curve.fixed == {"regularization": 1.0}
    assert curve.marks["selected"].value == 128


def test_the_headline_figure_is_of_the_task_with_most_of_the_headline_attributors(build):
    names = {name: make_study(name, 0.5, task__name=task) for name, task in (("trak", "a"), ("iffim", "a"))}
    _, site = build(*names["trak"], *names["iffim"], *make_study("iffim", 0.5, task__name="b"))
    showcase = (site / "index.html").read_text().split('class="showcase"')[1].split("</section>")[0]
    assert showcase.count("<figure>") == 2
    assert "tasks/a.html" in showcase
    assert "tasks/b.html" not in showcase


def test_pictures_of_documents_come_along_with_their_size(tmp_path, build):
    folder = tmp_path / "docs"
    (folder / "figures").mkdir(parents=True)
    size = (7).to_bytes(4, "big") + (5).to_bytes(4, "big")
    (folder / "figures" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size)
    (folder / "protocol.md").write_text(
        "# Of `x`\n\n![one](figures/a.png) ![two](figures/b.png) ![3](https://x.org/c.png)"
    )
    _, site = build(documents=folder)
    page = Page(site / "docs" / "protocol.html")
    assert page.loaded.count("figures/a.png") == 1
    assert not [url for url in page.loaded if "b.png" in url or "x.org" in url]
    assert "two" in page.text
    assert 'width="7" height="5"' in (site / "docs" / "protocol.html").read_text()
    assert (site / "docs" / "figures" / "a.png").is_file()
    assert "<title>Of x" in (site / "docs" / "protocol.html").read_text()


def test_the_address_of_the_site_stands_in_badges_and_permanent_links(build, make_record):
    record = make_record("iffim")
    _, site = build(record, url="https://lab.org/board")
    snippet = "](https://lab.org/board/badges/digits_mlp-iffim.svg)](https://lab.org/board/attributors/iffim.html)"
    assert snippet in Page(site / "attributors" / "iffim.html").text
    assert f"https://lab.org/board/records/{record.id}.html" in Page(site / "records" / f"{record.id}.html").text
    missing = (site / "404.html").read_text()
    assert 'href="https://lab.org/board/index.html"' in missing
    assert 'href="https://lab.org/board/assets/board.css"' in missing
    with pytest.raises(InputError, match="must be the address of a web site"):
        build(url="javascript:alert(1)")


def test_without_removal_there_is_no_leaderboard_of_it(build, make_record):
    _, site = build(make_record("iffim"))
    assert not (site / "leaderboards" / "digits_mlp-removal.html").exists()
    assert "removal.html" not in " ".join(Page(site / "tasks" / "digits_mlp.html").links)


def test_records_that_need_no_ground_truth_stay_current_on_any(build, make_record):
    summary, site = build(make_record("iffim"), make_removal("trak", ground_truth=None))
    assert (summary.n_records, summary.n_superseded) == (2, 0)
    _, site = build(make_removal("trak", ground_truth=None, task__name="other_task"))
    assert (site / "leaderboards" / "other_task-removal.html").is_file()
    assert not (site / "leaderboards" / "other_task-lds.html").exists()


def test_the_explorer_has_every_point_with_its_surrogate(build):
    study = make_study("iffim", 0.5)
    _, site = build(*study)
    text = (site / "data" / "digits_mlp.js").read_text()
    data = json.loads(text.removeprefix("receiveTask(").removesuffix(");\n"))
    method = data["methods"]["iffim"]
    assert method["names"] == ["regularization"]
    assert method["axes"]["regularization"]["values"] == [0.0, *LAMBDAS]
    by_value = {method["axes"]["regularization"]["values"][p["c"][0]]: p for p in method["points"]}
    assert by_value[LAMBDAS[0]]["reason"] == "nan: 3 of 500 rows"
    path = [r for r in make_path("iffim") if r.lds and r.hyperparameters["regularization"] not in (0.01, 0.1)]
    for record in path:
        point = by_value[record.hyperparameters["regularization"]]
        assert (point["lds"], point["xi"]) == (record.lds.mean, record.criteria["surrogate"])
    assert {m for p in method["points"] for m in p.get("marks", ())} == {"default", "selected", "oracle"}


def test_text_of_a_record_is_shown_not_executed(build, make_record, make_selection):
    attack = "<script>alert(1)</script>"
    fields = {"attributor__paper": attack, "attributor__family": attack, "hyperparameters": {attack: f'"{attack}'}}
    machine = {"cpu": attack, "cores": 2, "memory_bytes": 1, "gpu": attack}
    more = {
        "provenance__hardware": machine,
        "provenance__platform": attack,
        "provenance__python": attack,
        "provenance__packages": {attack: attack},
        "provenance__command_line": [attack],
        "provenance__attriboard": attack,
    }
    record = make_record(**fields, **more)
    link = make_record("trak", attributor__paper="javascript:alert(1)")
    bad = make_record("datainf", status="failed", reason=f"crash: {attack}", **more)
    _, site = build(record, link, bad, make_selection(note=attack, **more))
    for path in site.rglob("*.html"):
        page = Page(path)
        assert not any("alert" in href for href in page.links), path
        assert "<script>alert" not in path.read_text(), path
        assert page.tags.count("script") <= 5, path
    assert Page(site / "records" / f"{record.id}.html").text.count(attack) >= 8


def test_links_resolve_and_nothing_is_loaded_from_elsewhere(build, make_record):
    other = make_record(task__name="mnist_lr", created="2025-01-01T00:00:00Z")
    bundles = ROOT / "leaderboard" / "groundtruth"
    _, site = build(*make_study("iffim", 0.5), other, make_record(task__name="unknown_task"))
    build_board([site.parent / "results"], site, bundles)
    pages = {path: Page(path) for path in sorted(site.rglob("*.html"))}
    assert len(pages) > 20
    for path, page in pages.items():
        for url in page.loaded:
            assert url == "data:," or (path.parent / url).is_file(), (path, url)
        for url in page.links:
            parts = urlsplit(url)
            if parts.scheme:
                assert parts.scheme == "https", (path, url)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            assert target.is_file(), (path, url)
            if parts.fragment and target.suffix == ".html" and "=" not in parts.fragment:
                assert parts.fragment in pages[target].ids, (path, url)
    assert not re.search(r"url\(|@import", (site / "assets" / "board.css").read_text())


def test_a_task_page_offers_its_ground_truth(build):
    bundles = ROOT / "leaderboard" / "groundtruth"
    listing = json.loads((bundles / "registry.json").read_text())["bundles"]
    _, site = build(groundtruth=bundles)
    page = Page(site / "tasks" / "digits_mlp.html")
    for bundle in listing:
        copy = site / "groundtruth" / bundle["file"]
        assert copy.stat().st_size == bundle["bytes"]
        if bundle["task"] == "digits_mlp":
            assert bundle["sha256"] in page.text
            assert f"../groundtruth/{bundle['file']}" in page.links
    assert "(200, 1297) (200, 5, 500)" in page.text
    assert "No record yet" in page.text


def test_without_records_the_page_says_which_command_makes_one(build):
    summary, site = build()
    assert summary.tasks == ()
    assert "attriboard run digits_mlp iffim" in Page(site / "index.html").text


def test_a_missing_results_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        build_board([tmp_path / "nowhere"], tmp_path / "site")


def test_a_torn_bundle_is_named(tmp_path):
    bundles = ROOT / "leaderboard" / "groundtruth"
    listing = json.loads((bundles / "registry.json").read_text())
    listing["bundles"] = listing["bundles"][:1]
    (tmp_path / "registry.json").write_text(json.dumps(listing))
    (tmp_path / listing["bundles"][0]["file"]).write_bytes(b"\xff" * 20)
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        build_board([tmp_path], tmp_path / "site", tmp_path)


def test_badges_say_task_score_and_variant(build):
    _, site = build(*make_study("iffim", 0.5))
    text = (site / "badges" / "digits_mlp-iffim.svg").read_text()
    assert "AttriBoard digits_mlp" in text
    assert re.search(r"LDS \.\d\d \(selected\)", text)


def test_an_unexpected_bundle_is_refused(tmp_path, monkeypatch):
    bundle = tmp_path / "itables" / "html" / "dt_bundle.js"
    bundle.parent.mkdir(parents=True)

    class Fake:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(assets.importlib.metadata, "distribution", lambda name: Fake())
    with pytest.raises(FormatError, match="without its offline bundle"):
        assets.datatables()
    bundle.write_text("export{a as b};export{c as d};")
    with pytest.raises(FormatError, match="2 export statements"):
        assets.datatables()


def test_the_board_and_records_import_no_torch():
    code = (
        "import sys, attriboard.records.files; assert 'numpy' not in sys.modules;"
        "import attriboard.leaderboard.board; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
