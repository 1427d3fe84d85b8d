import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from attriboard.errors import FormatError
from attriboard.leaderboard import board
from attriboard.leaderboard.board import build_board
from attriboard.records import write_record


class Page(HTMLParser):
    """Cells of the board by attributor, resources that load, hyperlinks, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self.orders: dict[str, list[str | None]] = {}
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self._cells: list[str] | None = None
        self._orders: list[str | None] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag == "a":
            self.links.append(values["href"])
        elif "src" in values or "href" in values:
            self.loaded.append(values.get("src") or values["href"])
        if tag == "tr":
            self._cells, self._orders = [], []
        if tag in ("td", "th") and self._cells is not None:
            self._cells.append("")
            self._orders.append(values.get("data-order"))

    def handle_endtag(self, tag):
        if tag == "tr" and self._cells:
            name = self._cells[1].split()[0]
            self.rows[name] = [" ".join(cell.split()) for cell in self._cells]
            self.orders[name] = self._orders
            self._cells = None

    def handle_data(self, data):
        self.text += data
        if self._cells:
            self._cells[-1] += data


@pytest.fixture
def build(tmp_path):
    def run(*records):
        folder = tmp_path / "results"
        folder.mkdir(exist_ok=True)
        for record in records:
            write_record(record, folder)
        return build_board([folder], tmp_path / "site"), tmp_path / "site"

    return run


def test_numbers_on_the_page_equal_the_records(build, make_record):
    default = make_record("iffim", 0.4)
    selected = make_record("iffim", 0.5, variant="selected", selector="surrogate")
    oracle = make_record("iffim", 0.55, variant="oracle", selector="oracle")
    _, site = build(default, selected, oracle)
    page = Page(site / "digits_mlp.html")
    rank, name, lds, chosen, best, pearson, seconds, memory, status, settings, origin = page.rows["iffim"]
    low, high = default.lds.ci95
    assert (rank, status, seconds, memory) == ("1", "ok", "3.75", "812")
    assert lds == f"{default.lds.mean:.3f} {low:.3f} to {high:.3f}"
    assert chosen.startswith(f"{selected.lds.mean:.3f} ")
    assert chosen.endswith("by surrogate")
    assert best.startswith(f"{oracle.lds.mean:.3f} ")
    assert pearson == f"{default.lds.pearson:.3f}"
    exact = [
        default.lds.mean,
        selected.lds.mean,
        oracle.lds.mean,
        default.lds.pearson,
        3.75,
        default.peak_bytes,
    ]
    assert [float(value) for value in page.orders["iffim"][2:8]] == exact
    assert "regularization = 0.001" in settings
    assert "projection_dim = none" in settings
    assert "normalize = false" in settings
    assert default.provenance.git.commit[:10] in origin
    assert default.id[:10] in origin
    assert default.ground_truth.sha256 in page.text
    assert "influence function" in name


def test_a_negative_score_keeps_its_sign(build, make_record):
    record = make_record("sign_flipped", -0.3)
    _, site = build(record)
    assert Page(site / "digits_mlp.html").rows["sign_flipped"][2].startswith(f"−{-record.lds.mean:.3f}")


def test_same_records_give_same_bytes_in_any_order(tmp_path, make_record):
    records = [make_record(name, 0.4) for name in ("iffim", "trak", "random")]
    sites = []
    for number, order in enumerate((records, records[::-1])):
        folders = [tmp_path / f"results{number}{record.attributor.name}" for record in order]
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


def test_controls_are_shown_even_when_they_were_not_run(build, make_record):
    _, site = build(make_record("iffim"), make_record("random", 0.0))
    rows = Page(site / "digits_mlp.html").rows
    assert set(rows) >= set(board.CONTROLS)
    assert "not run" in rows["embedding_similarity"]
    assert rows["random"][0] == "2"


def test_a_failure_is_a_row_with_its_reason(build, make_record):
    failed = make_record("datainf", status="failed", reason="nan: 500 of 500 rows")
    _, site = build(make_record("iffim"), failed)
    page = Page(site / "digits_mlp.html")
    row = page.rows["datainf"]
    assert (row[0], row[2]) == ("—", "failed")
    assert "failed nan: 500 of 500 rows" in row
    assert "datainf, default: nan: 500 of 500 rows" in page.text


def test_the_newest_record_of_a_variant_wins(build, make_record):
    new = make_record("iffim", 0.3, created="2025-12-01T00:00:00Z")
    _, site = build(new, make_record("iffim", 0.5))
    page = Page(site / "digits_mlp.html")
    assert page.rows["iffim"][2].startswith(f"{new.lds.mean:.3f}")
    assert "Newest record: 2025-12-01" in page.text


@pytest.mark.parametrize(
    "change",
    [{"ground_truth__sha256": "ee" * 32}, {"task__version": 2}, {"task__fingerprint": "ee" * 32}],
)
def test_other_versions_never_share_a_column(build, make_record, change):
    old = make_record("trak", 0.6, created="2025-01-01T00:00:00Z", **change)
    summary, site = build(make_record("iffim"), old)
    page = Page(site / "digits_mlp.html")
    assert (summary.n_records, summary.n_superseded) == (1, 1)
    assert "trak" not in page.rows
    assert "One superseded record is left out" in page.text


def test_only_defaults_are_ranked_and_sweeps_stay_out(build, make_record):
    custom = make_record("outside", 0.9, variant="custom", attributor__origin="scores")
    sweep = make_record("swept", 0.9, variant="sweep")
    oracle = make_record("trak", 0.9, variant="oracle", selector="oracle")
    _, site = build(make_record("iffim"), custom, sweep, oracle)
    page = Page(site / "digits_mlp.html")
    assert {name: page.rows[name][0] for name in ("iffim", "outside", "trak")} == {
        "iffim": "1",
        "outside": "—",
        "trak": "—",
    }
    assert "swept" not in page.rows
    assert "One sweep point is not shown" in page.text


def test_text_of_a_record_is_shown_not_executed(build, make_record):
    attack = "<script>alert(1)</script>"
    record = make_record(attributor__paper=attack, attributor__family=attack, hyperparameters={attack: f'"{attack}'})
    link = make_record("trak", attributor__paper="javascript:alert(1)")
    bad = make_record("datainf", status="failed", reason=f"crash: {attack}")
    _, site = build(record, link, bad)
    page = Page(site / "digits_mlp.html")
    assert page.tags.count("script") == 2
    assert page.text.count(attack) >= 5
    assert not [href for href in page.links if href.startswith("javascript")]


def test_a_name_that_is_markup_is_escaped(make_record):
    record = make_record()
    attributor = record.attributor.model_copy(update={"name": "<script>"})
    boards = {"digits_mlp": board._task_board([record.model_copy(update={"attributor": attributor})])}
    for template in ("index.html", "task.html"):
        html = (
            board._environment(None)
            .get_template(template)
            .render(boards=boards, name="<script>", board=boards["digits_mlp"])
        )
        assert "<script>" not in html
        assert "&lt;script&gt;" in html


def test_links_resolve_and_nothing_is_loaded_from_elsewhere(build, make_record):
    _, site = build(make_record(), make_record(task__name="mnist_lr"))
    pages = sorted(site.glob("*.html"))
    assert [page.name for page in pages] == ["digits_mlp.html", "index.html", "mnist_lr.html"]
    for page in map(Page, pages):
        for url in page.loaded:
            assert url == "data:," or (site / url).is_file()
        for url in page.links:
            assert urlsplit(url).scheme == "https" or (site / url).is_file()
    assert not re.search(r"url\(|@import", (site / "assets" / "board.css").read_text())


def test_without_records_the_page_says_which_command_makes_one(build):
    summary, site = build()
    assert summary.tasks == ()
    assert "attriboard run digits_mlp iffim" in Page(site / "index.html").text


def test_a_missing_results_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        build_board([tmp_path / "nowhere"], tmp_path / "site")


def test_an_unexpected_bundle_is_refused(tmp_path, monkeypatch):
    bundle = tmp_path / "itables" / "html" / "dt_bundle.js"
    bundle.parent.mkdir(parents=True)

    class Fake:
        def locate_file(self, path):
            return tmp_path / path

    monkeypatch.setattr(board.importlib.metadata, "distribution", lambda name: Fake())
    with pytest.raises(FormatError, match="without its offline bundle"):
        board._datatables()
    bundle.write_text("export{a as b};export{c as d};")
    with pytest.raises(FormatError, match="2 export statements"):
        board._datatables()


def test_the_board_and_records_import_no_torch():
    code = (
        "import sys, attriboard.records; assert 'numpy' not in sys.modules;"
        "import attriboard.leaderboard.board; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
