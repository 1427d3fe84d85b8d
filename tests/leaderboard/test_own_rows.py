"""Your own records beside the published ones: in rows of their own, marked, below the method that they are of."""

import json

import pytest
from leaderboard_pages import Page
from leaderboard_records import make_record, make_selection, make_study

from attriboard.leaderboard.board import build_board
from attriboard.leaderboard.reading import read_entries
from attriboard.leaderboard.site import Site
from attriboard.records.files import write_record

OWN = {"created": "2027-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    published = [*make_study("iffim", 0.5), make_record("trak", 0.6), make_record("random", 0.0)]
    own = [
        make_record("iffim", 0.1, **OWN),
        make_record("iffim", 0.3, parameters=("head.*",), **OWN),
        make_record("my_method", 0.55, **OWN),
        make_selection("my_method", **OWN),
        published[-2],  # a copy of a published record is not one's own
    ]
    for record in published:
        write_record(record, folder / "published")
    for record in own:
        write_record(record, folder / "mine")
    return folder


@pytest.fixture(scope="module")
def site(folders):
    return Site(read_entries([folders / "published"], [folders / "mine"]), [], {})


def test_own_records_never_take_the_place_of_published_ones(site, folders):
    with_own = site.tables["digits_mlp"]["lds"].rows
    alone = Site(read_entries([folders / "published"]), [], {}).tables["digits_mlp"]["lds"].rows
    published = {row.name: {key: row.cell(key).text for key in ("default", "selected", "oracle")} for row in alone}
    for row in with_own:
        assert row.mine == (row.name not in published), row.name
        if not row.mine:
            assert {key: row.cell(key).text for key in published[row.name]} == published[row.name]


def test_own_rows_say_so_and_stand_below_the_method_that_they_are_a_version_of(site):
    rows = site.tables["digits_mlp"]["lds"].rows
    names = [row.name for row in rows]
    below = names[names.index("iffim") + 1 : names.index("iffim") + 3]
    assert {row.heading.text for row in rows if row.name in below} == {"iffim", "iffim (head.*)"}
    assert all(row.mine and row.parent == "iffim" and row.heading.badge == "yours" for row in rows if row.name in below)
    (new,) = (row for row in rows if row.name == "my_method-yours")
    assert (new.parent, new.mine) == ("", True), "it is a version of nothing that is here"
    assert new.cell("rank").value == 2


def test_the_matrix_and_the_charts_name_own_rows(site):
    names = [row.name for row in site.matrix]
    assert names.index("iffim-yours") > names.index("iffim")
    assert site.titles["my_method-yours"] == "my_method (yours)"
    assert "trak-yours" not in site.attributors


def test_pages_mark_own_records(folders, tmp_path):
    summary = build_board([folders / "published"], tmp_path / "www", mine=[folders / "mine"])
    assert summary.n_mine == 4
    method = Page(tmp_path / "www" / "attributors" / "my_method-yours.html")
    assert "Your own records, not published." in method.text
    parent = Page(tmp_path / "www" / "attributors" / "iffim.html")
    assert "iffim-yours.html" in parent.links
    own = make_record("my_method", 0.55, **OWN)
    record = Page(tmp_path / "www" / "records" / f"{own.id}.html")
    assert "Your own record, not published." in record.text
    data = (tmp_path / "www" / "data" / "comparison.js").read_text()
    compared = json.loads(data.removeprefix("window.comparison = ").removesuffix(";\n"))
    assert compared["titles"]["my_method-yours"] == "my_method (yours)"
