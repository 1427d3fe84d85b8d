"""Small inline drawings in tables: intervals against the ceiling, and distributions."""

from collections.abc import Iterable, Sequence

from markupsafe import Markup

from attriboard.leaderboard.formats import fixed
from attriboard.records.model import LdsResult

BAR_WIDTH = 116  # pixels
MARGIN = 4


def interval_bar(lds: LdsResult, scale: tuple[float, float], ceiling: float | None) -> Markup:
    """Interval, mean, zero and ceiling on a scale that all bars of a table share.

    One element that the style sheet paints: a thousand rows have three thousand bars.
    """
    low, high = scale

    def at(value: float) -> float:
        return round(MARGIN + (BAR_WIDTH - 2 * MARGIN) * (value - low) / ((high - low) or 1.0), 1)

    zero, mean, left, right = at(0.0), at(lds.mean), at(lds.ci95[0]), at(lds.ci95[1])
    places = {"z": zero, "a": min(zero, mean), "m": abs(mean - zero), "l": left - 0.5, "w": right - left + 1}
    if ceiling is not None:
        places["c"] = at(ceiling)
    style = ";".join(f"--{name}:{place:.1f}px" for name, place in places.items())
    return Markup(f'<i class="bar" style="{style}"></i>')


def lowest(values: Iterable[float]) -> float:
    """Where the axis of a histogram of these correlations begins."""
    return -1.0 if min(values) < -0.25 else -0.25


def histogram(
    values: Sequence[float], label: str, ceiling: float | None = None, low: float | None = None, bins: int = 40
) -> Markup:
    """The distribution of correlations over test points, from −1 or −0.25 to 1, with their mean.

    Args:
        values: at least one, within [−1, 1].
        label: what is counted.
        ceiling: drawn dashed.
        low: where the axis begins; by default as the values need it.
        bins: over the whole range.
    """
    width, height, left, right, bottom = 440, 172, 34, 18, 42
    low = lowest(values) if low is None else low
    counts = [0] * bins
    for value in values:
        counts[max(0, min(bins - 1, int((value - low) / (1 - low) * bins)))] += 1
    mean = sum(values) / len(values)

    def x(value: float) -> float:
        return round(left + (width - left - right) * (value - low) / (1 - low), 1)

    def y(number: float) -> float:
        return round(8 + (height - bottom - 8) * (1 - number / max(counts)), 1)

    bars = "".join(
        f'<rect class="count" x="{x(low + (1 - low) * i / bins) + 0.5:g}" y="{y(number)}" '
        f'width="{x(low + (1 - low) * (i + 1) / bins) - x(low + (1 - low) * i / bins) - 1:.1f}" '
        f'height="{round(y(0) - y(number), 1)}"/>'
        for i, number in enumerate(counts)
        if number
    )
    ticks = [tick / 4 for tick in range(-4, 5) if tick / 4 >= low]
    labels = "".join(
        f'<text class="tick" x="{x(tick)}" y="{height - 24}" text-anchor="middle">{fixed(tick, 2)}</text>'
        for tick in ticks
    )
    marks = f'<path class="mean" d="M{x(mean)} 8V{y(0)}"/>'
    if ceiling is not None:
        marks += f'<path class="ceiling" d="M{x(ceiling)} 8V{y(0)}"/>'
    text = f"{label}: {len(values)} points, mean {fixed(mean)}"
    return Markup(
        '<svg class="figure histogram" viewBox="0 0 {w} {h}" role="img" aria-label="{text}">{body}</svg>'
    ).format(
        w=width,
        h=height,
        text=text,
        body=Markup(
            f'<path class="axis" d="M{left} {y(0)}H{width - right}"/>{bars}{marks}{labels}'
            f'<text class="tick" x="{left - 6}" y="{y(max(counts)) + 8}" text-anchor="end">{max(counts)}</text>'
            f'<text class="tick" x="{left - 6}" y="{y(0)}" text-anchor="end">0</text>'
            f'<text class="axis-title" x="{(left + width - right) / 2:g}" y="{height - 5}" text-anchor="middle">'
            "LDS of one test point</text>"
        ),
    )
