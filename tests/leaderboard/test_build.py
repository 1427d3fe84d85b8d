"""Building a site: the same bytes, what stops it, what comes along."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from leaderboard_pages import Page
from leaderboard_records import make_record, make_study

from attriboard.base.errors import FormatError, InputError
from attriboard.leaderboard import assets
from attriboard.leaderboard.board import build_board
from attriboard.records.files import write_record

BUNDLES = Path(__file__).parent.parent.parent / "leaderboard" / "groundtruth"


def test_same_records_give_same_bytes_in_any_order(tmp_path):
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


def test_a_record_in_two_folders_counts_once_and_superseded_ones_apart(tmp_path):
    for name in ("a", "b"):
        write_record(make_record(), tmp_path / name)
    write_record(make_record("trak", task__version=2, created="2025-01-01T00:00:00Z"), tmp_path / "a")
    summary = build_board([tmp_path / "a", tmp_path / "b"], tmp_path / "site")
    assert (summary.n_records, summary.n_superseded, summary.tasks) == (1, 1, ("digits_mlp",))


def test_an_altered_record_stops_the_build(tmp_path):
    path = write_record(make_record(), tmp_path / "results")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(FormatError, match="altered or renamed"):
        build_board([tmp_path / "results"], tmp_path / "site")


def test_a_missing_results_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match="nowhere: no such folder"):
        build_board([tmp_path / "nowhere"], tmp_path / "site")


def test_an_address_that_is_not_of_a_web_site_is_refused(tmp_path):
    with pytest.raises(InputError, match="url = javascript"):
        build_board([tmp_path], tmp_path / "site", url="javascript:alert(1)")


def test_a_site_around_its_bundles_leaves_them_alone(tmp_path):
    folder = tmp_path / "groundtruth"
    folder.mkdir()
    names = ("registry.json", "digits_mlp-groundtruth.safetensors")
    for name in names:
        (folder / name).write_bytes((BUNDLES / name).read_bytes())
    listing = json.loads((folder / "registry.json").read_text())
    listing["bundles"] = [entry for entry in listing["bundles"] if entry["file"] == names[1]]
    (folder / "registry.json").write_text(json.dumps(listing))
    before = {name: (folder / name).read_bytes() for name in names}
    write_record(make_record(), tmp_path / "results")
    for _ in range(2):
        build_board([tmp_path / "results"], tmp_path, groundtruth=folder)
        assert {name: (folder / name).read_bytes() for name in names} == before


def test_a_torn_bundle_is_named(tmp_path):
    listing = json.loads((BUNDLES / "registry.json").read_text())
    listing["bundles"] = listing["bundles"][:1]
    (tmp_path / "registry.json").write_text(json.dumps(listing))
    (tmp_path / listing["bundles"][0]["file"]).write_bytes(b"\xff" * 20)
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        build_board([tmp_path], tmp_path / "site", tmp_path)


def test_without_records_the_page_says_which_command_makes_one(tmp_path):
    (tmp_path / "results").mkdir()
    assert build_board([tmp_path / "results"], tmp_path / "site").tasks == ()
    assert "attriboard run digits_mlp iffim" in Page(tmp_path / "site" / "index.html").text


def test_pictures_of_documents_come_along_with_their_size(tmp_path):
    folder = tmp_path / "docs"
    (folder / "figures").mkdir(parents=True)
    (tmp_path / "results").mkdir()
    size = (7).to_bytes(4, "big") + (5).to_bytes(4, "big")
    (folder / "figures" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + size)
    (folder / "protocol.md").write_text(
        "# Of `x`\n\n![one](figures/a.png) ![two](figures/b.png) ![3](https://x.org/c.png)"
    )
    build_board([tmp_path / "results"], tmp_path / "site", documents=folder)
    page = Page(tmp_path / "site" / "docs" / "protocol.html")
    assert page.loaded.count("figures/a.png") == 1
    assert not [url for url in page.loaded if "b.png" in url or "x.org" in url]
    assert "two" in page.text
    assert 'width="7" height="5"' in page.source
    assert "<title>Of x" in page.source
    assert (tmp_path / "site" / "docs" / "figures" / "a.png").is_file()


def test_an_unexpected_bundle_of_scripts_is_refused(tmp_path, monkeypatch):
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
