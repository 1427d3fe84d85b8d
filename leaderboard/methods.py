"""What the site knows of attributors beside their records: prose with equations, references, hyperparameters.

`methods/<name>.md` holds title, equation, prose and a BibTeX entry; `methods/catalogue.json` is the output of
`attriboard attributors --json`, because the site never imports an attributor.
"""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from attriboard.leaderboard.markdown import render_markdown, title_of

FOLDER = Path(__file__).parent / "methods"
BIBTEX = re.compile(r"```bibtex\n(.*?)```\n?", re.S)


@dataclass(frozen=True)
class Method:
    """One attributor as its page introduces it.

    Attributes:
        name: as on the command line.
        title: what it is called in prose.
        prose: equation and remarks.
        bibtex: an entry to cite; empty where nothing is known.
        hyperparameters: name, stage, default, grid, source, description.
    """

    name: str
    title: str
    prose: Markup
    bibtex: str
    hyperparameters: tuple[dict[str, Any], ...]


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """The built-in attributors, by name."""
    return {row["name"]: row for row in json.loads((FOLDER / "catalogue.json").read_text(encoding="utf-8"))}


def default_hyperparameters(name: str) -> dict[str, Any]:
    """Those of a built-in attributor; empty for any other."""
    return {known["name"]: known["default"] for known in catalogue().get(name, {}).get("hyperparameters", ())}


@cache
def method(name: str, paper: str) -> Method:
    """An attributor's introduction.

    Args:
        name: the attributor.
        paper: from its records; cited where no entry is written for it.
    """
    path = FOLDER / f"{name}.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {name}\n"
    found = BIBTEX.search(text)
    hyperparameters = catalogue().get(name, {}).get("hyperparameters", ())
    body = BIBTEX.sub("", text).partition("\n")[2]
    return Method(
        name, title_of(text), render_markdown(body), found[1] if found else _bibtex(paper), tuple(hyperparameters)
    )


def paper_link(paper: str) -> str | None:
    """Where a paper is, if that can be told from its name; only ever a web page."""
    if match := re.fullmatch(r"(?:arXiv:\s*|https?://arxiv\.org/abs/)(\d{4}\.\d{4,5})(?:v\d+)?", paper, re.I):
        return f"https://arxiv.org/abs/{match[1]}"
    if match := re.fullmatch(r"(?:doi:\s*)(10\.\d{4,9}/[\w.()/:;-]+)", paper, re.I):
        return f"https://doi.org/{match[1]}"
    return paper if re.fullmatch(r"https?://[^\s\"'<>]+", paper) else None


def _bibtex(paper: str) -> str:
    link = paper_link(paper)
    if link is None:
        return ""
    key = re.sub(r"\W+", "-", link.partition("://")[2]).strip("-")
    return f"@misc{{{key},\n  howpublished = {{\\url{{{link}}}}}\n}}\n"
