"""Passages of documents that are made from committed records: a test compares them, its file writes them anew."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from attriboard.leaderboard.reading import read_bundles, read_entries
from attriboard.leaderboard.study import TaskStudy, studies
from attriboard.records.published import published_folders

ROOT = Path(__file__).parents[2]


@cache
def published() -> dict[str, TaskStudy]:
    """Task → what the published records say about it."""
    return studies(read_entries(published_folders()), read_bundles(ROOT / "leaderboard" / "groundtruth"))


def number(value: float, digits: int) -> str:
    """Without a leading zero, with a proper minus."""
    text = f"{abs(value):.{digits}f}"
    text = text.removeprefix("0") if digits else text
    return f"−{text}" if value < 0 and float(text) else text


@dataclass(frozen=True)
class Passage:
    """What a page has between two comments.

    Args:
        page: path below `docs`.
        start, end: the comments, each a line.
        make: what belongs between them.
    """

    page: str
    start: str
    end: str
    make: Callable[[], str]

    @property
    def path(self) -> Path:
        """The page."""
        return ROOT / "docs" / self.page

    def found(self) -> str:
        """What is there."""
        return self._parts()[1]

    def write(self) -> None:
        """Make it anew."""
        before, _, after = self._parts()
        self.path.write_text(before + self.make() + after, encoding="utf-8")

    def _parts(self) -> tuple[str, str, str]:
        text = self.path.read_text(encoding="utf-8")
        assert text.count(self.start) == 1, f"{self.page} has {text.count(self.start)} places {self.start.strip()}"
        before, rest = text.split(self.start)
        assert self.end in rest, f"{self.page} has no {self.end.strip()} after {self.start.strip()}"
        end = rest.index(self.end)
        return before + self.start, rest[:end], rest[end:]
