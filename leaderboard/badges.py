"""Badges that a paper's repository can embed: "AttriBoard mnist_mlp | LDS .540 (selected)"."""

from markupsafe import Markup

from attriboard.leaderboard.formats import fixed
from attriboard.leaderboard.study import MethodStudy


def badge_text(task: str, method: MethodStudy) -> tuple[str, str] | None:
    """Left and right text; none where the method has no result."""
    entry = method.headline
    if entry is None or entry.record.lds is None:
        return None
    lds = fixed(entry.record.lds.mean, 2).replace("0.", ".", 1)
    return f"AttriBoard {task}", f"LDS {lds} ({entry.record.variant})"


def badge(left: str, right: str) -> str:
    """A stand-alone SVG of two boxes."""
    first, second = (round(6.6 * len(text)) + 14 for text in (left, right))
    width = first + second
    font = 'font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" fill="#fff" text-anchor="middle"'
    svg = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="20" role="img" aria-label="{l}: {r}">'
        "<title>{l}: {r}</title>"
        '<clipPath id="r"><rect width="{w}" height="20" rx="3"/></clipPath><g clip-path="url(#r)">'
        '<rect width="{a}" height="20" fill="#3d444d"/><rect x="{a}" width="{b}" height="20" fill="#0b5cad"/></g>'
        '<g {font}><text x="{x}" y="14" textLength="{m}">{l}</text><text x="{y}" y="14" textLength="{n}">{r}</text></g>'
        "</svg>\n"
    )
    return str(
        svg.format(
            w=width, a=first, b=second, l=left, r=right, x=first / 2, y=first + second / 2, m=first - 14, n=second - 14,
            font=Markup(font),
        )
    )  # fmt: skip
