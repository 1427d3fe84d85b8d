import functools
import http.server
import shutil
import threading

import pytest

from attriboard.leaderboard.board import build_board
from attriboard.records import write_record

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
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


@pytest.fixture
def site(tmp_path, make_record):
    for name, level in (("iffim", 0.5), ("trak", 0.4), ("grad_dot", 0.2), ("random", 0.0)):
        write_record(make_record(name, level), tmp_path / "results")
    write_record(make_record("datainf", status="failed", reason="nan: all"), tmp_path / "results")
    build_board([tmp_path / "results"], tmp_path / "www" / "sub" / "board")
    return tmp_path / "www"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(params=["file", "http"])
def root(request, site):
    if request.param == "file":
        yield (site / "sub" / "board").as_uri() + "/"
        return
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/sub/board/"
        server.shutdown()
        thread.join()


def test_the_board_sorts_filters_and_stays_in_its_folder(browser, root):
    page = browser.new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(root + "index.html")
    page.get_by_role("link", name="digits_mlp").click()

    def names():
        cells = page.locator("#board tbody th").all_inner_texts()
        return [cell.split()[0] for cell in cells]

    def sort(title, direction):
        header = page.get_by_role("columnheader", name=title)
        header.click()
        page.locator(f"th[aria-sort={direction}]", has_text=title).wait_for()

    page.get_by_label("Search methods").wait_for()  # shown once the table is live
    ranked = ["iffim", "trak", "grad_dot", "random"]
    assert names()[:4] == ranked
    sort("Default LDS", "descending")
    assert names()[:4] == ranked
    sort("Default LDS", "ascending")
    assert names()[-4:] == ranked[::-1]
    sort("Attributor", "ascending")
    assert names() == sorted(names())

    page.get_by_label("Search methods").fill("TRA")
    controls = {"random", "input_similarity", "embedding_similarity", "sign_flipped"}
    assert set(names()) == {"trak"} | controls
    assert page.get_by_text("1 of 4 methods").is_visible()
    page.get_by_label("Search methods").fill("no such method")
    assert set(names()) == controls
    page.get_by_label("Search methods").fill("")
    assert len(names()) == 8

    for width in (390, 1024, 1600):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    assert requests
    assert all(url.startswith((root, "data:")) for url in requests)
    page.close()
