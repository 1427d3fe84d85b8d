"""docs/benchmarks.md: what `make bench` measured, as a page with a figure."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attriboard.records.provenance import provenance
from attriboard.retraining.executors import usable_cores
from bench.report import draw, losses, short

__all__ = ["write_page"]

PAGE, FIGURE = Path("docs/benchmarks.md"), Path("docs/figures/benchmarks.svg")


def write_page(results: Mapping[str, dict[str, Any]], repetitions: int) -> None:
    """Write the page and its figure from the document of one run."""
    cores = usable_cores()
    draw(dict(results), FIGURE)
    comparisons = [one for result in results.values() for one in result["comparisons"]]
    rows = [
        f"| {one['what']} | {_seconds(one['ours'])} | {one['peer']} | {_seconds(one['theirs'])} "
        f"| {short(one['ratio'])} × ({' … '.join(map(short, one['ratio_range']))}) | {one['note']} |"
        for one in comparisons
    ]
    numbers = [
        f"| {name} | {key} | {_number(value)} |"
        for name, result in results.items()
        for key, value in result["numbers"].items()
        if isinstance(value, int | float | str)
    ]
    lost = [f"- {sentence}." for sentence in losses(dict(results))] or ["Nowhere in this run."]
    PAGE.write_text(
        "\n".join(
            [
                "# Speed against peers",
                "",
                f"Made by `python -m bench --page` on {cores} core{'s' * (cores > 1)} of one machine "
                f"({provenance().hardware.cpu}), ours and theirs in turn, up to {repetitions} repetitions. Seconds are "
                "medians; ratios are theirs over ours, with their range.",
                "",
                f"![Ratios of seconds, theirs over ours]({FIGURE.relative_to(PAGE.parent)})",
                "",
                "| what | ours | peer | theirs | ratio | note |",
                "|---|---|---|---|---|---|",
                *rows,
                "",
                "## Where we lose",
                "",
                *lost,
                "",
                "## Measurements without a peer",
                "",
                "| measurement | number | value |",
                "|---|---|---|",
                *numbers,
                "",
            ]
        ),
        encoding="utf-8",
    )


def _seconds(several: list[float]) -> str:
    return f"{short(statistics.median(several))} s"


def _number(value: float | str) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)
