"""Prose is American English without mannerisms: documents, templates, comments, docstrings, messages, help texts.

Names are exempt (words that touch `_`, a dot or a bracket; code in documents), and so are the keys of published
formats and the titles of papers, which are in BibTeX blocks.
"""

import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT

STEMS = (  # of verbs in -ize, here as British writers spell them
    "central|character|critic|discret|equal|final|general|initial|linear|local|material|maxim|memor|minim|normal|optim|"
    "organ|orthogonal|parallel|parameter|penal|random|real|recogn|regular|serial|special|stabil|standard|summar|"
    "symmetr|synchron|token|util|vector|visual"
)
BRITISH = (
    rf"(?:re|un|de)?(?:{STEMS})is(?:e[ds]?|ing|ations?|ers?)|behaviours?|colour\w*|"
    r"favour\w*|honour\w*|neighbour\w*|cent(?:re[sd]?|ring)|artefacts?|(?:mis|re)?labell(?:ed|ing)|modell(?:ed|ing)|"
    r"cancell(?:ed|ing)|travell\w+|licences?|defence|grey|towards|whilst|amongst|learnt|emphasise[ds]?|analyse[ds]?|"
    r"judgement|catalogues?"
)
MANNERISMS = (
    r"for ever|somebody|anybody|to be had|stands in|is told|are told|yardsticks?|mend(?:s|ed|ing)?|processors?|"
    r"the house|whoever|suffices?|lest|hitherto|thereof|whence|to hand"
)
WORD = re.compile(rf"(?<![\w./`-])(?:{BRITISH}|{MANNERISMS})(?![\w(/=]|\.\w|: \()", re.I)
KEY = re.compile(r"[rbfu]*[\"']{1,3}[\w/.-]+[\"']{1,3}")  # a string of one word: a key or a file, no prose
SKIPPED = ("leaderboard/results/", "leaderboard/entries/", "docs/figures/", "tests/repository/test_english.py")
SUFFIXES = {".py", ".md", ".html", ".js", ".css", ".yml", ".toml"}


def files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    return [name for name in listed if Path(name).suffix in SUFFIXES and not name.startswith(SKIPPED)]


def prose(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Lines that people read, with their numbers."""
    if name.endswith(".py"):
        kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in kinds and not KEY.fullmatch(token.string):
                yield from enumerate(re.sub(r"`[^`]*`", "", token.string).split("\n"), start=token.start[0])
        return
    if name.endswith(".md"):
        text = re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.M | re.S)
        text = re.sub(r"`[^`\n]*`|\]\([^)\s]*\)", "", text)
    elif name.endswith(".html"):
        text = re.sub(r"\{[{%].*?[%}]\}|<[^>]*>", lambda tag: " " + "\n" * tag[0].count("\n"), text, flags=re.S)
    elif name.endswith((".js", ".css")):
        text = "\n".join(line if re.search(r"//|/\*|^\s*\*", line) else "" for line in text.split("\n"))
    yield from enumerate(text.split("\n"), start=1)


def hits(name: str, text: str) -> list[str]:
    return [f"{name}:{number}: {word[0]}" for number, line in prose(name, text) for word in WORD.finditer(line)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "It favours no one."),
        ("a.md", "A [link](neighbour.md) to be had."),
        ("a.py", "# regularised\n"),
        ("a.py", '"""What it stands in for."""\n'),
        ("a.py", 'f"a mended {name}"\n'),
        ("a.html", "<p>Nobody waits for ever.</p>"),
        ("a.js", "// grey on white"),
    ],
)
def test_the_list_finds_what_it_names(name, text):
    assert hits(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "`labelled` and `colour`, [text](centre.md)\n\n```\nfor ever\n```\n"),
        ("a.py", 'licence = card["licence"]\nn_mislabelled = 1  # `mislabelled` of the record\n'),
        ("a.html", '<p class="centre">{{ licence }} <b>recommended</b></p>'),
        ("a.js", 'const grey = "grey";'),
    ],
)
def test_names_are_exempt(name, text):
    assert not hits(name, text)


def test_prose_is_american_and_plain():
    found = [hit for name in files() for hit in hits(name, (ROOT / name).read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)
