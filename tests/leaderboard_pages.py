"""A built page as tests read it."""

from html.parser import HTMLParser
from pathlib import Path

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


class Page(HTMLParser):
    """Cells of the data table by row and column, resources that load, hyperlinks, ids, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.rows: dict[str, dict[str, str]] = {}
        self.exact: dict[str, dict[str, str | None]] = {}
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.text = ""
        self._keys: list[str] = []
        self._row: list[tuple[str, str | None]] | None = None
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        assert self._open == [], f"{path}: unclosed {self._open}"

    @property
    def words(self) -> str:
        """All text, with single spaces."""
        return " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        if "id" in values:
            assert values["id"] not in self.ids
            self.ids.add(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        elif "src" in values or ("href" in values and values.get("rel") != "canonical"):
            self.loaded.append(values.get("src") or values["href"])
        if "data-key" in values:
            self._keys.append(values["data-key"])
        if tag == "tr":
            self._row = []
        if tag in ("td", "th") and self._row is not None:
            self._row.append(("", values.get("data-order")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        if "src" in dict(attrs):
            self.loaded.append(dict(attrs)["src"])

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag == "tr" and self._row and self._row[0][1] is not None:
            name = self._row[0][1]
            cells = self._row[: len(self._keys)]
            self.rows[name] = {k: " ".join(c[0].split()) for k, c in zip(self._keys, cells, strict=False)}
            self.exact[name] = {k: c[1] for k, c in zip(self._keys, cells, strict=False)}
        if tag == "tr":
            self._row = None

    def handle_data(self, data):
        self.text += data
        if self._row:
            self._row[-1] = (self._row[-1][0] + data, self._row[-1][1])
