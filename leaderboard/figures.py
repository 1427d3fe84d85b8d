"""Static figures as inline SVG: sharp in print, themed by the page's style sheet, readable without scripts."""

from collections.abc import Callable, Sequence

from markupsafe import Markup, escape

from attriboard.leaderboard.curves import Curve, Point
from attriboard.leaderboard.formats import fixed, plain

WIDTH, LEFT, RIGHT = 460, 58, 12
TOP, PANEL, XI_PANEL, GAP, BOTTOM = 26, 190, 74, 14, 44

MARKS = {  # shapes differ as well as colours
    "default": '<rect class="mark default" x="{l:.1f}" y="{t:.1f}" width="9" height="9"/>',
    "selected": '<path class="mark selected" d="M{x:.1f} {y:.1f}m-7 0l7 -7l7 7l-7 7z"/>',
    "oracle": '<circle class="mark oracle" cx="{x:.1f}" cy="{y:.1f}" r="9.5"/>',
}


def curve_figure(curve: Curve) -> Markup:
    """LDS with its band, ceiling and marks over one hyperparameter; ξ̄ in a panel below where it is known."""
    has_xi = sum(point.xi is not None for point in curve.points) >= 2
    height = TOP + PANEL + (GAP + XI_PANEL) * has_xi + BOTTOM
    low, high = _range(curve)

    def x(position: float) -> float:
        first, last = curve.axis.positions[0], curve.axis.positions[-1]
        return LEFT + 10 + (WIDTH - LEFT - RIGHT - 20) * (position - first) / ((last - first) or 1.0)

    def y(value: float) -> float:
        return TOP + PANEL * (1 - (value - low) / (high - low))

    parts = [_grid(y, low, high), _ticks(curve, x, height), _line(curve, x, y), _marks(curve, x, y)]
    if has_xi:
        parts.append(_xi_panel(curve, x, TOP + PANEL + GAP))
    name = escape(curve.axis.name) + (" (log)" if curve.axis.log else "")
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(Markup(f'<text class="axis-title" x="{middle}" y="{height - 6}" text-anchor="middle">{name}</text>'))
    parts.append(
        Markup(
            f'<text class="axis-title" x="14" y="{TOP + PANEL / 2:g}" transform="rotate(-90 14 {TOP + PANEL / 2:g})" '
            'text-anchor="middle">LDS</text>'
        )
    )
    return Markup('<svg class="figure curve" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, height, describe(curve), Markup("").join(parts)
    )


def describe(curve: Curve) -> str:
    """The figure in words."""
    scored = [p.entry.record.lds.mean for p in curve.points if p.entry.record.lds]
    text = f"{curve.attributor} on {curve.task}: LDS over {curve.axis.name}, {len(curve.points)} values"
    if scored:
        text += f", from {fixed(min(scored))} to {fixed(max(scored))}"
    for variant, point in curve.marks.items():
        lds = point.entry.record.lds
        text += f"; {variant} at {plain(point.value)}: {fixed(lds.mean) if lds else 'failed'}"
    return text + (f"; noise ceiling {fixed(curve.ceiling)}" if curve.ceiling is not None else "")


def _range(curve: Curve) -> tuple[float, float]:
    ends = [end for p in curve.points if p.entry.record.lds for end in p.entry.record.lds.ci95]
    low, high = min([*ends, 0.0]), max([*ends, curve.ceiling or 0.1])
    return low - 0.03 * (high - low), high + 0.05 * (high - low)


def _grid(y: Callable[[float], float], low: float, high: float) -> Markup:
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / s <= 6)
    values = [i * step for i in range(int(low / step) - 1, int(high / step) + 2) if low <= i * step <= high]
    return Markup("").join(
        Markup(
            f'<path class="{"axis" if abs(value) < 1e-9 else "grid"}" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{fixed(value, 2)}</text>'
        )
        for value in values
    )


def _ticks(curve: Curve, x: Callable[[float], float], height: float) -> Markup:
    base = height - BOTTOM
    return Markup("").join(
        Markup(
            f'<path class="grid" d="M{x(position):.1f} {base}v4"/>'
            f'<text class="tick" x="{x(position):.1f}" y="{base + 17}" text-anchor="middle">{escape(label)}</text>'
        )
        for position, label in curve.axis.ticks
    )


def _line(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    scored = [(p, p.entry.record.lds) for p in curve.points if p.entry.record.lds]
    band = [f"{x(p.position):.1f} {y(lds.ci95[1]):.1f}" for p, lds in scored]
    band += [f"{x(p.position):.1f} {y(lds.ci95[0]):.1f}" for p, lds in reversed(scored)]
    line = [f"{x(p.position):.1f} {y(lds.mean):.1f}" for p, lds in scored]
    parts = [Markup(f'<path class="band" d="M{"L".join(band)}z"/><path class="line" d="M{"L".join(line)}"/>')] * bool(
        scored
    )
    if curve.ceiling is not None:
        parts.append(
            Markup(
                f'<path class="ceiling" d="M{LEFT} {y(curve.ceiling):.1f}H{WIDTH - RIGHT}"/><text class="tick over" '
                f'x="{LEFT + 4}" y="{y(curve.ceiling) + 15:.1f}">noise '
                f"ceiling {fixed(curve.ceiling)}</text>"
            )
        )
    parts += [
        Markup('<circle class="dot" cx="{:.1f}" cy="{:.1f}" r="2.2"><title>{}</title></circle>').format(
            x(p.position), y(lds.mean), f"{curve.axis.name} = {plain(p.value)}: {fixed(lds.mean)}"
        )
        for p, lds in scored
    ]
    parts += [
        Markup('<path class="failure" d="M{:.1f} {}m-4 -4l8 8m0 -8l-8 8"><title>{}</title></path>').format(
            x(p.position), TOP + PANEL - 8, f"{curve.axis.name} = {plain(p.value)}: {p.entry.record.reason}"
        )
        for p in curve.points
        if p.entry.record.lds is None
    ]
    return Markup("").join(parts)


def _marks(curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> Markup:
    parts, drawn = [], []
    for variant, shape in MARKS.items():
        point = curve.marks.get(variant)
        if point is None or point.entry.record.lds is None:
            continue
        at, level = x(point.position), y(point.entry.record.lds.mean)
        parts.append(Markup(shape.format(x=at, y=level, l=at - 4.5, t=level - 4.5)))
        drawn.append((variant, point.entry.record.lds.mean))
    for column, (variant, mean) in enumerate(drawn):
        place = LEFT + 8.0 + 132 * column
        shape = MARKS[variant].format(x=place, y=TOP - 14, l=place - 4.5, t=TOP - 18.5).replace('r="9.5"', 'r="6"')
        parts.append(
            Markup(f'{shape}<text class="legend" x="{place + 14}" y="{TOP - 10}">{variant} {fixed(mean)}</text>')
        )
    return Markup("").join(parts)


def _xi_panel(curve: Curve, x: Callable[[float], float], top: float) -> Markup:
    known: Sequence[tuple[Point, float]] = [(p, p.xi) for p in curve.points if p.xi is not None]

    def y(value: float) -> float:
        return top + XI_PANEL * (1 - value)

    line = "L".join(f"{x(p.position):.1f} {y(xi):.1f}" for p, xi in known)
    grid = "".join(
        f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        for value in (0.0, 0.5, 1.0)
    )
    parts = [grid, f'<path class="half" d="M{LEFT} {y(0.5):.1f}H{WIDTH - RIGHT}"/><path class="xi" d="M{line}"/>']
    chosen = curve.marks.get("selected")
    if chosen and chosen.xi is not None:
        at, level = x(chosen.position), y(chosen.xi)
        parts.append(
            f'<path class="guide" d="M{at:.1f} {TOP}V{top + XI_PANEL}"/>'
            + MARKS["selected"].format(x=at, y=level, l=0.0, t=0.0)
        )
    parts.append(f'<text class="axis-title" x="6" y="{top + XI_PANEL / 2 + 4:g}">ξ̄</text>')
    return Markup("".join(parts))
