"""What is in sight at the widths of a phone, a tablet and a desk."""

import pytest

pytestmark = pytest.mark.browser

PHONE, TABLET = 390, 1024


@pytest.fixture
def at(page, root):
    """Opens a page of the site at a width, once its tables are ready."""

    def opened(path, width=PHONE):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(root + path)
        for tools in page.locator(".tools").all():
            tools.and_(page.locator(".ready")).wait_for()
        return page

    return opened


def right(page, selector):
    """Where an element ends, in pixels from the left of the window."""
    return page.locator(selector).first.evaluate("element => element.getBoundingClientRect().right")


def hidden_part(page, selector=".scroll"):
    """How many pixels of the widest block are beyond its right edge."""
    return page.eval_on_selector_all(selector, "all => Math.max(...all.map(one => one.scrollWidth - one.clientWidth))")


@pytest.mark.parametrize("metric", ["lds", "brittleness"])
def test_a_phone_shows_the_number_that_ranks(at, metric):
    page = at(f"leaderboards/digits_mlp-{metric}.html")
    assert right(page, "#board th[data-key=selected]") <= PHONE
    assert page.locator("#board td.best").first.evaluate("cell => cell.scrollWidth <= cell.clientWidth + 1")


@pytest.mark.parametrize("path", ["leaderboards/digits_mlp-lds.html", "index.html", "selectors.html"])
def test_a_tablet_shows_every_column(at, path):
    assert hidden_part(at(path, TABLET)) <= 1


def test_notes_of_numbers_wrap_but_not_within_an_interval(at):
    page = at("leaderboards/digits_mlp-brittleness.html")
    note = page.locator("#board .number .note", has_text="confirmed").first
    assert note.evaluate("note => getComputedStyle(note).whiteSpace") == "normal"
    assert "50\u00a0% confirmed" in note.inner_text()


def test_a_phone_names_task_attributor_and_choice_below_the_selector(at):
    page = at("selectors.html")
    below = page.locator("#choices tbody th .folded-cells").first
    assert below.is_visible()
    assert "digits_mlp" in below.inner_text()
    assert page.locator("#choices th[data-key=task]").is_hidden()
    assert right(page, "#choices th[data-key=regret]") <= PHONE
    page.set_viewport_size({"width": TABLET, "height": 900})
    assert below.is_hidden()
    assert page.locator("#choices th[data-key=task]").is_visible()


@pytest.mark.parametrize("path", ["index.html", "attributors/iffim.html", "leaderboards/digits_mlp-lds.html"])
def test_commands_wrap_and_can_be_copied(at, path):
    page = at(path)
    assert hidden_part(page, "main pre") <= 1
    assert page.locator("main pre").count() == page.locator(".copyable .copy").count()
    page.locator(".copy").first.click()
    page.get_by_role("button", name="Copied").or_(page.get_by_role("button", name="Selected")).first.wait_for()


def test_code_in_a_document_is_copied_by_a_button_that_comes_with_the_pointer(at):
    page = at("docs/choosing-lambda.html", TABLET)
    button = page.locator(".prose .copy").first
    opacity = "button => getComputedStyle(button).opacity"
    assert button.evaluate(opacity) == "0"
    page.locator(".prose .copyable").first.hover()
    assert button.evaluate(opacity) == "1"
    button.click()
    page.get_by_role("button", name="Copied").or_(page.get_by_role("button", name="Selected")).first.wait_for()


def test_formulas_that_are_too_long_scroll_and_show_it(at):
    page = at("docs/formulas.html")
    assert hidden_part(page, ".math.block") > 1
    assert "gradient" in page.locator(".math.block").first.evaluate("block => getComputedStyle(block).backgroundImage")


def test_a_history_and_a_selection_stack_their_cells_on_a_phone(browser, site):
    page = browser.new_page(viewport={"width": PHONE, "height": 900})
    page.goto((site / "own" / "attributors" / "iffim-yours.html").as_uri())
    assert hidden_part(page, ".scroll:has(.history)") <= 1
    assert page.locator(".history td.text").first.evaluate("cell => getComputedStyle(cell).display") == "block"
    page.goto((site / "own" / "leaderboards" / "digits_mlp-lds.html").as_uri())
    link = page.get_by_role("link", name="history").first
    assert link.evaluate("link => getComputedStyle(link).textDecorationLine") == "underline"
    records = (site / "sub" / "board" / "records").glob("*.json")
    selection = next(path for path in sorted(records) if '"kind":"selection"' in path.read_text().replace(" ", ""))
    page.goto(selection.with_suffix(".html").as_uri())
    assert hidden_part(page, ".scroll:has(.stacked)") <= 1
    left, wide = page.locator(".scroll").first.evaluate("box => [box.getBoundingClientRect().left, box.offsetWidth]")
    assert (left, wide) == (0, PHONE)
    page.close()


def test_letters_of_figures_are_legible_on_a_phone(at):
    page = at("selectors.html")
    sizes = page.eval_on_selector_all(
        ".figure svg text, .histogram text",
        """texts => texts.filter(text => text.getBoundingClientRect().width).map(text => {
             const svg = text.ownerSVGElement;
             const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
             return scale * parseFloat(getComputedStyle(text).fontSize);
        })""",
    )
    assert len(sizes) > 10
    assert min(sizes) >= 10.95
    assert page.locator(".figure.desk").first.is_hidden()
    page.set_viewport_size({"width": TABLET, "height": 900})
    assert page.locator(".figure.phone").first.is_hidden()


def test_figures_follow_a_link_that_changes_on_the_open_page(at):
    page = at("cost.html#task=digits_mlp")
    page.locator("#chart[data-ready] svg").wait_for()
    page.evaluate("location.hash = 'task=digits_mlp&cost=bytes'")
    page.wait_for_function("document.querySelector('#reading').textContent.includes('MB')")
    page = at("explorer.html#task=digits_mlp&attributor=iffim&x=regularization")
    page.locator("#chart[data-ready] svg").wait_for()
    page.evaluate("location.hash = 'task=digits_mlp&attributor=trak&x=regularization'")
    page.wait_for_function("document.querySelector('#attributor').value === 'trak'")
    page = at("compare.html#methods=iffim,trak")
    page.evaluate("location.hash = 'methods=trak,grad_dot&variant=default'")
    page.wait_for_function("document.querySelector('#side thead').textContent.includes('grad_dot')")
    assert page.locator("#methods input:checked").evaluate_all("boxes => boxes.map(box => box.value)") == [
        "trak",
        "grad_dot",
    ]
    assert page.locator("#variant").input_value() == "default"


def test_scripts_write_no_minus_before_a_zero(at):
    page = at("compare.html")
    assert page.evaluate("[-0.0001, -0.001, 0.5, null].map(window.written.fixed)") == ["0.000", "−0.001", "0.500", "—"]


def test_names_of_points_cross_nothing_and_far_ones_have_a_line(at):
    page = at("cost.html")
    placed, points, lines = page.evaluate(
        """() => {
             const names = [...Array(24).keys()].map(i => `name_${i}`);
             const points = names.map((name, i) => ({ name, at: [20 + (i * 97) % 560, 20 + (i * 53) % 360] }));
             const lines = [[0, 199, 600, 201], [299, 0, 301, 400]];
             const wanted = points.map(point => ({ ...point, long: 50 }));
             return [window.placeLabels(wanted, points, lines, [600, 400]), points, lines];
        }"""
    )
    assert len(placed) >= 20

    def overlap(a, b):
        return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

    boxes = [one["box"] for one in placed]
    for i, one in enumerate(placed):
        assert not any(overlap(one["box"], other) for other in [*boxes[:i], *lines])
        for point in points:
            x, y = point["at"]
            reach = 6 if point["name"] == one["name"] else 13
            assert not overlap(one["box"], [x - reach, y - reach, x + reach, y + reach])
        x, y = one["at"]
        (left, top, right_end, bottom), close = one["box"], 14
        assert one["led"] or overlap([left - close, top - close, right_end + close, bottom + close], [x, y, x, y])
