"""The static site: folders of records and bundles' cards in, a folder of files out, no network and no torch."""

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attriboard.base.errors import InputError
from attriboard.leaderboard import assets
from attriboard.leaderboard.pages import render_site
from attriboard.leaderboard.reading import read_bundles, read_entries
from attriboard.leaderboard.site import Site, read_documents
from attriboard.records.metasmoothness import read_metasmoothness


@dataclass(frozen=True)
class BoardSummary:
    """What was built: the first page, its tasks, how many records it shows, how many are superseded and your own."""

    index: Path
    tasks: tuple[str, ...]
    n_records: int
    n_superseded: int
    n_mine: int


def repository_documents() -> Path | None:
    """The Markdown documents of the checkout that this code runs from; none in an installed wheel."""
    folder = Path(__file__).resolve().parent.parent / "docs"  # an editable installation links to the files
    return folder if (folder / "protocol.md").is_file() else None


def build_board(
    results_folders: Sequence[Path],
    out: Path,
    groundtruth: Path | None = None,
    documents: Path | None = None,
    url: str = "",
    mine: Sequence[Path] = (),
) -> BoardSummary:
    """Build the site.

    The same inputs give the same bytes. Files in `out` of other names are left alone.

    Args:
        results_folders: folders of records; a record that lies in several counts once.
        out: the folder to write to, made where it is missing.
        groundtruth: folder of bundles with its registry; their cards become task pages, and the files are
            copied for download. None leaves them out.
        documents: folder of Markdown documents; by default those of the checkout.
        url: where the site will stand, for permanent links, badges and the page of missing pages.
        mine: folders of your own records; they have rows of their own beside the published ones, marked as yours.

    Raises:
        InputError: the URL is not one of a web site.
        FormatError: a results folder is missing, records or cards do not validate, or the installed itables
            carries no DataTables bundle of the expected form.
    """
    bundles = read_bundles(groundtruth) if groundtruth else []
    pages = read_documents(documents or repository_documents())
    smoothness = read_metasmoothness(results_folders)
    site = Site(read_entries(results_folders, mine), bundles, pages, _folder_url(url), smoothness)
    made: set[Path] = set()
    for path, text in _files(site):
        target = out / path
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        target.write_bytes(text.encode())
    (out / "assets" / assets.FONT).write_bytes(assets.font())
    shutil.copyfile(assets.LICENSES / "OFL.txt", out / "assets" / "OFL.txt")
    for entry in site.entries:
        shutil.copyfile(entry.path, out / "records" / f"{entry.id}.json")
    for picture in {p.path for document in pages.values() for p in document.pictures.values()}:
        (out / "docs" / "figures").mkdir(exist_ok=True)
        shutil.copyfile(picture, out / "docs" / "figures" / picture.name)
    copies = [bundle.path for bundle in bundles if bundle.path]
    if groundtruth and copies:
        (out / "groundtruth").mkdir(exist_ok=True)
        for source in (*copies, groundtruth / "registry.json"):
            _place(source, out / "groundtruth" / source.name)
    n_superseded = len(site.superseded)
    n_mine = sum(entry.mine for entry in site.entries)
    return BoardSummary(out / "index.html", tuple(site.tasks), len(site.entries) - n_superseded, n_superseded, n_mine)


def _place(source: Path, target: Path) -> None:
    """Put a published file into the site without a second copy of it, where the file system can."""
    if target.exists() and target.samefile(source):
        return  # the site is built around the folder that has it, or it was linked by an earlier build
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _folder_url(url: str) -> str:
    if url and not re.fullmatch(r"https?://[^\s\"'<>?#]+", url):
        raise InputError(f"url = {url}: must be the address of a web site, such as https://lab.github.io/attriboard/")
    return url and url.rstrip("/") + "/"


def _files(site: Site) -> Iterator[tuple[str, str]]:
    yield from render_site(site)
    for name, text in assets.own_assets().items():
        yield f"assets/{name}", text
    yield "assets/datatables.js", assets.datatables()
    yield "assets/vega.js", assets.vega()
