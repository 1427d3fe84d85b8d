"""Mermaid flowcharts as SVG."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from attriboard.leaderboard.diagrams import UnknownDiagramError, flowchart
from attriboard.leaderboard.markdown import render_markdown

ROOT = Path(__file__).parents[2]
SOURCE = """flowchart TB
  a["one & two"] -->|first| g
  subgraph g[" "]
    b["three"]
    c
  end
  a --> d
  g --> d["four"]
"""


def boxes(svg):
    """Text → (left, top) of its box."""
    tree = ElementTree.fromstring(svg)
    plain = [r for r in tree.iter("rect") if r.get("class") is None]
    texts = [t.text for t in tree.iter("text") if t.get("class") is None]
    return {text: (float(r.get("x")), float(r.get("y"))) for r, text in zip(plain, texts, strict=True)}


def test_every_arrow_leads_down_and_boxes_of_a_subgraph_share_a_row():
    found = boxes(flowchart(SOURCE))
    assert set(found) == {"one & two", "three", "c", "four"}
    assert found["one & two"][1] < found["three"][1] == found["c"][1] < found["four"][1]
    assert found["three"][0] < found["c"][0]


def test_arrows_labels_and_frames_are_drawn_once_each():
    tree = ElementTree.fromstring(flowchart(SOURCE))
    classes = [element.get("class") for element in tree.iter()]
    assert (classes.count("arrow"), classes.count("label"), classes.count("frame")) == (3, 1, 1)


@pytest.mark.parametrize(
    "source", ["sequenceDiagram", "flowchart TB\n a --> b\n b --> a", "flowchart TB\n a ==> b", "flowchart TB\n a -->"]
)
def test_other_diagrams_are_refused(source):
    with pytest.raises(UnknownDiagramError):
        flowchart(source)


def test_every_diagram_of_the_documents_is_drawn_on_the_site():
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    drawn = 0
    for path in paths:
        text = path.read_text(encoding="utf-8")
        found = len(re.findall(r"^```mermaid", text, re.M))
        drawn += found
        assert render_markdown(text).count('<svg class="flow"') == found, path
    assert drawn
