"""What a measurement gives, how it is printed, and its figure."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

__all__ = ["Comparison", "Measured", "draw", "interleaved", "losses", "short", "table"]

INK, LOSS = "#1f5fa8", "#b5432f"


@dataclass(frozen=True)
class Comparison:
    """Ours against a peer, repetition by repetition.

    Attributes:
        what: what both did.
        peer: library and version, or what else it is.
        ours: seconds of each repetition.
        theirs: of the same repetitions, one after the other with ours.
        note: how it differs from what a user would do, if it does.
    """

    what: str
    peer: str
    ours: list[float]
    theirs: list[float]
    note: str = ""

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours: above 1, we are faster."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The median ratio."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """Everything, with the ratio and its range."""
        return asdict(self) | {"ratio": self.ratio, "ratio_range": [min(self.ratios), max(self.ratios)]}


@dataclass(frozen=True)
class Measured:
    """What one module measured: comparisons, and other numbers by name."""

    comparisons: list[Comparison] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document of one module."""
        return {"comparisons": [one.to_json() for one in self.comparisons], "numbers": self.numbers}


def interleaved(
    ours: Callable[[], Any], theirs: Callable[[], Any], repetitions: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, in turn, so that a busy machine hurts both; the first call of each is not counted."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repetitions)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def seconds(work: Callable[[], Any]) -> float:
    """Wall-clock seconds of a call."""
    started = perf_counter()
    work()
    return perf_counter() - started


def short(value: float) -> str:
    """Three digits, and never an exponent for what people count in."""
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(results: dict[str, dict[str, Any]]) -> str:
    """Comparisons and numbers as text."""
    lines = []
    for name, result in results.items():
        for one in result["comparisons"]:
            low, high = one["ratio_range"]
            ours, theirs = statistics.median(one["ours"]), statistics.median(one["theirs"])
            lines.append(
                f"{name:<11} {one['what']:<52} {short(ours):>9} s  {one['peer']:<24} {short(theirs):>9} s"
                f"  {short(one['ratio']):>7} × ({short(low)} … {short(high)}, {len(one['ours'])} repetitions)"
            )
        lines += [f"{name:<11} {key:<52} {value}" for key, value in result["numbers"].items()]
    return "\n".join(lines)


def losses(results: dict[str, dict[str, Any]]) -> list[str]:
    """A sentence for each comparison in which the peer is faster, or was in one of the repetitions."""
    comparisons = [one for result in results.values() for one in result["comparisons"]]
    return [
        f"{one['what']}: {one['peer']} is {1 / one['ratio']:.2g} times faster"
        if one["ratio"] < 1
        else f"{one['what']}: in some repetitions, {one['peer']} is {1 / min(one['ratio_range']):.2g} times faster"
        for one in comparisons
        if min(one["ratio"], *one["ratio_range"]) < 1
    ]


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Ratios with their ranges on a logarithmic axis, as SVG."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows: Sequence[dict[str, Any]] = [one for result in results.values() for one in result["comparisons"]][::-1]
    figure = Figure(figsize=(8, 0.8 + 0.45 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for position, one in enumerate(rows):
        low, high = one["ratio_range"]
        colour = INK if one["ratio"] >= 1 else LOSS
        axes.plot([low, high], [position, position], color=colour, linewidth=2)
        axes.plot(one["ratio"], position, "o", color=colour)
        axes.annotate(
            f"{short(one['ratio'])} ×", (one["ratio"], position), (0, 6), textcoords="offset points", ha="center"
        )
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xscale("log")
    axes.margins(x=0.12)
    axes.xaxis.set_major_formatter(lambda value, position: short(value))
    axes.set_yticks(range(len(rows)), [f"{one['what']}\n{one['peer']}" for one in rows], fontsize=8)
    axes.set_ylim(-0.6, len(rows) - 0.2)
    axes.set_xlabel("their seconds over ours: right of the line we are faster")
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "attriboard"}):  # the same bytes for the same numbers
        FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})
