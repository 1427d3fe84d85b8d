"""Markdown → HTML, with formulas as MathML, so that the site's documents have one source and need no script."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup
from mdit_py_plugins.dollarmath import dollarmath_plugin

from attriboard.leaderboard.diagrams import flowchart

_CAREFUL = (
    (r"<mi>&#x02032;</mi>", '<mo lspace="0" rspace="0">&#x02032;</mo>'),  # a prime is no letter
    (
        r'<mover>(.{1,60}?)<mo stretchy="true">&#x000AF;</mo>',
        r'<mover accent="true">\1<mo stretchy="false">&#x000AF;</mo>',
    ),
    # A bar as long as what is below it, which the style sheet draws.
    (
        r'<mover><mrow>((?:(?!<mover>).)*)</mrow><mo accent="true">&#x02015;</mo></mover>',
        r'<mrow class="overline">\1</mrow>',
    ),
    (r'(<mover accent="true">.{1,60}?<mo)>&#x0005E;</mo>', r'\1 stretchy="false">&#x002C6;</mo>'),
    (r"<mo>(&#x0007C;|&#x02016;)</mo>", r'<mo stretchy="false">\1</mo>'),  # \lVert is not \left\lVert
)
"""Patterns in what latex2mathml makes, and what browsers draw as LaTeX does."""

_FOLLOWED = re.compile(r'<span class="math inline">(?:(?!</span>).)*</span>[,.;:!?)]+')  # must not part from its comma
_SCROLLING = '<div class="scroll" role="region" aria-label="Table {}" tabindex="0"><table>'


@dataclass(frozen=True)
class Picture:
    """A PNG that a document shows, and its size in pixels, so that the page does not jump when it arrives."""

    path: Path
    width: int
    height: int


def pictures(text: str, folder: Path) -> dict[str, Picture]:
    """The PNG files beside a document that it shows, by their names."""
    found = {}
    for source in re.findall(r"!\[[^\]]*\]\(([\w./-]+\.png)\)", text):
        path = folder / source
        head = path.read_bytes()[:24] if path.is_file() else b""
        if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) == 24:
            found[path.name] = Picture(path, int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big"))
    return found


def mathml(latex: str, display: bool = False) -> Markup:
    """A formula as MathML, with its LaTeX as the text for those who copy it or cannot see it."""
    text = convert(latex, display="block" if display else "inline")
    for pattern, better in _CAREFUL:
        text = re.sub(pattern, better, text)
    return Markup(text)


def _math(content: str, options: dict[str, bool]) -> str:
    return str(mathml(content, options["display_mode"]))


def render_markdown(text: str, pages: Iterable[str] = (), shown: Mapping[str, Picture] | None = None) -> Markup:
    """A document as HTML.

    Raw HTML shows as text. Links to documents that are pages here lead there; other links into the repository
    keep their text only, because the site is self-contained. So do pictures.

    Args:
        text: Markdown with `$…$` and `$$…$$`.
        pages: names of the documents that are pages, without their endings.
        shown: the pictures in the folder `figures` beside the page; others are replaced by their description.
    """
    parser = MarkdownIt("commonmark", {"html": False, "typographer": False}).enable(["table"])
    parser.use(dollarmath_plugin, allow_digits=False, double_inline=True, renderer=_math)
    tokens = parser.parse(re.sub(r"<!--.*?-->\n?", "", text, flags=re.S))
    known = set(pages)
    for token in tokens:
        if token.type == "inline" and token.children:
            token.children = [_picture(child, shown or {}) for child in _relinked(token.children, known)]
    _anchor(tokens)
    _keep_whole(tokens)
    _draw(tokens)
    html = parser.renderer.render(tokens, parser.options, {})
    count = itertools.count(1)
    html = re.sub("<table>", lambda _: _SCROLLING.format(next(count)), html)
    html = _FOLLOWED.sub(r'<span class="whole">\g<0></span>', html)
    html = html.replace("</table>", "</table></div>").replace("<pre>", '<pre tabindex="0">')
    html = html.replace('<div class="math block">', '<div class="math block" tabindex="0">')
    return Markup(html)


def title_of(text: str) -> str:
    """The first heading."""
    match = re.search(r"^# (.+)$", text, re.M)
    return match[1].replace("`", "").strip() if match else "Document"


def _keep_whole(tokens: Sequence[Token]) -> None:
    """Mark cells of one word: 3.2e-4 must not break after its hyphen."""
    for cell, content in itertools.pairwise(tokens):
        if cell.type == "td_open" and " " not in content.content:
            cell.attrJoin("class", "word")


def _draw(tokens: Sequence[Token]) -> None:
    """Diagrams become drawings."""
    drawn = [token for token in tokens if token.type == "fence" and token.info.strip() == "mermaid"]
    for number, token in enumerate(drawn, start=1):
        around = f'<div class="scroll diagram" role="region" aria-label="Diagram {number}" tabindex="0">'
        token.type, token.content = "html_block", f"{around}{flowchart(token.content)}</div>"


def _relinked(children: list[Token], pages: set[str]) -> list[Token]:
    kept, open_links = [], []
    for token in children:
        if token.type == "link_open":
            target = _target(str(token.attrs["href"]), pages)
            open_links.append(target)
            if target is None:
                continue
            token.attrs["href"] = target
        elif token.type == "link_close" and open_links.pop() is None:
            continue
        kept.append(token)
    return kept


def _picture(token: Token, shown: Mapping[str, Picture]) -> Token:
    if token.type != "image":
        return token
    picture = shown.get(PurePosixPath(str(token.attrs["src"])).name)
    if picture is None:
        return Token("text", "", 0, content=token.content)
    token.attrs |= {
        "src": f"figures/{picture.path.name}",
        "width": picture.width,
        "height": picture.height,
        "loading": "lazy",
    }
    return token


def _target(href: str, pages: set[str]) -> str | None:
    parts = urlsplit(href)
    if parts.scheme in ("http", "https", "mailto") or href.startswith("#"):
        return href
    path = PurePosixPath(parts.path)
    if path.suffix == ".md" and path.stem.lower() in pages:
        return f"{path.stem.lower()}.html" + (f"#{parts.fragment}" if parts.fragment else "")
    return None


def _anchor(tokens: list[Token]) -> None:
    """Give headings ids, as GitHub does: words joined by hyphens, equal ones numbered."""
    seen: dict[str, int] = {}
    for opening, inline in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            slug = re.sub(r"[^\w\- ]", "", inline.content.lower()).strip().replace(" ", "-")
            slug = slug or "section"
            opening.attrs["id"] = f"{slug}-{seen[slug]}" if slug in seen else slug
            seen[slug] = seen.get(slug, 0) + 1
