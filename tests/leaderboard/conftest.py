"""One browser, one server and one site to look at for the session."""

import functools
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from leaderboard_records import make_cost, make_record, make_selection, make_study, make_use

from attriboard.leaderboard.board import build_board
from attriboard.records.files import write_record

ROOT = Path(__file__).parent.parent.parent
ATTACK = '<img src=x onerror="window.broken = true">'


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield launched
        launched.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Path], str]]:
    """Serves folders on loopback until the session ends."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(Quiet, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    long_name = "a_method_with_a_name_that_goes_on_and_on_until_the_sixtieth_sign"
    other = {"attributor__family": "gradient similarity"}
    records = [
        *make_study("iffim", 0.5),
        *make_study("trak", 0.6, attributor__paper="arXiv:2303.14186"),
        make_record("grad_dot", 0.2, **other),
        make_record("random", 0.0, attributor__family="control"),
        make_record("logra", 0.9, provenance__hardware__cpu="another", fit_seconds=0.001, score_seconds=0.001),
        make_record(long_name, status="failed", reason=f"nan: {ATTACK}", attributor__family=ATTACK),
        make_selection("iffim", "gcv", regret={"mean": 0.3, "ci95": [0.2, 0.4]}),
        make_cost("iffim"),
        make_cost("trak"),
        make_use("brittleness"),
        make_use("brittleness", variant="selected", selector="surrogate"),
    ]
    for record in records:
        write_record(record, folder / "results")
    build_board([folder / "results"], folder / "www" / "sub" / "board")
    for level in (0.3, 0.4):
        write_record(make_record("iffim", level, created=f"2027-01-0{10 * level:.0f}T00:00:00Z"), folder / "mine")
    build_board([folder / "results"], folder / "www" / "own", mine=[folder / "mine"])
    (folder / "none").mkdir()
    build_board([folder / "none"], folder / "www" / "empty", ROOT / "leaderboard" / "groundtruth")
    return folder / "www"


@pytest.fixture(params=["file", "http"])
def root(request, site, serve):
    if request.param == "file":
        return (site / "sub" / "board").as_uri() + "/"
    return serve(site) + "sub/board/"


@pytest.fixture
def page(browser, root):
    """A page that may complain of nothing and load nothing from outside of the site's folder."""
    context = browser.new_context(accept_downloads=True, color_scheme="light")
    page = context.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    yield page
    assert page.evaluate("window.broken") is None
    assert complaints == []
    assert requests
    assert [url for url in requests if not url.startswith((root, "data:", "blob:"))] == []
    context.close()
