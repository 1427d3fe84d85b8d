"""Scripts, styles and the font of formulas: our own files, and the bundles that installed packages carry.

No bundle is committed. The font is: few systems have one for formulas, and no package that the site needs carries one.
It is STIX Two Math 2.11 (SIL Open Font License 1.1, `fonts/OFL.txt`), cut down by fontTools to letters, Greek,
operators, arrows and delimiters:

    pyftsubset STIXTwoMath-Regular.ttf --flavor=woff --no-hinting --layout-features=math,ssty,kern,liga,dtls
"""

import importlib.metadata
import re
from functools import cache
from pathlib import Path

from attriboard.base.errors import FormatError

STATIC = Path(__file__).parent / "static"
FONTS = Path(__file__).parent / "fonts"


def own_assets() -> dict[str, str]:
    """Our own files, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(STATIC.iterdir()) if path.is_file()}


def fonts() -> list[Path]:
    """The font of formulas, and its license."""
    return sorted(path for path in FONTS.iterdir() if path.is_file())


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
