"""The site in Chromium: from a folder and by HTTP under a sub-path."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from leaderboard_records import LAMBDAS, make_record, make_study

from attriboard.leaderboard.board import build_board
from attriboard.records.files import write_record

pytestmark = pytest.mark.browser

WIDTHS = (390, 1024, 1600)
CONTROLS = {"random", "input_similarity", "embedding_similarity", "sign_flipped"}


def names(page, table="board"):
    return page.eval_on_selector_all(f"#{table} tbody th", "cells => cells.map(cell => cell.dataset.order)")


def download(page, label):
    if not page.locator(".export").first.evaluate("menu => menu.open"):
        page.locator(".export summary").first.click()
    with page.expect_download() as got:
        page.get_by_role("button", name=label, exact=True).click()
    return Path(got.value.path()).read_text(encoding="utf-8")


def test_the_leaderboard_sorts_filters_and_hides_columns(page, root):
    page.goto(root + "index.html")
    page.locator(".card h3 a", has_text="digits_mlp").click()
    page.locator(".tools.ready").wait_for()
    ranked = ["trak", "iffim", "grad_dot", "random"]
    assert names(page)[:4] == ranked

    def sort(title, direction):
        page.locator("#board thead th", has_text=title).first.click()
        page.locator(f"#board th[aria-sort={direction}]", has_text=title).first.wait_for()

    sort("Selected", "descending")
    assert names(page)[:2] == ["trak", "iffim"]
    sort("Default", "descending")
    assert names(page)[0] == "trak"
    sort("Attributor", "ascending")
    assert names(page) == sorted(names(page))
    assert "sort=method.asc" in page.url

    page.get_by_label("Search").fill("TRA")
    assert set(names(page)) == {"trak"} | CONTROLS
    assert page.get_by_text("1 of 5 methods").is_visible()
    page.get_by_label("Search").fill("no such method")
    assert set(names(page)) == CONTROLS
    page.get_by_label("Search").fill("")
    page.get_by_label("Family").select_option("gradient similarity")
    assert set(names(page)) == {"grad_dot"} | CONTROLS
    page.get_by_label("Family").select_option("")

    page.locator(".columns summary").click()
    page.get_by_role("checkbox", name="Pearson").check()
    page.get_by_role("checkbox", name="Seconds").uncheck()
    heads = page.locator("#board thead th").all_inner_texts()
    assert [h.split()[0] for h in heads if h.startswith(("Pearson", "Seconds"))] == ["Pearson"]
    page.keyboard.press("Escape")
    assert not page.locator(".columns").evaluate("menu => menu.open")


def test_a_link_remembers_search_filter_order_and_columns(page, root):
    page.goto(
        root
        + "leaderboards/digits_mlp-lds.html#search=a&filter=influence+function&sort=selected.asc&columns=rank,selected"
    )
    page.locator(".tools.ready").wait_for()
    assert page.get_by_label("Search").input_value() == "a"
    assert page.get_by_label("Family").input_value() == "influence function"
    assert page.locator("#board th[aria-sort=ascending]").inner_text().startswith("Selected")
    heads = page.locator("#board thead th").all_inner_texts()
    assert [head.split()[0] for head in heads] == ["Attributor", "Rank", "Selected"]
    assert "trak" in names(page)
    assert "grad_dot" not in names(page)


def test_exports_have_the_rows_and_columns_in_sight_and_exact_numbers(page, root):
    page.goto(root + "leaderboards/digits_mlp-lds.html#sort=default.desc&columns=default,selected,status")
    page.locator(".tools.ready").wait_for()
    default = next(r for r in make_study("trak", 0.6) if r.variant == "default")
    rows = list(csv.DictReader(io.StringIO(download(page, "CSV"))))
    assert list(rows[0]) == ["method", "default", "selected", "status"]
    trak = next(row for row in rows if row["method"] == "trak")
    assert float(trak["default"]) == default.lds.mean
    assert next(row for row in rows if row["method"] == "grad_dot")["selected"] == ""
    data = json.loads(download(page, "JSON"))
    assert next(row for row in data if row["method"] == "trak")["default"] == default.lds.mean
    assert next(row for row in data if row["method"] == "grad_dot")["selected"] is None
    latex = download(page, "LaTeX")
    assert f"trak & {default.lds.mean:.3f}" in latex
    assert r"grad\_dot" in latex
    assert r"\begin{tabular}{lrrl}" in latex
    assert "park2023trak" in download(page, "BibTeX")
    page.goto("about:blank")
    page.goto(root + "leaderboards/digits_mlp-lds.html#columns=rank,selected")
    page.locator(".tools.ready").wait_for()
    selected = {r.attributor.name: r.lds.mean for r in make_study("trak", 0.6) + make_study("iffim", 0.5)
                if r.kind == "attribution" and r.variant == "selected"}  # fmt: skip
    latex = download(page, "LaTeX")
    assert f"trak & 1 & \\textbf{{{selected['trak']:.3f}}}" in latex
    assert f"iffim & 2 & {selected['iffim']:.3f}" in latex, "only what shares rank 1 is bold"


def test_the_explorer_draws_curves_with_marks_and_follows_its_link(page, root):
    page.goto(root + "explorer.html#task=digits_mlp&attributor=iffim&x=regularization")
    page.locator("#chart[data-ready] svg").wait_for()
    reading = page.locator("#reading").inner_text()
    selected = next(r for r in make_study("iffim", 0.5) if r.kind == "attribution" and r.variant == "selected")
    assert f"{len(LAMBDAS) + 1} configurations, 1 failed" in reading
    assert f"selected {selected.lds.mean:.3f} at 0.01" in reading
    assert page.locator("#chart svg").get_by_text("noise ceiling 0.810").count() == 1
    assert page.locator("#chart svg").get_by_text("mean ξ").count() == 1
    page.get_by_text("The numbers as a table").click()
    assert page.locator("#values tbody tr").count() == len(LAMBDAS) + 1
    page.locator("#attributor").select_option("grad_dot")
    page.get_by_text("one configuration only").wait_for()
    assert "attributor=grad_dot" in page.url
    page.locator("#attributor").select_option("trak")
    page.locator("#chart svg").wait_for()
    before = page.locator("#chart svg").inner_html()
    page.get_by_role("button", name="Switch to the dark theme").click()
    page.wait_for_function("before => document.querySelector('#chart svg').innerHTML !== before", arg=before)
    page.locator("#chart svg .mark-symbol path").nth(3).hover(force=True)
    page.locator("#vg-tooltip-element.visible").get_by_text("regularization").wait_for()


def test_the_explorer_opens_where_the_headline_figure_is_and_does_not_jump(page, root):
    page.add_init_script(
        "window.moved = 0; "
        "new PerformanceObserver(list => list.getEntries().forEach(entry => { window.moved += entry.value; }))"
        ".observe({ type: 'layout-shift', buffered: true });"
    )
    page.goto(root + "explorer.html")
    page.locator("#chart[data-ready] svg").wait_for()
    assert page.locator("#attributor").input_value() == "iffim"
    assert page.locator("#chart svg").get_by_text("regularization (log)").count() == 1, "one title for both panels"
    assert page.evaluate("window.moved") < 0.05


def test_the_cost_figure_names_the_frontier(page, root):
    page.goto(root + "cost.html#task=digits_mlp")
    page.locator("#chart[data-ready] svg").wait_for()
    reading = page.locator("#reading").inner_text()
    assert "trak" in reading
    assert "logra" not in reading, "the best and the fastest, timed on another CPU"
    assert "faint points were timed otherwise" in reading
    page.locator("#cost").select_option("bytes")
    page.wait_for_function("document.querySelector('#reading').textContent.includes('MB')")
    assert "cost=bytes" in page.url


def test_methods_are_compared_over_all_tasks_and_the_link_remembers_which(page, root):
    page.goto(f"{root}compare.html#methods=iffim,trak&variant=default")
    assert page.locator("#side thead th").all_inner_texts()[1:3] == ["iffim", "trak"]
    cells = page.locator("#side tbody tr").first.locator("td")
    assert re.search(r"[+−]0\.\d{3}", cells.nth(1).inner_text()), "the second column has the difference from the first"
    page.get_by_label("trak").uncheck()
    assert page.locator("#side").is_hidden()
    assert "methods=iffim&" in page.url


def test_own_rows_are_marked_and_lead_to_their_history(browser, site):
    page = browser.new_page()
    page.goto((site / "own" / "leaderboards" / "digits_mlp-lds.html").as_uri())
    page.locator(".tools.ready").wait_for()
    shown = names(page)
    assert shown[shown.index("iffim") + 1] == "iffim-yours"
    own = page.locator("#board tr.mine")
    assert own.locator(".badge.yours").all_inner_texts() == ["yours"]
    own.get_by_role("link", name="history").click()
    page.wait_for_url("**/attributors/iffim-yours.html#history-digits_mlp")
    assert page.locator("#history-digits_mlp + .scroll tbody tr").count() == 2
    assert page.get_by_text("Run again with the same code and inputs").count() == 1
    page.close()


def test_formulas_are_drawn_in_the_font_that_comes_along(page, root):
    page.goto(root + "docs/formulas.html")
    page.evaluate("document.fonts.ready")
    assert page.evaluate("[...document.fonts].map(font => [font.family, font.status])") == [["Formulas", "loaded"]]
    assert page.evaluate("getComputedStyle(document.querySelector('math')).fontFamily").startswith("Formulas")


def test_a_citation_can_be_copied(page, root, site):
    record = next((site / "sub" / "board" / "records").glob("*.html"))
    page.goto(f"{root}records/{record.name}")
    button = page.get_by_role("button", name="Copy BibTeX")
    button.click()
    page.get_by_role("button", name=re.compile("Copied|Selected")).wait_for()


def test_the_theme_is_the_systems_until_it_is_chosen_and_then_stays(page, root):
    paper = "getComputedStyle(document.body).backgroundColor"
    page.goto(root + "index.html")
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert light != dark
    page.get_by_role("button", name="Switch to the light theme").click()
    assert page.evaluate(paper) == light
    page.goto(root + "selectors.html")
    assert page.evaluate(paper) == light


def test_every_page_fits_every_width_and_passes_axe_in_both_themes(browser, site):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    script = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    folder = site / "sub" / "board"
    record = next(iter(sorted((folder / "records").glob("*.html"))))
    paths = [
        *("index.html", "selectors.html", "explorer.html", "cost.html", "compare.html", "downloads.html"),
        "attributors/index.html",
        *(
            "attributors/iffim.html",
            "tasks/digits_mlp.html",
            "../../empty/tasks/mnist_lr.html",
            "../../empty/index.html",
            "../../own/leaderboards/digits_mlp-lds.html",
            "../../own/attributors/iffim-yours.html",
        ),
        *("leaderboards/digits_mlp-lds.html", f"records/{record.name}"),
        *sorted(f"docs/{path.name}" for path in (folder / "docs").glob("*.html")),
    ]
    found = {}
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        for path in paths if scheme == "light" else paths[:10:2]:
            page.goto((folder / path).as_uri())
            page.wait_for_load_state("load")
            for width in WIDTHS if scheme == "light" else WIDTHS[:1]:
                page.set_viewport_size({"width": width, "height": 900})
                wide = page.evaluate("document.documentElement.scrollWidth")
                if wide > width:
                    found[path, width] = f"{wide} pixels wide"
            # Documents have one style: their colors, which take axe longest, are looked at in a fifth of them.
            if scheme == "dark":
                rules = "runOnly: ['color-contrast'],"
            elif path.startswith("docs/") and paths.index(path) % 5:
                rules = "rules: {'color-contrast': {enabled: false}},"
            else:
                rules = ""
            page.evaluate(script)
            result = page.evaluate(f"axe.run({{ {rules} preload: false, resultTypes: ['violations'] }})")
            for violation in result["violations"]:
                found[path, scheme, violation["id"]] = [node["html"][:120] for node in violation["nodes"][:2]]
        page.close()
    assert found == {}


def test_a_keyboard_reaches_the_content_and_sorts(page, root):
    page.goto(root + "leaderboards/digits_mlp-lds.html")
    page.locator(".tools.ready").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.get_by_role("button", name="Attributor: Activate to sort").focus()
    page.keyboard.press("Enter")
    page.locator("#board th[aria-sort]", has_text="Attributor").wait_for()


def test_a_thousand_rows_are_interactive_within_a_second_or_nearly(browser, tmp_path):
    for i in range(1000):
        write_record(make_record(f"method_{i:04d}", i / 2000), tmp_path / "results")
    build_board([tmp_path / "results"], tmp_path / "site")
    page = browser.new_page()
    meter = page.context.new_cdp_session(page)
    meter.send("Performance.enable")
    page.goto((tmp_path / "site" / "leaderboards" / "digits_mlp-lds.html").as_uri())
    page.locator(".tools.ready").wait_for()
    seconds = {m["name"]: m["value"] for m in meter.send("Performance.getMetrics")["metrics"]}
    assert seconds["ProcessTime"] < 1.5  # CPU seconds, for a clock measures how busy the machine is; 0.7 here
    assert page.locator("output").inner_text() == "1000 methods and 4 for comparison"
    page.get_by_label("Search").fill("method_0999")
    assert "method_0999" in names(page)
    page.close()
