"""Charts: templates of Vega-Lite, filled with data and colors, and the one renderer that makes files of them.

The templates are in `static/plots.js`, which the site's interactive figures fill as well: a picture is described once.
A string `$name` in a template is replaced by the value of that name, or by the template of that name.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from attriboard.leaderboard.axes import Axis

Chart = dict[str, Any]
"""A Vega-Lite specification."""

TEMPLATES = Path(__file__).parent.parent / "static" / "plots.js"
FONT = "Liberation Sans, DejaVu Sans, Arial, Helvetica, sans-serif"  # the renderer brings the first along
COLORS = ("ink", "soft", "line", "accent", "default", "selected", "oracle", "bad")
PAGE = {name: f"var(--{name})" for name in COLORS}
"""Colors of a drawing inside a page: its style sheet decides, by theme."""
PRINT = dict(
    zip(
        COLORS,
        ("#1b1f24", "#57606b", "#dde1e6", "#0a58a8", "#b4540a", "#0a58a8", "#1b1f24", "#a3161f"),
        strict=True,
    )
)
"""Colors of a file: those of the light theme."""


@functools.cache
def templates() -> dict[str, Any]:
    """The templates by name."""
    text = TEMPLATES.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text.removeprefix("window.plots = ").rstrip().removesuffix(";"))
    return found


def filled(name: str, values: Mapping[str, Any], colors: Mapping[str, str] = PRINT) -> Chart:
    """A template with its values."""
    known = templates() | {"font": FONT, "heading": "", "columns": 3} | dict(colors) | dict(values)

    def fill(part: Any) -> Any:
        if isinstance(part, str) and part.startswith("$"):
            return fill(known[part[1:]])
        if isinstance(part, dict):
            whole = {key: fill(value) for key, value in part.items()}
            return whole | (
                {"layer": [layer for layer in whole["layer"] if _has_data(layer)]} if "layer" in whole else {}
            )
        return [fill(value) for value in part] if isinstance(part, list) else part

    chart: Chart = fill(f"${name}")
    return chart


def _has_data(layer: Any) -> bool:
    """Whether a layer draws anything; an empty one would leave its scales without a domain, and so without an end."""
    return not (isinstance(layer, dict) and layer.get("data", {}).get("values") == [])


def svg(chart: Chart) -> str:
    """A chart as SVG; its texts stay texts. The same chart gives the same characters."""
    return _drawn(json.dumps(chart))


@functools.lru_cache(maxsize=128)  # several pages show the same figure, and drawing takes a third of a second
def _drawn(chart: str) -> str:
    import vl_convert

    text: str = vl_convert.vegalite_to_svg(json.loads(chart))
    return text


def inline(chart: Chart, description: str, phone: Chart | None = None) -> Markup:
    """A chart inside a page, with a description for people who do not see it; needs no scripts.

    Args:
        chart: what is drawn.
        description: in words.
        phone: the same for a narrow screen, where shrinking would make its letters too small.
    """
    drawings = [(_hidden(chart), "desk" if phone else "")] + ([(_hidden(phone), "phone")] if phone else [])
    figure = Markup('<div class="figure curve {}">{}</div>')
    drawn = Markup("").join(figure.format(screen, drawing) for drawing, screen in drawings)
    return Markup('<div role="img" aria-label="{}">{}</div>').format(description, drawn)


def _hidden(chart: Chart) -> Markup:
    return Markup(svg(chart).replace("<svg ", '<svg aria-hidden="true" ', 1))


def transposed(part: Any) -> Any:
    """A chart with its axes swapped."""
    swapped = {"x": "y", "y": "x", "x2": "y2", "y2": "x2", "width": "height", "height": "width"}
    if isinstance(part, dict):
        return {swapped.get(key, key): transposed(value) for key, value in part.items()}
    return [transposed(value) for value in part] if isinstance(part, list) else part


def save_figure(chart: Chart, stem: Path) -> Path:
    """Write `stem.svg` and `stem.png`, on white; returns the path of the PNG. The same chart gives the same bytes."""
    import vl_convert

    stem.parent.mkdir(parents=True, exist_ok=True)
    name = stem.name.removesuffix(".svg").removesuffix(".png")  # any other dot belongs to the name
    opaque = chart | {"background": "white", "padding": 12}
    stem.with_name(f"{name}.svg").write_text(svg(opaque), encoding="utf-8")
    png = stem.with_name(f"{name}.png")
    png.write_bytes(vl_convert.vegalite_to_png(opaque, scale=2.2))
    return png


def axis_values(axis: Axis, title: str) -> dict[str, Any]:
    """What the templates need of a hyperparameter's axis: domain, ticks, their labels as an expression, title."""
    first, last = axis.positions[0], axis.positions[-1]
    margin = 0.03 * ((last - first) or 1.0)
    # Shifted by 1000, for Vega writes a minus sign of its own into the key of a negative place.
    labels = {f"{place + 1000:.4f}": label for place, label in axis.ticks}
    return {
        "title": title + (" (log)" if axis.log else ""),
        "domain": [first - margin, last + margin],
        "places": [round(place, 4) for place, _ in axis.ticks],
        "labels": f"({json.dumps(labels, ensure_ascii=False)})[format(datum.value + 1000, '.4f')]",
    }


def label_of(name: str) -> str:
    """What an axis calls a hyperparameter."""
    return {"regularization": "regularization λ", "projection_dim": "projection dimension"}.get(
        name, name.replace("_", " ")
    )


def short(value: float) -> str:
    """A number in as few characters as a label has room for."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e5 else f"{value:.3g}"


def as_number(value: object) -> float | None:
    """A hyperparameter's value as a number; none of a text or a truth value."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def numbered(records: Sequence[Any], name: str) -> list[tuple[float, Any]]:
    """Records that have a number for a hyperparameter, with it, ascending."""
    found = [(value, r) for r in records if (value := as_number(r.hyperparameters.get(name))) is not None]
    return sorted(found, key=lambda pair: pair[0])
