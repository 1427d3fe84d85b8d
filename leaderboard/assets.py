"""Scripts, styles and a font: our own files, and what installed packages carry. No bundle is committed."""

import importlib.metadata
import re
from functools import cache
from io import BytesIO
from pathlib import Path

from attriboard.base.digests import digest, digest_file
from attriboard.base.errors import FormatError
from attriboard.base.paths import cache_folder, write_atomically

STATIC = Path(__file__).parent / "static"
LICENSES = Path(__file__).parent / "licenses"
FONT = "stix-two-math.woff"
_BLOCKS = (
    (0x20, 0x17F),  # Latin
    (0x2C6, 0x3FF),  # accents, Greek
    (0x2010, 0x214F),  # punctuation, primes, letters with a double stroke
    (0x2190, 0x23FF),  # arrows, operators, delimiters
    (0x25A0, 0x25CF),  # shapes
    (0x27C0, 0x27FF),  # long arrows, angle brackets
    (0x2980, 0x2AFF),  # more operators
    (0x1D400, 0x1D7FF),  # italic, bold, script
)


def own_assets() -> dict[str, str]:
    """Our own files, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(STATIC.iterdir()) if path.is_file()}


@cache
def font() -> bytes:
    """The font of formulas, which few systems have: STIX Two Math of the installed ziamath, cut down, as WOFF.

    Raises:
        FormatError: the installed ziamath carries no such font.
    """
    path = Path(str(importlib.metadata.distribution("ziamath").locate_file("ziamath/fonts/STIXTwoMath-Regular.ttf")))
    try:
        source = digest_file(path)
    except OSError as error:
        raise FormatError(f"{path}: ziamath without its font: {error}") from error
    made = digest({"font": source, "blocks": _BLOCKS, "fonttools": importlib.metadata.version("fonttools")})
    kept = cache_folder() / "fonts" / f"{made[:16]}-{FONT}"  # cutting takes seconds
    if not kept.is_file():
        write_atomically(kept, _cut(path))
    return kept.read_bytes()


def _cut(path: Path) -> bytes:
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont, TTLibError

    try:
        whole = TTFont(path, recalcTimestamp=False)
    except TTLibError as error:
        raise FormatError(f"{path}: ziamath without its font: {error}") from error
    options = Options()
    options.set(hinting=False, layout_features=["math", "ssty", "kern", "liga", "dtls"])
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=[code for first, last in _BLOCKS for code in range(first, last + 1)])
    subsetter.subset(whole)
    whole.flavor = "woff"
    file = BytesIO()
    whole.save(file)
    return file.getvalue()


def datatables() -> str:
    """The DataTables bundle of the installed itables, as a classic script that sets `window.bundledTables`.

    Browsers refuse to load ES modules from `file://`; the bundle is one, with a single export statement.

    Raises:
        FormatError: the installed itables carries no bundle of the expected form.
    """
    path = Path(str(importlib.metadata.distribution("itables").locate_file("itables/html/dt_bundle.js")))
    try:
        module = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: itables without its offline bundle: {error}") from error
    exports = list(re.finditer(r"\bexport\s*\{([^{}]*)\};?", module))
    if len(exports) != 1:
        raise FormatError(f"{path}: has {len(exports)} export statements, not one: another itables")
    names = re.sub(r"([\w$]+) as ([\w$]+)", r"\2: \1", exports[0][1])
    start, end = exports[0].span()
    body = f"{module[:start]}window.bundledTables = {{{names}}};{module[end:]}"
    return f'(function () {{ "use strict";\n{body}\n}})();\n'


@cache
def vega() -> str:
    """Vega, Vega-Lite and Vega-Embed of the installed vl-convert, as a classic script that sets `vegaEmbed`.

    It is bundled anew, by a few seconds of work, once per process.
    """
    import vl_convert

    body: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return f"(function () {{\n{body}\n}})();\n"
