import html
import io
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from attriboard.cli.app import app
from attriboard.leaderboard.assets import font
from attriboard.leaderboard.markdown import mathml, render_markdown
from attriboard.leaderboard.methods import FOLDER, catalogue, method, paper_link
from attriboard.leaderboard.site import read_documents

ROOT = Path(__file__).parent.parent.parent


def test_formulas_become_mathml_and_raw_html_shows_as_text():
    html = render_markdown("$a^2$ and <script>alert(1)</script>\n\n$$\\frac{1}{n}$$\n")
    assert "<msup>" in html
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in html
    assert "<script" not in html


@pytest.mark.parametrize(
    ("latex", "expected"),
    [
        (r"z'", '<mo lspace="0" rspace="0">&#x02032;</mo>'),
        (r"\bar{\xi}", '<mo stretchy="false">&#x000AF;</mo>'),
        (r"\overline{f(z')}", '<mrow class="overline"><mi>f</mi>'),
        (r"\lVert x \rVert", '<mo stretchy="false">&#x02016;</mo>'),
        (r"\hat\lambda", '<mo stretchy="false">&#x002C6;</mo>'),
    ],
)
def test_primes_bars_and_norms_are_drawn_as_latex_draws_them(latex, expected):
    assert expected in mathml(latex)


def test_a_formula_stays_on_the_line_of_its_comma():
    shown = render_markdown("of $z'$, and ($x$).")
    assert shown.count('<span class="whole">') == 2
    assert "</math></span>,</span>" in shown


def test_the_font_of_formulas_has_every_character_of_the_documents_formulas():
    ttlib = pytest.importorskip("fontTools.ttLib", reason="fontTools is not installed")
    made = ttlib.TTFont(io.BytesIO(font()))
    assert "MATH" in made
    known = made.getBestCmap()
    missing = set()
    for source in (*(ROOT / "docs").rglob("*.md"), *FOLDER.glob("*.md")):
        shown = render_markdown(source.read_text(encoding="utf-8"))
        for formula in re.findall(r"<math.*?</math>", shown, re.S):
            missing |= {c for c in html.unescape(re.sub(r"<[^>]*>", "", formula)) if ord(c) not in known}
    assert missing == set()


def test_a_cell_of_one_word_is_kept_whole() -> None:
    html = render_markdown("| λ | says |\n|---|---|\n| 3.2e-4 | two words |\n")
    assert '<td class="word">3.2e-4</td>' in html
    assert "<td>two words</td>" in html


def test_links_lead_to_pages_or_lose_their_target():
    html = render_markdown("[a](faq.md#why) [b](../tasks/x.yaml) [c](https://arxiv.org/abs/1)", ["faq"])
    assert 'href="faq.html#why"' in html
    assert "x.yaml" not in html
    assert "b" in html
    assert 'href="https://arxiv.org/abs/1"' in html


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs").rglob("*.md")) + sorted(FOLDER.glob("*.md")), ids=lambda p: p.stem
)
def test_no_formula_of_a_document_keeps_latex_commands(path):
    html = render_markdown(path.read_text(encoding="utf-8"))
    assert "merror" not in html
    outside = [part.split("</math>")[0] for part in html.split("<math")[1:]]
    assert not [part for part in outside if "\\" in part]


def test_the_pages_of_tasks_are_documents_and_link_to_each_other():
    documents = read_documents(ROOT / "docs")
    assert {"protocol", "cifar2_resnet9", "cifar2_resnet9_mini"} <= documents.keys()
    html = render_markdown(documents["cifar2_resnet9_mini"].text, documents)
    assert 'href="cifar2_resnet9.html#batch-norm"' in html
    assert 'id="batch-norm"' in render_markdown(documents["cifar2_resnet9"].text, documents)


def test_papers_are_linked_only_to_web_pages():
    assert paper_link("arXiv:2303.14186") == "https://arxiv.org/abs/2303.14186"
    assert paper_link("javascript:alert(1)") is None
    assert paper_link("https://example.org/a b") is None


def test_hyperparameters_on_the_pages_are_those_of_the_attributors():
    done = CliRunner().invoke(app, ["attributors", "--json"])
    now = {row["name"]: row for row in json.loads(done.stdout)}
    assert len(now) > 30
    remedy = "attriboard attributors --json > leaderboard/methods/catalogue.json"
    stale = {name for name, row in now.items() if ":" not in name and catalogue().get(name) != row}
    assert stale == set(), f"run: {remedy}"


def test_every_built_in_method_is_introduced():
    for name, row in catalogue().items():
        if ":" not in name:
            intro = method(name, row["paper"])
            assert intro.title != name, f"leaderboard/methods/{name}.md is missing"
            assert intro.bibtex or not row["paper"], f"leaderboard/methods/{name}.md has no BibTeX entry"
