"""Blocks of code and commands in the documents, as tests read them.

A comment before a block says what it is: `<!-- file: NAME -->` is saved under that name; `<!-- elsewhere: REASON -->`
is not run, because it needs hours, a cluster, another file or a network. Every other block of code or commands runs.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"(?:^<!-- ([^\n]*?) -->\n)?^```(\w*)\n(.*?)^```", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """One block of a page: the comment before it, its language (none for commands), its text."""

    page: Path
    marker: str
    language: str
    text: str

    @property
    def saved_as(self) -> str:
        """The file name that the marker gives, or nothing."""
        return self.marker.removeprefix("file: ") if self.marker.startswith("file: ") else ""

    @property
    def elsewhere(self) -> bool:
        """Whether it is not run here."""
        return self.marker.startswith("elsewhere: ")

    @property
    def commands(self) -> list[list[str]]:
        """The words of every command, comments left out."""
        if self.language:
            return []
        return [words for line in self.text.splitlines() if (words := shlex.split(line, comments=True))]


def blocks_of(page: Path) -> list[Block]:
    """Every block of a page, in order."""
    return [Block(page, marker, language, text) for marker, language, text in BLOCK.findall(page.read_text("utf-8"))]


def name_of(page: Path) -> str:
    """A page's path below the root."""
    return page.relative_to(ROOT).as_posix()
